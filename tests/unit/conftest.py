# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the unit tests."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import configuration, settings

configuration.set_hypothesis_home_dir(Path(__file__).resolve().parents[2] / ".cache" / "hypothesis")
# What this checkout's owner has built or resolved changes no test.
os.environ["KOS_SITE_LOCK"] = os.devnull
# A busy machine is slow, not wrong. With CI set the examples are the same in every run.
settings.register_profile("kos", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("kos")
