# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a node about its encrypted volume, and tell whoever watches the run what it answered."""

from __future__ import annotations

from .node import ActionModule

__all__ = ["ActionModule"]
