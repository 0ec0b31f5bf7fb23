# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Users and groups: which came with kOS, whether they are as declared, and how they go."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from . import files, system
from .files import Root
from .store import Generation

DECLARATION = "/etc/sysusers.d/kos.conf"
# Beyond these ids are people.
_SYSTEM = 1000
# As useradd gives them to people; a rootless container maps its own ids onto them.
_SUBORDINATE = ("subuid", "subgid")
_FIRST_SUBORDINATE, _SUBORDINATE_IDS = 100000, 65536
NO_SUBORDINATE_IDS = "has no subordinate ids"


@dataclass(frozen=True)
class Declared:
    """A user as the generation declares it."""

    name: str
    comment: str
    home: str
    shell: str
    groups: frozenset[str]


def known(root: Root) -> dict[str, list[str]]:
    """The names of all users and groups of this node."""
    return {"users": sorted(_rows(root, "passwd")), "groups": sorted(_rows(root, "group"))}


def made_since(root: Root, before: dict[str, list[str]]) -> dict[str, Any]:
    """The system users (name -> [uid, gid]) and groups that `before` does not name."""
    users = {name: [int(row[2]), int(row[3])] for name, row in _rows(root, "passwd").items()}
    groups = {name: int(row[2]) for name, row in _rows(root, "group").items()}
    return {
        "users": {n: ids for n, ids in users.items() if n not in before["users"] and ids[0] < _SYSTEM},
        "groups": sorted(n for n, gid in groups.items() if n not in before["groups"] and gid < _SYSTEM),
    }


def declared(generation: Generation) -> list[Declared]:
    """The users that the generation declares (sysusers.d)."""
    row = next((row for row in generation.manifest["files"] if row["path"] == DECLARATION), None)
    lines = generation.content(row["source"]).decode().splitlines() if row else []
    users, groups = [], [line.split()[1:3] for line in lines if line.startswith("m ")]
    for line in lines:
        match = re.fullmatch(r'u (\S+) - "([^"]*)" (\S+) (\S+)', line)
        if match:
            name, comment, home, shell = match.groups()
            users.append(Declared(name, comment, home, shell, frozenset(g for u, g in groups if u == name)))
    return users


def drift(root: Root, generation: Generation) -> list[tuple[str, str, str]]:
    """(name, action, why) of every declared user that is missing or altered."""
    users, shadow = _rows(root, "passwd"), _rows(root, "shadow")
    members = {name: set(row[3].split(",")) for name, row in _rows(root, "group").items()}
    contained = {row["user"] for row in generation.manifest.get("images", []) if "user" in row}
    found = []
    for user in declared(generation):
        if user.name not in users:
            found.append((user.name, "create", "missing"))
            continue
        reasons = _reasons(user, users[user.name], {group for group, names in members.items() if user.name in names})
        if not shadow.get(user.name, ["", "!"])[1].startswith(("!", "*")):
            reasons.append("has a password")
        if user.name in contained and not _has_subordinate_ids(root, user.name):
            reasons.append(NO_SUBORDINATE_IDS)
        if reasons:
            found.append((user.name, "update", ", ".join(reasons)))
    return found


def _has_subordinate_ids(root: Root, name: str) -> bool:
    return all(name in _rows(root, file) for file in _SUBORDINATE)


def give_subordinate_ids(root: Root, generation: Generation) -> None:
    """Give every user that runs containers a range of ids of its own, beyond all that are given."""
    for name in sorted({row["user"] for row in generation.manifest.get("images", []) if "user" in row}):
        if _has_subordinate_ids(root, name):
            continue
        rows = [row for file in _SUBORDINATE for row in _ranges(root, file)]
        first = max([_FIRST_SUBORDINATE, *(begin + count for begin, count in rows)])
        given = f"{first}-{first + _SUBORDINATE_IDS - 1}"
        argv = ["usermod", "--add-subuids", given, "--add-subgids", given, "--", name]
        system.run(system.in_root(root, argv))


def subordinate_ids(root: Root, name: str) -> list[tuple[int, int]]:
    """The (first, count) of the subordinate user ids of `name`."""
    return _ranges(root, "subuid", name)


