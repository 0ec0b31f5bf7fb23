# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wheels of PyPI in a tree, each one proved by its hash, for whatever architecture: nothing of them is run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ...plugins.plugin_utils import oci
from ...plugins.plugin_utils.images import Architecture
from ...plugins.plugin_utils.oci import Entry
from . import tools

# What a suite's own interpreter and C library take.
PYTHON = {"trixie": "3.13"}
_GLIBC = {"trixie": 41}
_MACHINES: dict[Architecture, str] = {"amd64": "x86_64", "arm64": "aarch64"}
# Written by pip with paths of this machine, or made again by Python.
_LEFT_OUT = ["bin", "*.dist-info/RECORD", "*.dist-info/direct_url.json"]


@dataclass(frozen=True)
class Wheels:
    """The files of wheels as entries of a layer, and their package URLs with SHA-256."""

    entries: list[Entry]
    materials: dict[str, str]


def unpack(requirements: Path, suite: str, architecture: Architecture, folder: Path) -> Wheels:
    """The wheels that `requirements` pins by hash; the way to them is that of this machine's pip. Raises ToolFailed."""
    target = folder / "wheels"
    materials = install(requirements, suite, architecture, target, folder / "report.json")
    place = f"usr/local/lib/python{PYTHON[suite]}/dist-packages"
    entries = oci.left(_entries(target), _LEFT_OUT)
    for entry in entries:
        entry.info.name = f"{place}/{entry.info.name}"
    return Wheels(entries, materials)


def install(requirements: Path, suite: str, architecture: Architecture, target: Path, report: Path) -> dict[str, str]:
    """Unpack the wheels that `requirements` pins into the folder `target`, and pip's report into the file `report`.

    Returns their package URLs with SHA-256. Raises ToolFailed.
    """
    if suite not in PYTHON:
        raise tools.ToolFailed(f"wheels are unpacked for {', '.join(PYTHON)} only, not for {suite}")
    python, machine = PYTHON[suite], _MACHINES[architecture]
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(_GLIBC[suite], 4, -1)]
    platforms += [f"manylinux2014_{machine}", f"manylinux2010_{machine}", f"manylinux1_{machine}"]
    argv = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--no-deps", "--require-hashes"]
    argv += [
        "--only-binary=:all:",
        "--ignore-requires-python",
        f"--target={target}",
        f"--report={report}",
        f"--python-version={python}",
    ]
    # The hashes were chosen for that Python; what runs pip here is another.
    argv += ["--implementation=cp", f"--abi=cp{python.replace('.', '')}", "--abi=abi3", "--abi=none"]
    argv += [*(f"--platform={platform}" for platform in platforms), f"--requirement={requirements}"]
    tools.run(argv, {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"})
    installed = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {_url(row["metadata"]): _sha256(row) for row in installed}


def _entries(tree: Path) -> Iterator[Entry]:
    for path in sorted(tree.rglob("*")):
        if path.is_file():
            mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            yield oci.file_on_disk(str(path.relative_to(tree)), path, mode)


def _url(metadata: dict[str, str]) -> str:
    return f"pkg:pypi/{metadata['name'].lower().replace('_', '-')}@{quote(metadata['version'], safe='')}"


def _sha256(row: dict[str, dict[str, dict[str, dict[str, str]]]]) -> str:
    return row["download_info"]["archive_info"]["hashes"]["sha256"]
