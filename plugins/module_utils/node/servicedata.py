# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service's own backup and restore commands, as its manifest has them, and the copies they make."""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import subprocess
from dataclasses import asdict, dataclass
from typing import Any

from . import merkle, store, system
from .files import NodeError, Root

# systemd hides every unit's credentials from a unit with a sandbox; kos-backup.service sees them at the first place.
CREDENTIALS = ("/run/kos-credentials", "/run/credentials")
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True)
class Fingerprint:
    """What tells one copy from another: its files, their size together, and the Merkle root of their content."""

    files: int
    bytes: int
    digest: str

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)


def with_data(generation: store.Generation | None) -> list[dict[str, Any]]:
    """The services of `generation` whose manifest says how to back them up."""
    return [row for row in generation.manifest["services"] if row["backup"]] if generation else []


def user_of(service: dict[str, Any]) -> str:
    """Whom the service's backup commands run as."""
    return str(service["backup"].get("user") or service["user"])


def copy_data(root: Root, verb: str, name: str, directory: str) -> None:
    """Run the command for `verb` (``backup`` or ``restore``) of the service `name`, its units stopped where it says so.

    Raises Refused for a service that has no such command, CommandFailed when it fails.
    """
    services = with_data(store.current(root))
    service = next((row for row in services if row["name"] == name), None)
    if service is None:
        known = ", ".join(row["name"] for row in services)
        raise store.Refused(f"'{name}' has nothing to {verb}; known: {known}")
    stops = verb in service["backup"]["stopped"]
    if stops:
        system.systemctl("stop", service["units"])
    try:
        run_command(service, verb, directory)
    finally:
        if stops:
            system.systemctl("start", service["units"])


def run_command(service: dict[str, Any], verb: str, directory: str) -> None:
    """Run the service's own command for `verb` on `directory` as its user. Raises CommandFailed with what it said."""
    run_as(user_of(service), service["backup"]["command" if verb == "backup" else "restore"], directory)


def run_as(user: str, argv: list[str], directory: str) -> str:
    """What `argv` printed, run as `user` on `directory`. Raises CommandFailed with the last it said."""
    done = _as_user(user, argv, os.path.abspath(directory))
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise system.CommandFailed(said[-1] if said else f"{argv[-1]} ended with {done.returncode}")
    return done.stdout.decode(errors="replace")


def holds(service: dict[str, Any]) -> bool:
    """Whether the service has data that a restore would replace. Raises CommandFailed when it cannot be asked."""
    answer = run_as(user_of(service), service["backup"]["holds"], "/nonexistent").strip()
    if answer not in ("yes", "no"):
        raise system.CommandFailed(f"{service['name']} cannot say whether it holds data: {answer}")
    return answer == "yes"


def _as_user(user: str, argv: list[str], directory: str) -> subprocess.CompletedProcess[bytes]:
    account = _account(user)
    identity: dict[str, Any] = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    # Outside that unit the first is the empty place where it is mounted.
    credentials = next((path for path in CREDENTIALS if os.path.isdir(path) and os.listdir(path)), CREDENTIALS[-1])
    environment = {**_ENVIRONMENT, "KOS_BACKUP": directory, "KOS_CREDENTIALS": credentials}
    try:
        return subprocess.run(
            argv, env=environment, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, check=False, **identity
        )
    except OSError as error:
        raise system.CommandFailed(f"{argv[0]}: {error.strerror}") from error


def _account(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError as error:
        raise NodeError(f"the user {name} does not exist: kai deploy makes it") from error


def make_directory(path: str, user: str) -> None:
    """An empty directory at `path` that only `user` may use."""
    clear(path)
    os.mkdir(path, 0o700)
    account = _account(user)
    os.chown(path, account.pw_uid, account.pw_gid)


def clear(path: str) -> None:
    """Delete the tree at `path`, whatever it is."""
    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
    else:
        shutil.rmtree(path, ignore_errors=True)


def hand_over(path: str, user: str) -> None:
    """Make the tree at `path` belong to `user` alone; no link in it is followed.

    The top goes first: from then on its former owner can change nothing below it by name.
    """
    account = _account(user)
    os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    for _folder, folders, names, descriptor in os.fwalk(path, follow_symlinks=False):
        for name in [*folders, *names]:
            os.chown(name, account.pw_uid, account.pw_gid, dir_fd=descriptor, follow_symlinks=False)


def fingerprint(path: str) -> Fingerprint:
    """The fingerprint of the tree at `path`: names, links and content, neither owners nor times."""
    leaves, size = [], 0
    for folder, folders, names in os.walk(path):
        for name in [*folders, *names]:
            full = os.path.join(folder, name)
            relative = os.path.relpath(full, path)
            if os.path.islink(full):
                leaves.append((relative, merkle.digest(b"link " + os.readlink(full).encode())))
            elif os.path.isfile(full):
                digest, length = _file(full)
                leaves.append((relative, digest))
                size += length
    return Fingerprint(len(leaves), size, merkle.root(leaves))


def _file(path: str) -> tuple[str, int]:
    hashed, length = hashlib.sha256(), 0
    # Never a link that has taken the file's place since it was looked at.
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as stream:
        while block := stream.read(1 << 20):
            hashed.update(block)
            length += len(block)
    return hashed.hexdigest(), length
