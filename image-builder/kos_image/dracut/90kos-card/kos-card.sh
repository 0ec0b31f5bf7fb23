#!/bin/sh
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# In the initrd of a card: encrypt its root in place, on its first start. The image has left room for a LUKS2 header
# before the root's file system, so nothing of it moves. How far it is, the partition itself says, whenever power is cut:
#
#   no header, the file system behind the room      as it was written: begin
#   a header that says it is being encrypted        go on
#   a finished one, still called kos-root-new       finish
#   one called kos-root                             nothing is left to do here
#
# The header is made in memory, and only as one that says so; of its pieces that which makes it valid is written last.
set -u
system=${KOS_CARD_SYSTEM:-} # where /proc, /dev, /sys and /run lie: tests have their own
run=$system/run/kos
name=kos-root fat=kos-firmware
room_kib=16384 # before the file system, as kos_image.filesystems has it
first_kib=32   # both copies of what makes a header valid; behind them lie its key slots
patience=600   # seconds for a card to appear
passphrases='passphrase passphrase.txt'
# Nothing outside gives a Raspberry Pi a credential.
thing=card credential=
# shellcheck source=image-builder/kos_image/dracut/90kos-asking/kos-asking.sh
. "${KOS_ASKING:-/usr/libexec/kos-asking}"

# argument KEY: what follows that in the kernel's arguments.
argument() {
  tr ' ' '\n' <"$system/proc/cmdline" | sed -n "s/^$1//p" | head -n 1
}

# Our partition is in $part, its number there in $number, the disk in $disk; $uuid is what its LUKS header will have.
find_card() {
  by=$system/dev/disk/by-partuuid/$(argument kos.card=)
  udevadm wait --timeout=$patience "$by" || give_up "This card's own partition does not appear: is the card damaged?"
  part=$(readlink -f "$by")
  entry=$(readlink -f "$system/sys/class/block/${part##*/}")
  disk=${entry%/*} disk=${disk##*/}
  uuid=$(argument rd.luks.name=)
  uuid=${uuid%%=*}
}

# label DEVICE, at most the one of a LUKS header.
label() {
  blkid -p -s LABEL -o value "$1"
}

state() {
  if ! cryptsetup isLuks --type luks2 "$part"; then
    case $(blkid -p -O $((room_kib * 1024)) -s TYPE -o value "$part") in
      ext4) echo written ;;
      *) echo damaged ;;
    esac
  elif cryptsetup luksDump "$part" | grep -q '^Requirements:.*reencrypt'; then
    echo begun
  elif [ "$(label "$part")" = "$name" ]; then
    echo finished
  else
    echo encrypted
  fi
}

# --- where the passphrase comes from ---------------------------------------------------------------------------------

# with_fat COMMAND...: with the partition that every computer shows mounted at $run/fat.
with_fat() {
  mkdir -p "$run/fat"
  mount -t vfat -o umask=0077 "$system/dev/disk/by-partlabel/$fat" "$run/fat" || return 1
  "$@"
  ended=$?
  umount "$run/fat"
  return $ended
}