def _ranges(root: Root, file: str, of: str = "") -> list[tuple[int, int]]:
    lines = (files.read(root.join(f"/etc/{file}")) or b"").decode(errors="replace").splitlines()
    return [
        (int(row[1]), int(row[2]))
        for line in lines
        if len(row := line.split(":")) == 3 and row[1].isdecimal() and of in ("", row[0])
    ]


def make(root: Root, generation: Generation, ids: dict[str, list[int]]) -> None:
    """Create the declared users that are missing, with the ids they had (`ids`), and mend those that were altered."""
    rows = {user.name: user for user in declared(generation)}
    changed = drift(root, generation) if root.path == "/" else []
    again = [rows[name] for name, action, _why in changed if action == "create" and ids.get(name)]
    lines = [f"g {user.name} {ids[user.name][1]}" for user in again]
    lines += [
        f'u {user.name} {ids[user.name][0]}:{user.name} "{user.comment}" {user.home} {user.shell}' for user in again
    ]
    if lines:
        # Where an id has been given to somebody else meanwhile, the user gets a new one, and systemd its volume.
        system.run(["systemd-sysusers", "-"], stdin=("\n".join(lines) + "\n").encode(), check=False)
    system.make_users(root)
    for name, action, why in changed:
        if action == "update" and why != NO_SUBORDINATE_IDS:
            user = rows[name]
            argv = ["usermod", "--home", user.home, "--shell", user.shell, "--groups", ",".join(sorted(user.groups))]
            system.run([*argv, *(["--password", "!*"] if "password" in why else []), "--", name])
    give_subordinate_ids(root, generation)


def named_elsewhere(root: Root, names: Collection[str], going: Collection[str]) -> set[str]:
    """Those accounts of `names` that an installed package not `going` names in its scripts or declarations."""
    info, declarations = root.join("/var/lib/dpkg/info"), root.join("/usr/lib/sysusers.d")
    scripts = [name for name in _listed(info) if name.endswith((".postinst", ".preinst"))] if names else []
    paths = [os.path.join(info, name) for name in scripts if name.rpartition(".")[0].split(":")[0] not in going]
    paths += [os.path.join(declarations, name) for name in _listed(declarations) if name[: -len(".conf")] not in going]
    words = {word for path in paths for word in re.findall(rb"[\w.-]+", files.read(path) or b"")}
    return {name for name in names if name.encode() in words}


def remove(root: Root, users: Collection[str], groups: Collection[str]) -> list[str]:
    """Delete these accounts; returns a sentence for each that could not go."""
    left = []
    for name in sorted(set(users) & set(_rows(root, "passwd"))):
        done = system.run(system.in_root(root, ["userdel", "--", name]), check=False)
        if done.returncode != 0:
            left.append(f"user {name}: {done.stderr.decode(errors='replace').strip()}")
    for name in sorted(set(groups) & set(_rows(root, "group"))):
        done = system.run(system.in_root(root, ["groupdel", "--", name]), check=False)
        if done.returncode != 0:
            left.append(f"group {name}: {done.stderr.decode(errors='replace').strip()}")
    return left


def _reasons(user: Declared, row: list[str], groups: set[str]) -> list[str]:
    reasons = []
    if row[6] != user.shell:
        reasons.append(f"shell is {row[6]}, not {user.shell}")
    if row[5] != user.home:
        reasons.append(f"home is {row[5]}, not {user.home}")
    if groups - user.groups:
        reasons.append(f"is in {', '.join(sorted(groups - user.groups))}")
    if user.groups - groups:
        reasons.append(f"is not in {', '.join(sorted(user.groups - groups))}")
    return reasons


def _rows(root: Root, name: str) -> dict[str, list[str]]:
    text = (files.read(root.join(f"/etc/{name}")) or b"").decode(errors="replace")
    rows = (line.split(":") for line in text.splitlines() if ":" in line)
    return {row[0]: row for row in rows}


def _listed(folder: str) -> list[str]:
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []
