# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""QEMU's monitor (QMP): one question, one answer, over a socket in the node's run files."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from .errors import LabError

_TIMEOUT = 30.0


def execute(path: Path, command: str, **arguments: Any) -> Any:
    """What QEMU answers to a command. Raises LabError where it refuses or does not answer."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT)
            connection.connect(str(path))
            with connection.makefile("rw", encoding="utf-8") as stream:
                stream.readline()  # the greeting
                _ask(stream, "qmp_capabilities", {})
                return _ask(stream, command, arguments)
    except (OSError, ValueError) as error:
        raise LabError(f"QEMU does not answer {command}: {error}") from error


def _ask(stream: Any, command: str, arguments: dict[str, Any]) -> Any:
    stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    stream.flush()
    while line := stream.readline():
        answer = json.loads(line)
        if "error" in answer:
            raise LabError(f"QEMU refuses {command}: {answer['error'].get('desc', answer['error'])}")
        if "return" in answer:
            return answer["return"]
    raise ValueError("it closed the connection")
