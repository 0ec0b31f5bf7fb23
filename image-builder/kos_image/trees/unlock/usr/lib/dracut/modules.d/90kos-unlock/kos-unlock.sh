#!/bin/sh
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# What a key may do before the disk is open: answer what is asked. The session ends when the machine goes on.
if [ ! -t 0 ]; then
  echo "A passphrase is typed on a terminal: ssh -t" >&2
  exit 1
fi
if systemd-tty-ask-password-agent --list | grep -q .; then
  echo "This machine waits for the passphrase of its disk."
  exec systemd-tty-ask-password-agent --query
fi
echo "Nothing is asked for: the disk is open, or about to be asked for. Try again in a moment."
