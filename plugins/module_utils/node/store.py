# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The generations a node keeps: import with proof of content, find, load, prune."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from typing import Any

from . import fallback, files, history, merkle
from .files import NodeError, Root

KEEP = 5
MANIFEST = "manifest.json"
SIGNATURE = "signature"
# Beside the tree, not of it.
_NOT_CONTENT = ("pinned", SIGNATURE)


class Refused(NodeError):
    """An archive that is not what it claims to be."""


class Generation:
    """One generation on the node: its number, its id, its manifest, and its files on disk.

    With `alternative`, the name of a service, the manifest is the one without it. Raises Refused where there is none.
    """

    def __init__(self, path: str, number: int, identity: str, alternative: str = "") -> None:
        self.path = path
        self.number = number
        self.id = identity
        self.alternative = alternative
        folder = os.path.join(path, "alternatives", alternative) if alternative else path
        self.manifest: dict[str, Any] = files.read_json(os.path.join(folder, MANIFEST), {})
        if alternative and not self.manifest:
            raise Refused(f"generation {number} has nothing to run instead of {alternative}")

    @property
    def signature(self) -> str:
        """Its armoured signature; empty where none is stored."""
        return (files.read(os.path.join(self.path, SIGNATURE)) or b"").decode()

    def content(self, source: str) -> bytes:
        """The bytes of the file `source` of the tree."""
        with open(os.path.join(self.path, source), "rb") as stream:
            return stream.read()

    def node_code_digest(self) -> str:
        """The digest of the node's core that this generation carries."""
        return merkle.root(_leaves(os.path.join(self.path, "node")))


def verified_files(archive: bytes, identity: str) -> dict[str, bytes]:
    """The files in `archive`, after proof that their Merkle root is `identity`.

    Raises Refused for anything but plain relative files, and for a root that differs.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            for member in tar:
                parts = member.name.split("/")
                if not member.isreg() or member.name.startswith("/") or ".." in parts:
                    raise Refused(f"the archive holds '{member.name}', which is not a plain file inside it")
                stream = tar.extractfile(member)
                found[member.name] = stream.read() if stream else b""
    except (tarfile.TarError, EOFError, OSError) as error:
        raise Refused(f"the archive cannot be read: {error}") from error
    actual = merkle.root((name, merkle.digest(content)) for name, content in found.items())
    if actual != identity:
        raise Refused(f"the archive's content is {actual[:12]}…, not the generation {identity[:12]}… it claims to be")
    return found


def add(root: Root, archive: bytes, identity: str, signature: str) -> Generation:
    """Store the generation in `archive` with its (verified) signature.

    Raises Refused when it is not `identity`, OSError where space lacks.
    """
    content = verified_files(archive, identity)
    number = max([0, *_numbers(root)]) + 1
    final, unfinished = root.state("generations", str(number)), _hidden(root, number)
    _sweep(root)
    try:
        for name, data in content.items():
            path = os.path.join(unfinished, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as stream:
                stream.write(data)
                os.fchmod(stream.fileno(), 0o644)
        files.write(os.path.join(unfinished, SIGNATURE), signature.encode())
        os.sync()
        os.rename(unfinished, final)
    except OSError:
        _sweep(root)
        raise
    files.sync_directory(final)
    return Generation(final, number, identity)


def _hidden(root: Root, number: int) -> str:
    """Where generation `number` lies while it is only half there."""
    return root.state("generations", f".{number}")


def _sweep(root: Root) -> None:
    """Remove what a killed `add` or `prune` left."""
    folder = root.state("generations")
    for name in os.listdir(folder) if os.path.isdir(folder) else ():
        if name.startswith("."):
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def unpack(archive: bytes, identity: str, folder: str) -> Generation:
    """The generation in `archive` laid out in `folder`, outside the store: for check mode."""
    for name, data in verified_files(archive, identity).items():
        files.write(os.path.join(folder, name), data)
    return Generation(folder, 0, identity)


def find(root: Root, identity: str, alternative: str = "") -> Generation | None:
    """The stored generation with this id, its content proved again; one that was altered is not found.

    Raises Refused where it has not the `alternative`.
    """
    for number in _numbers(root):
        path = root.state("generations", str(number))
        if _remembered_id(path) == identity:
            return Generation(path, number, identity, alternative)
    return None


def load(root: Root, number: int, alternative: str = "") -> Generation | None:
    """The stored generation `number`. Raises Refused where it has not the `alternative`."""
    path = root.state("generations", str(number))
    return Generation(path, number, _remembered_id(path), alternative) if os.path.isdir(path) else None


def current(root: Root) -> Generation | None:
    """The generation that `current` points at, with the alternative that is in force."""
    try:
        number = int(os.path.basename(os.readlink(root.state("current"))))
    except (OSError, ValueError):
        return None
    row = fallback.in_force(root)
    return load(root, number, row["service"] if row and row["generation"] == number else "")


def point_current(root: Root, number: int | None) -> None:
    """Make `number` the current generation; None takes the link away."""
    if number is None:
        files.remove(root.state("current"))
    else:
        files.link(root.state("current"), f"generations/{number}")


def listing(root: Root) -> list[dict[str, Any]]:
    """Every stored generation, oldest first."""
    active = current(root)
    results = {row["generation"]: row["result"] for row in history.read(root) if not row.get("alternative")}
    rows = []
    for number in _numbers(root):
        generation = load(root, number)
        if generation is not None:
            services = [service["name"] for service in generation.manifest["services"]]
            rows.append(
                {
                    "number": number,
                    "id": generation.id,
                    "profile": generation.manifest["profile"],
                    "services": services,
                    "result": results.get(number, "staged"),
                    "current": active is not None and active.number == number,
                    "pinned": os.path.exists(root.state("generations", str(number), "pinned")),
                }
            )
    return rows


def prune(root: Root, keep: int = KEEP) -> list[int]:
    """Drop all but the newest `keep`, the current and pinned ones; return the numbers dropped."""
    rows = listing(root)
    dropped = [row["number"] for row in rows[:-keep] if not row["current"] and not row["pinned"]]
    for number in dropped:
        # In one step, or a kill would leave half a generation that still bears a number.
        os.rename(root.state("generations", str(number)), _hidden(root, number))
    _sweep(root)
    return dropped


def _numbers(root: Root) -> list[int]:
    try:
        return sorted(int(name) for name in os.listdir(root.state("generations")) if name.isdecimal())
    except FileNotFoundError:
        return []


def leaves(generation: Generation) -> list[tuple[str, str]]:
    """What the id of a stored generation is computed from: each file's name and its digest, as they are on disk."""
    return _content(generation.path)


def _remembered_id(path: str) -> str:
    """The id recomputed from what is on disk: a stored generation that was touched no longer has its id."""
    return merkle.root(_content(path))


def _content(path: str) -> list[tuple[str, str]]:
    return [leaf for leaf in _leaves(path) if leaf[0] not in _NOT_CONTENT]


def _leaves(path: str) -> list[tuple[str, str]]:
    found = []
    for folder, _folders, names in os.walk(path):
        for name in names:
            full = os.path.join(folder, name)
            with open(full, "rb") as stream:
                found.append((os.path.relpath(full, path), merkle.digest(stream.read())))
    return found
