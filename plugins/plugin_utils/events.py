# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One JSON object a line, for whoever watches a run: `kai`, a log, CI."""

from __future__ import annotations

import json
import os
import time
from typing import Any

VARIABLE = "KOS_EVENTS"


def emit(event: str, host: str, **fields: Any) -> None:
    """Append an event to the file that the environment variable KOS_EVENTS names, if any."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    row = {"event": event, "host": host, "time": round(time.monotonic(), 3), **fields}
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        # One write: lines of several hosts never mix.
        os.write(descriptor, (json.dumps(row) + "\n").encode())
    finally:
        os.close(descriptor)
