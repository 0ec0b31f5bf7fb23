#!/usr/bin/env bash
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# make-initrd.sh DRACUT_ARGUMENT...: in the toolbox, from /build/root/root.tar and our modules in /build/recipes/dracut.
# dracut runs natively for any architecture: its --sysroot is the unpacked root. It leaves out what it does not find and
# still ends well: the caller looks at `list`, and at `unknown`, which has those of $DRIVERS that the kernel lacks.
set -euo pipefail
out=/build/initrd
export SYSROOT=/tmp/root
mkdir "$SYSROOT"
tar --extract --file /build/root/root.tar --directory "$SYSROOT" --exclude './dev/*'
base=$SYSROOT/usr/lib/dracut
# Of dracut's own programs one goes into the initrd, which must be the target's.
[[ ! -e $base/dracut-util ]] || mv "$base/dracut-util" /tmp/dracut-util
rm -rf "$base"
cp -r /usr/lib/dracut "$base"
[[ ! -e /tmp/dracut-util ]] || mv /tmp/dracut-util "$base/dracut-util"
cp -r /build/recipes/dracut/. "$base/modules.d/"
# --reproducible: nothing in an initrd is newer than this file.
touch --date "@$SOURCE_DATE_EPOCH" "$base/dracut-functions.sh"

# Some of dracut's modules look for those of the kernel outside of --sysroot.
mount --bind "$SYSROOT/usr/lib/modules" /usr/lib/modules
kernel=$(ls /usr/lib/modules)
if [[ $kernel == *$'\n'* ]]; then
  echo "there are several kernels: ${kernel//$'\n'/ }" >&2
  exit 1
fi

# What a program needs is what its own loader says: without it an initrd of another architecture has no libraries.
mkdir /tmp/bin /tmp/none
cat >/tmp/bin/sysroot-ldd <<'LDD'
#!/bin/sh
for loader in "$SYSROOT"/lib64/ld-linux-x86-64.so.2 "$SYSROOT"/lib/ld-linux-aarch64.so.1; do
  [ ! -e "$loader" ] || exec chroot "$SYSROOT" "${loader#"$SYSROOT"}" --list "${1#"$SYSROOT"}"
done
exit 1
LDD
chmod 0755 /tmp/bin/sysroot-ldd

DRACUT_INSTALL=/usr/lib/dracut/dracut-install DRACUT_LDD=/tmp/bin/sysroot-ldd dracut \
  --sysroot "$SYSROOT" --conf /dev/null --confdir /tmp/none --tmpdir /tmp --kver "$kernel" \
  --quiet --no-hostonly --no-hostonly-cmdline --no-early-microcode --nostrip --reproducible \
  "$@" "$out/initrd"
chmod 0644 "$out/initrd"
cp "$SYSROOT/boot/vmlinuz-$kernel" "$out/vmlinuz"
printf '%s\n' "$kernel" >"$out/kver"
lsinitrd "$out/initrd" >"$out/list"
for driver in $DRIVERS; do
  modinfo -k "$kernel" "$driver" >/dev/null 2>&1 || printf '%s\n' "$driver"
done >"$out/unknown"
# The kernel cannot ask a Raspberry Pi what it is made of: the firmware hands it one of these.
boards=$SYSROOT/usr/lib/linux-image-$kernel/broadcom
[[ ! -d $boards ]] || cp -r "$boards" "$out/dtbs"
