# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is one node what another is? Both are described by `observation.py`, which knows nothing of kOS's code."""

from __future__ import annotations

import json
from pathlib import Path

from crashtable import FULL

_OBSERVE = Path(__file__).with_name("observation.py").read_text()


def observe(lab, node):
    """What `node` is: files, units, users, packages, ledger, listeners, packet filter."""
    return json.loads(lab.kai("lab", "ssh", node, "python3 -I -", input=_OBSERVE).stdout)


def differences(expected, actual, where=""):
    """Every point in which `actual` is not as `expected`, a line each."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return [
            row
            for key in sorted({*expected, *actual})
            for row in differences(expected.get(key, "nothing"), actual.get(key, "nothing"), f"{where} {key}".strip())
        ]
    if isinstance(expected, list) and isinstance(actual, list):
        missing = [f"{where}: missing {row}" for row in expected if row not in actual]
        return missing + [f"{where}: more than expected, {row}" for row in actual if row not in expected]
    return [] if expected == actual else [f"{where}: {actual}, not {expected}"]


def assert_same(lab, node, expected, *deploy):
    """The node is as `expected`, its own doctor finds nothing, and in a full run neither does a check of the deploy.

    The doctor makes the check's comparison on the node itself, which takes a tenth of the time.
    """
    found = differences(expected, observe(lab, node))
    assert not found, f"{node} is not as an undisturbed node:\n" + "\n".join(found)
    said = lab.ssh(node, "python3 -I -B /var/lib/kos/current/node doctor")
    assert json.loads(said) == [], said
    if not FULL:
        return
    told = json.loads(lab.deploy(node, "--check", "--json", *deploy).stdout)
    changes = [change for event in told["events"] if event["event"] == "stage.end" for change in event["changes"]]
    assert changes == [], changes
