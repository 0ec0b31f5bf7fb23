# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the screens make of the terminal that they are on."""

from __future__ import annotations

import os
import pty

from kos_install.screens.terminal import gone


def test_a_terminal_whose_other_end_was_closed_is_gone():
    ours, theirs = pty.openpty()
    try:
        assert not gone(theirs)
        os.close(ours)
        assert gone(theirs)
    finally:
        os.close(theirs)
