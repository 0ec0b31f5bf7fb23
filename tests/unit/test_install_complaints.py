# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What people complain of in other installers, 21 times: a test here says of each that it does not happen to ours."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
NUMBERS = set(range(1, 22))
# Number -> why no test can name it.
EXCUSED: dict[int, str] = {}
_NAMED = re.compile(r"Complaints? (\d+(?:(?:, | and )\d+)*)")


def named():
    """The numbers that the documentation of a test begins with -> those tests."""
    found = {}
    for path in sorted(TESTS.glob("*/test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                match = _NAMED.match(ast.get_docstring(node) or "")
                for number in re.findall(r"\d+", match[1]) if match else ():
                    found.setdefault(int(number), []).append(f"{path.name}: {node.name}")
    return found


def test_every_complaint_has_its_test_or_an_excuse():
    found = named()
    assert set(found) | set(EXCUSED) == NUMBERS
    assert all(EXCUSED.values()) and not set(found) & set(EXCUSED), "an excuse is for what no test names"