# read_file: the first line of the file with a passphrase is in $answer, without what editors put around it. Fails where
# there is no file, and where what is in it could not be typed at a later start.
read_file() {
  for file in $passphrases; do
    [ -f "$run/fat/$file" ] || continue
    # All but control characters, of which every second one of UTF-16 is one, and the end of the line.
    plain=$(head -n 1 "$run/fat/$file" | tr -d '\000-\011\013\014\016-\037\177' | wc -c)
    answer=$(head -n 1 "$run/fat/$file" | tr -d '\000\r' | sed 's/^\xef\xbb\xbf//')
    if [ "$plain" -ne "$(head -n 1 "$run/fat/$file" | wc -c)" ]; then
      refused="The file $file on this card is not plain text: save it as UTF-8, or type the passphrase here."
    elif [ ${#answer} -lt $shortest ]; then
      refused="The passphrase in the file $file on this card is shorter than $shortest characters."
    else
      return 0
    fi
    answer=
    return 1
  done
  return 1
}

# forget_file: what was in it is overwritten where it lay, then it goes.
forget_file() {
  for file in $passphrases; do
    [ -f "$run/fat/$file" ] || continue
    dd if=/dev/zero of="$run/fat/$file" bs="$(stat -c %s "$run/fat/$file")" count=1 conv=notrunc,fsync 2>/dev/null
    rm -f "$run/fat/$file"
  done
  sync
  # Cards that know how are told that these blocks are free.
  fstrim "$run/fat" 2>/dev/null || :
}

# A new passphrase is in $answer: that of the file, or one that is typed.
new_passphrase() {
  refused=
  typed=
  with_fat read_file && return
  typed=yes
  choose_passphrase "${refused:-This card encrypts itself.} Keys are those of a US keyboard."
}

# The passphrase that was chosen before is in $answer: that of the file, or what is typed until it is the one.
same_passphrase() {
  typed=
  with_fat read_file && opens && return
  typed=yes
  said="The encryption of this card goes on."
  until ask "$said Its passphrase:" && [ -n "$answer" ] && opens; do
    said="That is not the one that was chosen."
  done
}

opens() {
  printf %s "$answer" | cryptsetup open --test-passphrase --key-file=- "$part"
}

# --- its steps -------------------------------------------------------------------------------------------------------

# $(header) is words, and none of them has a space or a pattern in it.
# shellcheck disable=SC2046
begin() {
  made=$run/header
  rm -f "$made"
  printf %s "$answer" | cryptsetup reencrypt --encrypt --init-only $(header) --uuid "$uuid" --label "$name-new" \
    --resilience journal --header "$made" --offset $((room_kib * 2)) "$part" &&
    dd if="$made" of="$part" bs=${first_kib}K skip=1 seek=1 conv=notrunc,fsync 2>/dev/null &&
    dd if="$made" of="$part" bs=${first_kib}K count=1 conv=notrunc,fsync 2>/dev/null &&
    rm -f "$made"
}

# What a cut left half-way is mended first, from the journal that is kept for that.
go_on() {
  say "Encrypting: this takes some minutes. If the power fails, it goes on at the next start."
  printf %s "$answer" | cryptsetup repair --batch-mode --key-file=- "$part" &&
    printf %s "$answer" | cryptsetup reencrypt --resume-only --batch-mode --resilience journal --key-file=- \
      --progress-json --progress-frequency 10 "$part" | tell_progress
  [ "$(state)" = encrypted ]
}

tell_progress() {
  while read -r line; do
    done=${line#*'"device_bytes":"'} whole=${line#*'"device_size":"'}
    done=${done%%'"'*} whole=${whole%%'"'*}
    case $done$whole in '' | *[!0-9]*) continue ;; esac
    say "$((done * 100 / whole)) % is encrypted."
  done
}

# From here on it is encrypted, and opens as any other: what a cut leaves undone is done at the next start.
finish() {
  say "This card is encrypted."
  systemd-cryptenroll --wipe-slot=recovery "$part" >/dev/null 2>&1
  if [ "$typed" ]; then
    show_recovery_key "$part"
    wait_until_written_down
  fi
  with_fat forget_file || say "The file with the passphrase may still be on this card: remove it."
  grow
  printf %s "$answer" | cryptsetup open --type luks2 --allow-discards --key-file=- "$part" "$name" &&
    cryptsetup config --label "$name" "$part" && blockdev --flushbufs "$part"
}

# Before it is open: an open device would not grow with its partition.
grow() {
  systemd-repart --definitions=/usr/share/kos-card/repart.d --dry-run=no --empty=refuse --discard=no --no-pager \
    "/dev/$disk" || say "This card cannot be used up to its end; what is on it is whole."
  udevadm settle --timeout=60
}

main() {
  umask 077
  mkdir -p "$run"
  find_card
  was=$(state)
  case $was in
    finished) return ;;
    damaged) give_up "The root of this card is damaged. Nothing was changed: write the image again." ;;
    written) new_passphrase && { begin || give_up "This card cannot be encrypted: is it worn out?"; } ;;
    *) same_passphrase ;;
  esac
  [ "$was" = encrypted ] || go_on || give_up "This card cannot be encrypted: is it worn out? The next start goes on."
  finish || give_up "This card is encrypted, but cannot be opened: start again."
  answer=
}

main
