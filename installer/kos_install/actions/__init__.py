# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How each action is carried out: `perform(context, action)` does it, `stands(context, action)` proves it was done.

An action may be interrupted at any instruction and is then performed anew: each one begins by clearing away its own
unfinished work.
"""
