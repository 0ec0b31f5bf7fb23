# shellcheck shell=bash disable=SC2154
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# dracut: what our scripts share that ask for a passphrase and encrypt. Only with them.

check() {
  require_binaries cryptsetup systemd-ask-password systemd-cryptenroll || return 1
  return 255
}

depends() {
  echo dm systemd systemd-ask-password systemd-udevd
}

installkernel() {
  # A medium does not know its machine.
  hostonly='' instmods drbg dm_crypt ext4 =crypto
}

install() {
  inst_multiple awk cat cryptsetup sleep systemctl systemd-ask-password systemd-cryptenroll
  inst_simple "$moddir/kos-asking.sh" /usr/libexec/kos-asking
}
