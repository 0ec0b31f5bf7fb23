# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may log in to the node: one person, who becomes root by sudo; root itself has no password."""

from __future__ import annotations

import os
from pathlib import Path

from ansible_collections.kind.kos.plugins.module_utils.node import files
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root

from ..answers import User
from ..errors import ApplyFailed
from . import target
from .target import File

_UID = 1000
_SHELL = "/bin/bash"
_GROUP = "sudo"
_LOCKED = "!*"


def make(root: Root, user: User) -> None:
    """Make the user, as often as it is called. Raises ApplyFailed, OSError."""
    place = Path(root.path)
    known = _rows(root, "passwd")
    if user.name in known and known[user.name][2] != str(_UID):
        raise ApplyFailed(f"{user.name} is an account of the system itself: choose another name for the user")
    if user.name not in known:
        argv = ["useradd", "--create-home", "--user-group", f"--uid={_UID}", f"--shell={_SHELL}"]
        target.inside(place, [*argv, f"--comment={user.full_name}", "--", user.name])
    target.inside(place, ["usermod", "--append", f"--groups={_GROUP}", "--", user.name])
    # By standard input: what stands in an argument list everybody reads.
    lines = f"{user.name}:{user.password_hash or _LOCKED}\nroot:{_LOCKED}\n"
    target.inside(place, ["chpasswd", "--encrypted"], lines)
    home = root.join(f"/home/{user.name}/.ssh")
    files.make_directory(home)
    for path in (Path(home), Path(home).parent):
        path.chmod(0o700)
    os.chown(home, _UID, _UID, follow_symlinks=False)
    target.lay(root, _files(user))


def stands(root: Root, user: User) -> bool:
    """Whether the user is there as asked, and root's password opens nothing."""
    people, hashes = _rows(root, "passwd"), _rows(root, "shadow")
    if user.name not in people or people[user.name][2] != str(_UID) or user.name not in _members(root, _GROUP):
        return False
    as_asked = hashes[user.name][1] == (user.password_hash or _LOCKED) and hashes["root"][1] == _LOCKED
    return as_asked and target.lies(root, _files(user))


def _files(user: User) -> list[File]:
    found = [File(f"/etc/sudoers.d/{user.name}", _sudo(user), 0o440)]
    if user.ssh_keys:
        keys = "".join(f"{key}\n" for key in user.ssh_keys)
        found.append(File(f"/home/{user.name}/.ssh/authorized_keys", keys, 0o600, (_UID, _UID)))
    return found


def _sudo(user: User) -> str:
    """Who has a password is asked for it; who has none could not answer."""
    return f"{user.name} ALL=(ALL:ALL) {'ALL' if user.password_hash else 'NOPASSWD: ALL'}\n"


def _rows(root: Root, name: str) -> dict[str, list[str]]:
    text = (files.read(root.join(f"/etc/{name}")) or b"").decode(errors="replace")
    rows = (line.split(":") for line in text.splitlines() if ":" in line)
    return {row[0]: row for row in rows}


def _members(root: Root, group: str) -> list[str]:
    return _rows(root, "group").get(group, ["", "", "", ""])[3].split(",")
