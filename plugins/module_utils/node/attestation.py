# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a unit is what its signers saw: its files, the statement about them, and enough signatures on that.

A unit is a tree of files: ``unit.json``, the manifest and templates of its service, the OCI manifest of each image.
Its id is their Merkle root. ``statement.json`` names that id, and each of ``signatures/`` signs the statement.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from . import merkle, trust
from .files import NodeError

NAMESPACE = "kos-unit"
MANIFEST = "unit.json"
STATEMENT = "statement.json"
SIGNATURES = "signatures/"
IMAGES = "images/"


class UnitRefused(NodeError):
    """A unit that was altered, or that too few signers vouch for; the text says which and what to do."""


def identity(files: Mapping[str, bytes]) -> str:
    """The unit's id: the SHA3-256 Merkle root over its files, without what is said about them."""
    return merkle.root((name, merkle.digest(content)) for name, content in files.items() if not _about(name))


def manifest(files: Mapping[str, bytes]) -> dict[str, Any]:
    """What the unit is, as plain data. Raises UnitRefused."""
    return _json(files, MANIFEST)


def statement(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Who built the unit from what, when and why: an in-toto statement. Raises UnitRefused."""
    return _json(files, STATEMENT)


def check_integrity(files: Mapping[str, bytes]) -> str:
    """The unit's id, once its files are those that its statement names. Raises UnitRefused."""
    name, found = manifest(files).get("name"), identity(files)
    said = statement(files)
    claimed = [row.get("digest", {}).get("sha3_256") for row in said.get("subject", [])]
    if found not in claimed:
        raise UnitRefused(
            f"the files of the unit {name} are not those that its statement names: they were altered after it was made"
        )
    return found


def check_signers(files: Mapping[str, bytes], known: Mapping[str, str], needed: int) -> list[str]:
    """The trusted signers of the unit's statement; `known` has their public keys by name.

    Raises UnitRefused for a signature of other content, for none at all, and where fewer than `needed` are trusted.
    """
    name = manifest(files).get("name")
    signatures = sorted(path for path in files if path.startswith(SIGNATURES))
    if not signatures:
        raise UnitRefused(f"the unit {name} carries no signature: sign it with kai unit sign")
    found: set[str] = set()
    for path in signatures:
        found |= _signer(str(name), files[STATEMENT], files[path], known)
    if len(found) < needed:
        by = ", ".join(sorted(found)) or "nobody that is trusted here"
        raise UnitRefused(
            f"the unit {name} needs {needed} trusted signers and has {len(found)} ({by}): have another one sign it"
            " with kai unit sign FILE, or name its signer in the list of signers"
        )
    return sorted(found)


def _signer(name: str, content: bytes, signature: bytes, known: Mapping[str, str]) -> set[str]:
    """The name of the trusted signer, or nothing where it is a stranger's. Raises UnitRefused for other content."""
    try:
        return {trust.signer_of(content, signature.decode(errors="replace"), NAMESPACE, known)}
    except trust.NotSigned as error:
        raise UnitRefused(
            f"a signature of the unit {name} is not one of its statement: one of the two was altered"
        ) from error
    except trust.Stranger:
        return set()


def _about(name: str) -> bool:
    return name == STATEMENT or name.startswith(SIGNATURES)


def _json(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    try:
        data = json.loads(files[name])
    except KeyError as error:
        raise UnitRefused(f"this is no unit: it has no {name}") from error
    except ValueError as error:
        raise UnitRefused(f"{name} of the unit cannot be read: it was altered") from error
    if not isinstance(data, dict):
        raise UnitRefused(f"{name} of the unit cannot be read: it was altered")
    return data
