#!/bin/sh
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Load the keymap that the kernel argument vconsole.keymap= names; without one the kernel has that of the United States.
system=${KOS_KEYMAP_SYSTEM:-} # where /proc and /usr lie: tests have their own
name=
for word in $(cat "$system/proc/cmdline"); do
  case $word in vconsole.keymap=*) name=${word#*=} ;; esac
done
case $name in
  "" | *[!A-Za-z0-9_-]*) exit 0 ;;
esac
for map in "$system"/usr/share/keymaps/i386/*/"$name.kmap"; do
  [ -e "$map" ] || continue
  kbd_mode -u -C /dev/tty1
  exec loadkeys --quiet "$map"
done
echo "there is no keymap $name: this is the keyboard of the United States" >&2
exit 1
