# shellcheck shell=bash disable=SC2154
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# dracut: a passphrase is typed on the keyboard that the machine has. dracut's own i18n leaves that to
# systemd-vconsole-setup, which Debian does not build. The keymap is the one that setupcon made for the node's consoles;
# an initrd of a medium knows no machine, so there kos-install puts it behind the initrd.

check() {
  require_binaries kbd_mode loadkeys || return 1
  return 255
}

depends() {
  echo systemd systemd-ask-password
}

install() {
  local keymap=$dracutsysrootdir/etc/console-setup/cached_UTF-8_del.kmap.gz
  inst_multiple kbd_mode loadkeys
  if [[ -s $keymap && ! $dracutsysrootdir ]]; then
    mkdir -p "$initdir/etc/kos"
    gzip -dc "$keymap" >"$initdir/etc/kos/console.kmap"
  fi
  inst_simple "$moddir/kos-keymap.service" "$systemdsystemunitdir/kos-keymap.service"
  $SYSTEMCTL -q --root "$initdir" add-wants sysinit.target kos-keymap.service
}
