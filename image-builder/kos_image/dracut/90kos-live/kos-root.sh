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
thing=stick credential=kos.passphrase
# shellcheck source=image-builder/kos_image/dracut/90kos-asking/kos-asking.sh
. "${KOS_ASKING:-/usr/libexec/kos-asking}"

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

# $(header) is words, and none of them has a space or a pattern in it.
# shellcheck disable=SC2046
format() {
  printf %s "$answer" | cryptsetup luksFormat $(header) --label kos-persist "/dev/$1"
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

first_boot() {
  new=$(partition kos-persist-new)
  [ -n "$new" ] || make_partition
  choose_passphrase "This stick will remember what you do, encrypted."
  say "Encrypting: this takes up to a minute …"
  { format "$new" && open "$new" && fill; } || give_up "What you keep cannot be stored on this stick: is it worn out?"
  show_recovery_key "/dev/$new"
  unattended || wait_until_written_down
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
