# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The repositories of snapshots: restic, run by kos-restic.service, the one unit that has password and network."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from . import files, servicedata, store, system
from .files import Busy, NodeError, Root

SETTINGS = "/etc/kos/restic/backup.json"
USER = "kos-backup"
UNIT = "kos-restic.service"
TRAVEL = "/run/kos-backup"
TRAVELLING = ("arguments", "output", "errors")
KEY = "/var/lib/kos-backup/id_ed25519"
SECRETS = ("restic.password", "restic.s3_access_key", "restic.s3_secret_key", "restic.sftp_key")

# Tags of snapshots: one that lacks a service's data, and those made of data that was about to be replaced.
PARTIAL, SAFETY = "partial", "before-"

# What `retention: policy_based` means.
POLICY = {"last": 3, "daily": 7, "weekly": 5, "monthly": 12, "yearly": 3}
_MISSING, _LOCKED, _WRONG_PASSWORD = 10, 11, 12
_WITHIN = {"s": ("h", 1 / 3600), "m": ("h", 1 / 60), "h": ("h", 1), "d": ("d", 1), "w": ("d", 7), "y": ("y", 1)}


class RepositoryError(NodeError):
    """The repository cannot be used; the text says why and what to do. `missing` when there is none."""

    def __init__(self, message: str, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


@dataclass(frozen=True)
class Settings:
    """What the profile says of backups."""

    repositories: list[str]
    keep: list[str]
    schedule: str


def settings(root: Root) -> Settings:
    """The backup settings of this node. Raises Refused where its profile asks for no backup."""
    data = files.read_json(root.join(SETTINGS), None)
    if data is None:
        raise store.Refused(
            "this node makes no backups: set backup.repository in a site layer (a path, sftp: or s3:), then kai deploy"
        )
    return Settings(data["repositories"], keep_arguments(data["retention"], data["at_least"]), data["schedule"])


def keep_arguments(retention: str | dict[str, int], at_least: str | None) -> list[str]:
    """`retention` as arguments of ``restic forget``; nothing younger than `at_least` goes."""
    rules = POLICY if retention == "policy_based" else retention
    if isinstance(rules, str):
        arguments = [f"--keep-within={_duration(rules)}", "--keep-last=1"]
    else:
        arguments = [f"--keep-{name}={number}" for name, number in rules.items()]
    return [*arguments, *([f"--keep-within={_duration(at_least)}"] if at_least else [])]


def _duration(text: str) -> str:
    """``90d`` in restic's units; what is shorter than an hour counts as one."""
    unit, factor = _WITHIN[text[-1]]
    return f"{max(1, round(int(text[:-1]) * factor))}{unit}"


@contextlib.contextmanager
def held(root: Root) -> Iterator[None]:
    """Hold the backup's own lock: one backup, restore or check at a time. Raises Busy."""
    os.makedirs(root.state(), exist_ok=True)
    with open(root.state("backup.lock"), "w", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy("another backup, restore or check runs on this node: wait for it to end") from error
        # One whose caller was killed may still run.
        system.systemctl("stop", [UNIT])
        try:
            yield
        finally:
            for name in TRAVELLING:
                files.remove(os.path.join(TRAVEL, name))


def group() -> int:
    """The id of kos-backup's own group."""
    return pwd.getpwnam(USER).pw_gid


def travel_directory() -> str:
    """The folder in memory that root and kos-backup share; made when missing."""
    os.makedirs(TRAVEL, mode=0o750, exist_ok=True)
    os.chown(TRAVEL, 0, group())
    os.chmod(TRAVEL, 0o750)  # noqa: S103 - for root and kos-backup's own group
    return TRAVEL


def restic(place: str, *arguments: str) -> bytes:
    """What restic printed on the repository at `place`. Raises RepositoryError."""
    lines = ["--repo", place, *arguments]
    files.write(os.path.join(travel_directory(), "arguments"), ("\n".join(lines) + "\n").encode(), 0o644)
    system.run(["systemctl", "reset-failed", UNIT], check=False)
    done = system.run(["systemctl", "start", UNIT], check=False)
    output = files.read(os.path.join(TRAVEL, "output")) or b""
    if done.returncode == 0:
        return output
    said = (files.read(os.path.join(TRAVEL, "errors")) or b"").decode(errors="replace") + output.decode(
        errors="replace"
    )
    state = system.run(["systemctl", "show", "-P", "ExecMainStatus", UNIT]).stdout.decode().strip()
    raise _explained(place, int(state or 1), said)


def _explained(place: str, code: int, said: str) -> RepositoryError:
    """Restic's failure as a sentence with its remedy."""
    last = _last_words(said)
    if code == _MISSING or "repository does not exist" in said:
        return RepositoryError(f"there is no repository at {place}", missing=True)
    if code == _WRONG_PASSWORD or "wrong password" in said:
        return RepositoryError(
            f"the password of this node does not open {place}: give the one that was exported (kai restore --key-file),"
            " or as restic.password in kos_secrets"
        )
    if code == _LOCKED or "already locked" in said:
        return RepositoryError(
            f"{place} is in use by another machine: wait for it to end, or see restic unlock ({last})"
        )
    if "no space left" in said:
        return RepositoryError(f"{place} is full: make room there, or lower backup.retention")
    if place.startswith("sftp:") and re.search(r"ssh|sftp|[Cc]onnection|unable to start|EOF", said):
        return RepositoryError(f"{place} cannot be reached: {last} (is kai backup key public authorised there?)")
    return RepositoryError(f"{place}: {last}")


def _last_words(said: str) -> str:
    """The line that says why; restic prints its JSON or its advice around it."""
    lines = []
    for line in said.splitlines():
        with contextlib.suppress(ValueError):
            document = json.loads(line)
            line = document.get("message", "") if isinstance(document, dict) else line
        if line.strip() and "Is there a repository" not in line:
            lines.append(line.strip())
    wanted = [line for line in lines if re.search(r"Fatal|denied|refused|timed out|route|resolve|failed|error", line)]
    return (wanted or lines or ["restic gave no reason: journalctl -u kos-restic"])[-1].removeprefix("Fatal: ")[:300]


def ensure(root: Root, place: str, like: str | None = None) -> None:
    """Make the repository at `place` when this node has never had one there.

    `like` is one whose chunks it shares, so that copies stay small. Raises RepositoryError; also when a
    repository that was there has gone, since an empty new one in its place would hide that.
    """
    known = files.read_json(root.state("repositories.json"), {})
    try:
        identity = json.loads(restic(place, "--no-lock", "cat", "config"))["id"]
    except RepositoryError as error:
        if not error.missing:
            raise
        if place in known:
            raise RepositoryError(
                f"the repository that was at {place} is gone (a disk that is not mounted?);"
                f" if it was removed on purpose, remove {root.state('repositories.json')} on the node",
                missing=True,
            ) from error
        if place.startswith("/"):
            _make_folder(place)
        restic(place, "init", *(["--from-repo", like, "--copy-chunker-params"] if like else []))
        identity = json.loads(restic(place, "--no-lock", "cat", "config"))["id"]
    if known.get(place) not in (None, identity):
        raise RepositoryError(f"{place} holds another repository than before: is another disk mounted there?")
    if place not in known:
        files.write_json(root.state("repositories.json"), {**known, place: identity})


def _make_folder(place: str) -> None:
    """The folder of a local repository, kos-backup's own.

    Raises RepositoryError where its parent is missing, or something that is no folder has its name.
    """
    parent = os.path.dirname(place.rstrip("/"))
    if not os.path.isdir(parent):
        raise RepositoryError(f"{parent} does not exist: mount or make it, then run kai backup again")
    if os.path.lexists(place) and (os.path.islink(place) or not os.path.isdir(place)):
        raise RepositoryError(f"{place} is no folder, and is not replaced: name another in backup.repository")
    if not os.path.isdir(place):
        servicedata.make_directory(place, USER)


def snapshots(place: str, host: str | None = None) -> list[dict[str, Any]]:
    """Snapshots of kOS nodes, oldest first: id, time, host, tags, bytes. Raises RepositoryError."""
    options = ["--tag", "kos", *(["--host", host] if host else [])]
    rows = json.loads(restic(place, "--no-lock", "--json", "snapshots", *options) or b"[]") or []
    return [
        {
            "id": row["short_id"],
            "time": row["time"][:19] + "Z",
            "host": row["hostname"],
            "tags": [tag for tag in row.get("tags", []) if tag != "kos"],
            "bytes": row.get("summary", {}).get("total_bytes_processed", 0),
            "added": row.get("summary", {}).get("data_added_packed", 0),
        }
        for row in sorted(rows, key=lambda row: str(row["time"]))
    ]


def whole(row: dict[str, Any]) -> bool:
    """Whether a snapshot is one of the node in order: neither partial nor a safety copy."""
    return not any(tag == PARTIAL or tag.startswith(SAFETY) for tag in row["tags"])


def find(place: str, wanted: str | None, host: str | None = None) -> dict[str, Any]:
    """The snapshot that is `wanted` by the beginning of its id; the newest complete one of `host` without.

    Raises Refused when there is none or `wanted` fits several, or when several nodes share the repository and none
    of them is this one. A safety copy is never the newest: it holds what was to be replaced.
    """
    rows = snapshots(place)
    if wanted and wanted != "latest":
        found = [row for row in rows if row["id"].startswith(wanted[:8])]
        if not found:
            raise store.Refused(f"{place} has no snapshot {wanted} (kai backup --list shows them)")
        if len(found) > 1:
            ids = ", ".join(row["id"] for row in found)
            raise store.Refused(f"{place} has several snapshots that begin with {wanted}: {ids}; give more of the id")
        return found[0]
    if not rows:
        raise store.Refused(f"{place} holds no snapshot of a kOS node yet")
    hosts = {row["host"] for row in rows}
    own = host or os.uname().nodename
    if own not in hosts and len(hosts) > 1:
        raise store.Refused(f"{place} holds snapshots of {', '.join(sorted(hosts))}: name one (kai backup --list)")
    mine = [row for row in rows if row["host"] == own or own not in hosts]
    fitting = [row for row in mine if whole(row)] or [row for row in mine if row["tags"] == [PARTIAL]]
    if not fitting:
        raise store.Refused(f"{place} holds only safety copies of {own}: name one (kai backup --list)")
    return fitting[-1]


def public_key() -> str:
    """The node's own key for SFTP, in OpenSSH form; made on first use."""
    known = files.read(f"{KEY}.pub")
    if known is None:
        account = pwd.getpwnam(USER)
        folder = os.path.dirname(KEY)
        if not os.path.isdir(folder):
            servicedata.make_directory(folder, USER)
        files.remove(KEY)
        subprocess.run(
            ["/usr/bin/ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", USER, "-f", KEY],
            user=account.pw_uid, group=account.pw_gid, extra_groups=[], check=True, capture_output=True,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        known = files.read(f"{KEY}.pub") or b""
    return known.decode().strip()
