# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs of this folder, run on the node."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

_HERE = Path(__file__).parent


def told(host: Any, program: str) -> Any:
    """What a program of this folder prints on the node, as data; one round trip."""
    packed = base64.b64encode((_HERE / program).read_bytes()).decode()
    return json.loads(host.check_output(f"echo {packed} | base64 -d | python3 -I -"))
