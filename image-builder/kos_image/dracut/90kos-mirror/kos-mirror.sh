#!/bin/sh
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# A mirror is whole when both of its halves are open; then systemd mounts it, and there is nothing to do here. Where one
# half is open and the other is not though nobody is asked for a passphrase any more, it is mounted without, after the
# seconds that the kernel argument kos.mirror= names.
system=${KOS_MIRROR_SYSTEM:-} # where /proc, /dev and /run lie: tests have their own
patience=30 uuid='' halves='' mounted=sysroot.mount
read -r arguments <"$system/proc/cmdline"
for word in $arguments; do
  case $word in
    kos.mirror=*) patience=${word#*=} ;;
    root=UUID=*) uuid=${word#root=UUID=} ;;
    rd.luks.name=*) halves="$halves ${word##*=}" ;;
  esac
done
[ -n "$uuid" ] || exit 0

# Each half that is open, as a path.
opened() {
  for half in $halves; do
    [ ! -e "$system/dev/mapper/$half" ] || echo "$system/dev/mapper/$half"
  done
}

# Whether a half is being opened: somebody is asked for a passphrase, or it is being tried.
asked() {
  [ -n "$(systemctl list-units --no-legend --state=activating 'systemd-cryptsetup@*')" ]
}

waited=0
while [ "$waited" -lt "$patience" ]; do
  sleep 1
  one=
  for one in $(opened); do
    ! btrfs device ready "$one" >/dev/null 2>&1 || exit 0
  done
  if [ -z "$one" ] || asked; then
    waited=0
  else
    waited=$((waited + 1))
  fi
done

echo "one disk of this machine's mirror is missing: it starts with the other" >&2
options=$(systemctl show --property=Options --value "$mounted")
mkdir -p "$system/run/systemd/system/$mounted.d" "$system/run/udev/rules.d"
printf '[Mount]\nOptions=%s,degraded\n' "$options" >"$system/run/systemd/system/$mounted.d/kos-mirror.conf"
# systemd waits for a btrfs until all of it is there (64-btrfs.rules): this one is as whole as it gets. The rule is there
# for the system that is started too.
printf 'SUBSYSTEM=="block", ENV{ID_FS_TYPE}=="btrfs", ENV{ID_FS_UUID}=="%s", ENV{SYSTEMD_READY}="1"\n' "$uuid" \
  >"$system/run/udev/rules.d/65-kos-mirror.rules"
udevadm control --reload
systemctl daemon-reload
for one in $(opened); do
  udevadm trigger --action=change "$one"
done
