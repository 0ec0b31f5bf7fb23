# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services from PyPI: an environment a service, made from the wheels of the signed generation and of nothing else.

Each set of wheels has a folder of its own, root's: a systemd unit names it, so switching to another set, or back, is
switching the unit. A folder is complete once it holds its mark.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Collection
from typing import Any

from . import files, system
from .files import NodeError, Root

FOLDER = "/var/lib/kos-venvs"
TITLE = "org.opencontainers.image.title"
_MARK = "kos-complete"
_TIMEOUT = 1800
_WHEEL = re.compile(r"([A-Za-z0-9_.]+)-([A-Za-z0-9_.+!]+)(?:-[A-Za-z0-9_.]+){3,4}\.whl")


class NoVenv(NodeError):
    """An environment that could not be made from its wheels."""


def installed(root: Root, row: dict[str, Any]) -> bool:
    """Whether the environment of the row is there, whole."""
    expected: bytes = row["digest"].encode()
    return files.read(root.join(f"{row['venv']}/{_MARK}")) == expected


def install(root: Root, row: dict[str, Any], manifest: dict[str, Any], blobs: str) -> None:
    """Make the environment of `row` from the wheels that `manifest` names and the folder `blobs` holds.

    pip proves each wheel by its hash again, builds nothing, and asks no index. Raises NoVenv, CommandFailed.
    """
    target = root.join(row["venv"])
    shutil.rmtree(target, ignore_errors=True)
    os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kos-wheels-", dir=os.path.dirname(target)) as room:
        lines = [_offered(layer, blobs, room) for layer in manifest["layers"]]
        files.write(os.path.join(room, "requirements"), "".join(lines).encode(), 0o644)
        offered = "/" + os.path.relpath(room, root.path)
        pip = [
            f"{row['venv']}/bin/python",
            "-I",
            "-m",
            "pip",
            "--quiet",
            "--disable-pip-version-check",
            "--no-cache-dir",
        ]
        chosen = ["--no-index", f"--find-links={offered}", "--require-hashes", "--no-deps", "--only-binary=:all:"]
        for argv in (
            ["/usr/bin/python3", "-I", "-m", "venv", row["venv"]],
            [*pip, "install", *chosen, "--no-warn-script-location", f"--requirement={offered}/requirements"],
            # Nothing is ever added to it.
            [*pip, "uninstall", "--yes", "pip"],
        ):
            _run(root, argv, row["service"])
    files.write(os.path.join(target, _MARK), row["digest"].encode(), 0o644)


def _offered(layer: dict[str, Any], blobs: str, room: str) -> str:
    """Put one wheel into the room under its own name; returns the line of requirements that proves it."""
    name, digest = str(layer.get("annotations", {}).get(TITLE, "")), str(layer["digest"]).removeprefix("sha256:")
    match = _WHEEL.fullmatch(name)
    if match is None:
        raise NoVenv(f"'{name}' is no name of a wheel")
    os.link(os.path.join(blobs, digest), os.path.join(room, name))
    return f"{match[1]}=={match[2]} --hash=sha256:{digest}\n"


def _run(root: Root, argv: list[str], service: str) -> None:
    # The service's user reads it, whatever the mask of whoever deploys.
    plain = ["env", "PIP_CONFIG_FILE=/dev/null", "HOME=/nonexistent", *argv]
    argv = system.in_root(root, ["sh", "-c", 'umask 022 && exec "$@"', "sh", *plain])
    done = system.run(argv, check=False, timeout=_TIMEOUT)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise NoVenv(f"{service}: its wheels cannot be installed: {said[-1] if said else 'pip failed'}")


def leftovers(root: Root, rows: Collection[dict[str, Any]]) -> list[str]:
    """The environments that none of `rows` names, and the folders that would be empty without them."""
    wanted = {row["venv"] for row in rows if "venv" in row}
    services = {path.rpartition("/")[0] for path in wanted}
    found = []
    for service in _names(root, FOLDER):
        path = f"{FOLDER}/{service}"
        if path not in services:
            found.append(path)
            continue
        found += [f"{path}/{name}" for name in _names(root, path) if f"{path}/{name}" not in wanted]
    return [FOLDER] if found and not wanted else found


def _names(root: Root, folder: str) -> list[str]:
    path = root.join(folder)
    return sorted(os.listdir(path)) if os.path.isdir(path) else []
