#!/bin/sh
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# In the initrd of a live medium: lay a writable root over the proved one in /sysroot. In memory; or, where the kernel is
# told kos.persist, in an encrypted partition in the free room of the medium, made on its first boot.
#
# The partition's name is kos-persist-new until all is done: only under that name is it ever made anew, so that a boot
# that was interrupted starts over, and a damaged header is never taken for a fresh stick.
set -u
system=${KOS_LIVE_SYSTEM:-} # where /sys, /proc and /run lie: tests have their own
sysroot=$system/sysroot run=$system/run/kos
persist=$run/persist
mapped=/dev/mapper/kos-persist
least_mib=512   # as in repart.d
shortest=8      # of a passphrase, in bytes
credential=kos.passphrase

say() {
  while read -r tty _; do
    [ -w "$system/dev/$tty" ] && printf '\r\n%s\r\n' "$1" >"$system/dev/$tty"
  done <"$system/proc/consoles"
}

# give_up SENTENCE: nothing of the main system starts.
give_up() {
  if ! systemd-ask-password --timeout=0 --emoji=no --echo=yes --no-output "$1 Press Enter to power off:"; then
    say "$1"
    sleep 60
  fi
  systemctl --force poweroff
  sleep 60 # it takes a moment, and a failure before then would start the emergency mode
  exit 1
}

# ask QUESTION: the answer is in $answer. The first may come from outside, the next ones are typed.
ask() {
  answer=
  if [ -n "$credential" ]; then
    answer=$(systemd-ask-password --timeout=0 --emoji=no --credential=$credential --id=kos-live "$1")
  else
    answer=$(systemd-ask-password --timeout=0 --emoji=no --id=kos-live "$1")
  fi
}

unattended() {
  [ -e "${CREDENTIALS_DIRECTORY:-/nowhere}/kos.passphrase" ]
}

# disk_of PARTITION: the disk that it is on, as in /dev.
disk_of() {
  basename "$(dirname "$(readlink -f "$system/sys/class/block/$1")")"
}

uuid() {
  blkid -p -s PART_ENTRY_UUID -o value "/dev/$1"
}

# The disk of the proved root is in $disk. Sticks of one build have the same partition UUIDs: root and hashes may come
# from two of them, and then nobody knows which one shall remember.
find_disk() {
  twins="Two sticks with this same system are plugged in. Nothing was changed: pull one out and start again."
  mapper=$(basename "$(readlink -f "$system/dev/mapper/root")")
  disk=
  for slave in "$system/sys/class/block/$mapper/slaves"/*; do
    [ -e "$slave" ] || continue
    own=$(basename "$slave")
    [ "${disk:=$(disk_of "$own")}" = "$(disk_of "$own")" ] || give_up "$twins"
  done
  [ -n "$disk" ] || give_up "The disk that this system starts from cannot be found."
  own=$(uuid "$own")
  for number in "$system/sys/class/block"/*/partition; do
    other=$(basename "$(dirname "$number")")
    [ "$(disk_of "$other")" = "$disk" ] || [ "$(uuid "$other")" != "${own:=unknown}" ] || give_up "$twins"
  done
}

# partition NAME: the partition of our own disk that is called so, as in /dev.
partition() {
  for number in "$system/sys/class/block/$disk"/*/partition; do
    part=$(basename "$(dirname "$number")")
    [ "$(blkid -p -s PART_ENTRY_NAME -o value "/dev/$part")" = "$1" ] && echo "$part" && return
  done
}

# Room behind the last partition, in MiB.
room_mib() {
  end=0
  for number in "$system/sys/class/block/$disk"/*/partition; do
    after=$(($(cat "${number%/partition}/start") + $(cat "${number%/partition}/size")))
    [ "$after" -gt "$end" ] && end=$after
  done
  echo $((($(cat "$system/sys/class/block/$disk/size") - end) / 2048)) # sectors of 512 bytes, whatever the disk's
}

make_partition() {
  room=$(room_mib)
  [ "$room" -gt "$least_mib" ] || give_up "There is no room to remember anything on this stick: $room MiB are left\
 behind the system, and $least_mib are needed. Write the image onto a larger one."
  systemd-repart --definitions=/usr/share/kos-live/repart.d --dry-run=no --empty=refuse --discard=no --seed=random \
    --no-pager "/dev/$disk" || give_up "The partition for what you keep cannot be made on this stick: is it write-protected?"
  udevadm settle --timeout=60
  new=$(partition kos-persist-new)
  [ -n "$new" ] || give_up "The partition for what you keep was made, but does not appear: start again."
}

