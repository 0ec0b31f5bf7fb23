# shellcheck shell=bash disable=SC2154
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# dracut: what encrypts a card on its first start. Only on request; the initrds that a node makes later do without.

check() {
  require_binaries blkid dd fstrim systemd-repart || return 1
  return 255
}

depends() {
  echo kos-asking systemd-cryptsetup
}

installkernel() {
  # By the kernel itself cryptsetup encrypts what is not open; the last are quick on boards whose processor has no AES.
  hostonly='' instmods algif_skcipher vfat nls_ascii nls_cp437 =arch/arm64/crypto
}

install() {
  inst_multiple blkid blockdev cat dd fstrim grep head mkdir mount readlink rm sed stat sync systemd-repart tr udevadm \
    umount wc
  inst_script "$moddir/kos-card.sh" /usr/libexec/kos-card
  inst_simple "$moddir/repart.d/root.conf" /usr/share/kos-card/repart.d/root.conf
  inst_simple "$moddir/kos-card.service" "$systemdsystemunitdir/kos-card.service"
  $SYSTEMCTL -q --root "$initdir" add-wants sysinit.target kos-card.service
}
