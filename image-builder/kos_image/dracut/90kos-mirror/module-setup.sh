# shellcheck shell=bash disable=SC2154
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# dracut: a root that lies on a mirror of two disks is mounted though one of them is missing.

check() {
  require_binaries btrfs || return 1
  return 255
}

depends() {
  echo btrfs systemd udev-rules
}

install() {
  inst_multiple btrfs cat mkdir sh sleep systemctl udevadm
  inst_script "$moddir/kos-mirror.sh" /usr/libexec/kos-mirror
  inst_simple "$moddir/kos-mirror.service" "$systemdsystemunitdir/kos-mirror.service"
  $SYSTEMCTL -q --root "$initdir" add-wants sysinit.target kos-mirror.service
}
