# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Back up, verify or restore a node, and tell whoever watches the run how it went."""

from __future__ import annotations

from .node import ActionModule

__all__ = ["ActionModule"]
