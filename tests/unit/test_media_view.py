# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person reads of a build, in 80 columns."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kos_image import view
from kos_image.definition import define

STAGES = [
    {"name": "toolbox", "cached": True, "because": "", "size": 900_000_000},
    {
        "name": "root",
        "cached": False,
        "because": "its packages have changed: " + "linux-image " * 20,
        "size": 40_000_000,
    },
    {"name": "image", "cached": False, "because": "root is made anew", "size": 0},
]


def shown(output):
    definition = define(output, "amd64").model_dump() if output else None
    packages = {"count": 412, "download": 3 * 10**8, "installed": 10**9, "missing": 10**7} if output else None
    data = {"definition": definition, "stages": STAGES, "packages": packages, "to": "/home/ada/kos.raw"}
    stream = io.StringIO()
    Console(file=stream, width=80).print(view.dry_run(data))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_a_dry_run_begins_with_the_stages_and_their_sizes():
    lines = shown("usb")
    assert lines[0] == "Stages"
    assert lines[2] == "toolbox  900.0 MB  cached"
    assert lines[3].startswith("root     40.0 MB   to build, because its packages have changed: linux-image")
    assert max(map(len, lines)) <= 80


def test_the_packages_are_a_number_after_all_else():
    lines = shown("usb")
    wanted = len(define("usb", "amd64").packages)
    assert lines[-1].split(maxsplit=1) == ["packages", f"{wanted} by name, and what they need; --json lists them"]
    assert lines.index("Would write /home/ada/kos.raw") < next(n for n, line in enumerate(lines) if "boots by" in line)
    assert not any("openssh-server" in line for line in lines)


@pytest.mark.parametrize("output", [None, "usb"])
def test_what_is_no_medium_has_stages_alone(output):
    assert any("boots by" in line for line in shown(output)) is bool(output)
