# shellcheck shell=bash disable=SC2154
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# dracut: what lays a writable root over that of a live medium. Only on request.

check() {
  require_binaries blkid e2fsck mkfs.ext4 sfdisk systemd-repart || return 1
  return 255
}

depends() {
  echo kos-asking
}

installkernel() {
  # A medium does not know its machine.
  hostonly='' instmods overlay
}

install() {
  inst_multiple basename blkid blockdev cat cp dirname e2fsck head mkdir mkfs.ext4 mount mv readlink rm sfdisk sync \
    systemd-repart udevadm umount
  inst_simple /etc/mke2fs.conf
  inst_script "$moddir/kos-root.sh" /usr/libexec/kos-root
  inst_simple "$moddir/repart.d/persist.conf" /usr/share/kos-live/repart.d/persist.conf
  inst_simple "$moddir/kos-live.service" "$systemdsystemunitdir/kos-live.service"
  $SYSTEMCTL -q --root "$initdir" add-requires initrd-root-fs.target kos-live.service
}
