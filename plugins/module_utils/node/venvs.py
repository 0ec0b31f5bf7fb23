# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services from PyPI: an environment a service, made from the wheels of the signed generation and of nothing else.

Each set of wheels has a folder of its own, root's: a systemd unit names it, so switching to another set, or back, is
switching the unit. A folder is complete once it holds its mark.

What a wheel holds never runs with privileges: a user of no other process unpacks it, with a pip that lies outside, and
the environment's Python is not started again before it starts as the service.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Collection
from typing import Any

from . import files, space, system
from .files import NodeError, Root

FOLDER = "/var/lib/kos-venvs"
TITLE = "org.opencontainers.image.title"
_MARK = "kos-complete"
# Who unpacks wheels. Neither Debian nor systemd gives this id to anybody, so that no running process can meddle,
# and it exists in a container that has but 65536 ids.
INSTALLER = 65533
_TIMEOUT = 1800
# How many bytes each of a wheel's becomes (Chroma's: 4.6), and how many of those make a file (38 000).
_UNPACKED = 5
_BYTES_A_FILE = 16384
_WHEEL = re.compile(r"([A-Za-z0-9_.]+)-([A-Za-z0-9_.+!]+)(?:-[A-Za-z0-9_.]+){3,4}\.whl")


class NoVenv(NodeError):
    """An environment that could not be made from its wheels."""


def installed(root: Root, row: dict[str, Any]) -> bool:
    """Whether the environment of the row is there, whole."""
    expected: bytes = row["digest"].encode()
    target = root.join(row["venv"])
    # Before it was taken over, a wheel could have brought the mark.
    mine = os.path.isdir(target) and os.lstat(target).st_uid == os.geteuid()
    return mine and files.read(f"{target}/{_MARK}") == expected


def install(root: Root, row: dict[str, Any], manifest: dict[str, Any], blobs: str) -> None:
    """Make the environment of `row` from the wheels that `manifest` names and the folder `blobs` holds.

    pip proves each wheel by its hash again, builds nothing, and asks no index. Raises NoVenv, CommandFailed.
    """
    target = root.join(row["venv"])
    shutil.rmtree(target, ignore_errors=True)
    for folder in (root.join(FOLDER), os.path.dirname(target)):
        os.makedirs(folder, exist_ok=True)
        os.chmod(folder, 0o755)  # noqa: S103 - the service's user reads it, whatever the mask of whoever deploys
    with tempfile.TemporaryDirectory(prefix="kos-wheels-", dir=os.path.dirname(target)) as room:
        lines = [_offered(layer, blobs, room) for layer in manifest["layers"]]
        files.write(os.path.join(room, "requirements"), "".join(lines).encode(), 0o644)
        os.mkdir(target, 0o755)
        for folder in (room, target):
            os.chown(folder, INSTALLER, -1)
        offered = "/" + os.path.relpath(room, root.path)
        venv = ["/usr/bin/python3", "-I", "-m", "venv"]
        pip = [f"{offered}/pip/bin/python", "-I", "-m", "pip", f"--python={row['venv']}/bin/python", "--quiet"]
        pip += ["--disable-pip-version-check", "--no-cache-dir", "install", "--no-index", f"--find-links={offered}"]
        pip += ["--require-hashes", "--no-deps", "--only-binary=:all:", "--no-warn-script-location"]
        for argv in (
            [*venv, f"{offered}/pip"],
            # Nothing is ever added to it.
            [*venv, "--without-pip", row["venv"]],
            [*pip, f"--requirement={offered}/requirements"],
        ):
            _run(root, argv, row["service"], offered)
        files.remove(os.path.join(target, _MARK))
        _take_over(target)
    files.write(os.path.join(target, _MARK), row["digest"].encode(), 0o644)


def _take_over(target: str) -> None:
    """Make everything below `target` the own user's, writable by nobody else and without set-user-id bits."""
    me, group = os.geteuid(), os.getegid()
    os.chown(target, me, group, follow_symlinks=False)
    # From above: below a folder that is taken over, nobody can put a link where a file was.
    for _path, folders, names, here in os.fwalk(target):
        for name in [*folders, *names]:
            os.chown(name, me, group, dir_fd=here, follow_symlinks=False)
            mode = os.lstat(name, dir_fd=here).st_mode
            if not stat.S_ISLNK(mode):
                os.chmod(name, stat.S_IMODE(mode) & 0o755, dir_fd=here)


def room_for(row: dict[str, Any], manifest: dict[str, Any]) -> space.Need:
    """What the environment of `row` will take of the disk; `manifest` names its wheels."""
    size = _UNPACKED * sum(int(layer.get("size", 0)) for layer in manifest.get("layers", []))
    return space.Need(FOLDER, size, size // _BYTES_A_FILE, f"of {row['service']}'s wheels, unpacked")


def _offered(layer: dict[str, Any], blobs: str, room: str) -> str:
    """Put one wheel into the room under its own name; returns the line of requirements that proves it."""
    name, digest = str(layer.get("annotations", {}).get(TITLE, "")), str(layer["digest"]).removeprefix("sha256:")
    match = _WHEEL.fullmatch(name)
    if match is None:
        raise NoVenv(f"'{name}' is no name of a wheel")
    os.link(os.path.join(blobs, digest), os.path.join(room, name))
    return f"{match[1]}=={match[2]} --hash=sha256:{digest}\n"


def _run(root: Root, argv: list[str], service: str, room: str) -> None:
    become = ["setpriv", f"--reuid={INSTALLER}", f"--regid={INSTALLER}", "--clear-groups", "--no-new-privs"]
    become += ["--inh-caps=-all", "--bounding-set=-all", "--"]
    plain = ["env", "--chdir=/", "PIP_CONFIG_FILE=/dev/null", "HOME=/nonexistent", f"TMPDIR={room}", *argv]
    # The service's user reads it, whatever the mask of whoever deploys.
    argv = system.in_root(root, [*become, "sh", "-c", 'umask 022 && exec "$@"', "sh", *plain])
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
