# shellcheck shell=bash disable=SC2154
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# dracut: a passphrase is typed on the keyboard that the machine has. dracut's own i18n leaves that to
# systemd-vconsole-setup, which Debian does not build. Every keymap is here: an initrd of a medium knows no machine.

check() {
  [[ -d "$dracutsysrootdir/usr/share/keymaps/i386" ]] || return 1
  require_binaries kbd_mode loadkeys || return 1
  return 255
}

depends() {
  echo systemd systemd-ask-password
}

install() {
  local map
  inst_multiple kbd_mode loadkeys sh
  # Unpacked, as the initrd is compressed as a whole.
  while IFS= read -r -d '' map; do
    mkdir -p "$initdir${map%/*}"
    case $map in
      *.gz) gzip -dc "$dracutsysrootdir$map" >"$initdir${map%.gz}" ;;
      *) cp "$dracutsysrootdir$map" "$initdir$map" ;;
    esac
  done < <(cd "${dracutsysrootdir:-/}" && find usr/share/keymaps/i386 usr/share/keymaps/include -type f -printf '/%p\0')
  inst_script "$moddir/kos-keymap.sh" /usr/libexec/kos-keymap
  inst_simple "$moddir/kos-keymap.service" "$systemdsystemunitdir/kos-keymap.service"
  $SYSTEMCTL -q --root "$initdir" add-wants sysinit.target kos-keymap.service
}
