# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""No plan changes unseen: each is compared with the text that was reviewed."""

from __future__ import annotations

import golden
import pytest


@pytest.mark.parametrize("name", golden.names())
def test_the_plan_is_the_one_that_was_reviewed(name):
    assert golden.golden(name) == (golden.FOLDER / f"{name}.txt").read_text(), "review the change, then `make golden`"


def test_no_file_is_left_of_a_profile_that_is_gone():
    assert sorted(path.stem for path in golden.FOLDER.glob("*.txt")) == golden.names()