# A new passphrase, typed twice, is in $answer.
choose_passphrase() {
  said="This stick will remember what you do, encrypted."
  while :; do
    ask "$said Choose a passphrase of at least $shortest characters:" || continue
    first=$answer
    if [ ${#first} -lt $shortest ]; then
      said="That is shorter than $shortest characters."
    elif ask "The same passphrase again:" && [ "$answer" = "$first" ]; then
      return
    else
      said="These two were not the same."
    fi
    credential=
  done
}

# Never what the tool measures: on a busy machine that is far too little.
format() {
  memory=$(awk '/^MemTotal:/ { kib = int($2 / 4); print (kib > 1048576 ? 1048576 : kib) }' "$system/proc/meminfo")
  processors=$(awk '/^processor/ { n++ } END { print (n > 4 ? 4 : (n ? n : 1)) }' "$system/proc/cpuinfo")
  printf %s "$answer" | cryptsetup luksFormat --batch-mode --type luks2 --cipher aes-xts-plain64 --key-size 512 \
    --pbkdf argon2id --pbkdf-memory "$memory" --pbkdf-parallel "$processors" --pbkdf-force-iterations 4 \
    --label kos-persist --key-file=- "/dev/$1"
}

open() {
  printf %s "$answer" | cryptsetup open --type luks2 --key-file=- "/dev/$1" kos-persist
}

fill() {
  mkfs.ext4 -q -E nodiscard -L kos-persist $mapped &&
    mount -o noatime $mapped "$persist" &&
    mkdir -p "$persist/upper" "$persist/work" "$persist/home" &&
    cp -a "$sysroot/var" "$persist/var" &&
    sync
}

show_recovery_key() {
  key=$(PASSWORD=$answer systemd-cryptenroll --recovery-key "/dev/$1" 2>/dev/null) ||
    give_up "The recovery key of this stick cannot be made: start again."
  say "The recovery key of this stick, shown this once. It opens the stick when the passphrase is lost:"
  say "    $key"
  key=
  unattended || systemd-ask-password --timeout=0 --emoji=no --echo=yes --no-output \
    "Write the recovery key down, and keep it apart from the stick. Then press Enter:"
}

first_boot() {
  new=$(partition kos-persist-new)
  [ -n "$new" ] || make_partition
  choose_passphrase
  say "Encrypting: this takes up to a minute …"
  { format "$new" && open "$new" && fill; } || give_up "What you keep cannot be stored on this stick: is it worn out?"
  show_recovery_key "$new"
  number=$(cat "$system/sys/class/block/$new/partition")
  sfdisk --quiet --no-reread --no-tell-kernel --part-label "/dev/$disk" "$number" kos-persist ||
    give_up "This stick cannot be finished: start again."
  blockdev --flushbufs "/dev/$disk"
}

# The passphrase or the recovery key, until it opens.
later_boot() {
  cryptsetup isLuks "/dev/$1" || give_up "The encrypted partition of this stick is damaged. Nothing was changed."
  said=
  while :; do
    ask "${said}Passphrase or recovery key of this stick:" && [ -n "$answer" ] && open "$1"
    case $? in
      0) break ;;
      3) said="This machine has too little memory for that: start the stick on the one that it was made on. " ;;
      *) said="That does not open it. " ;;
    esac
    credential=
  done
  e2fsck -p $mapped
  [ $? -lt 4 ] || say "Something of what you keep is damaged: back up what you can, then write the stick again."
  mount -o noatime $mapped "$persist" || give_up "What you keep on this stick cannot be read."
}

remember() {
  find_disk
  mkdir -p "$persist"
  finished=$(partition kos-persist)
  if [ -n "$finished" ]; then later_boot "$finished"; else first_boot; fi
  answer=
  lay "$persist"
  # Containers cannot lie on an overlay on an overlay.
  mount --bind "$persist/var" "$sysroot/var" && mount --bind "$persist/home" "$sysroot/home"
}

forget() {
  mkdir -p "$run/memory"
  mount -t tmpfs -o mode=0755 kos-memory "$run/memory" && mkdir "$run/memory/upper" "$run/memory/work" &&
    lay "$run/memory"
}

lay() {
  mount -t overlay -o "lowerdir=$sysroot,upperdir=$1/upper,workdir=$1/work" kos-root "$sysroot"
}

main() {
  mkdir -p "$run"
  case " $(cat "$system/proc/cmdline") " in
    *" kos.persist "*) remember ;;
    *) forget ;;
  esac || give_up "No writable root can be laid over this medium's."
}

main
