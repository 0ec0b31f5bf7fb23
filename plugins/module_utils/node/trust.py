# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom this node believes: the Ed25519 keys that may sign its generations, and the proof that one did.

Keys and signatures have OpenSSH's formats (allowed_signers, SSHSIG); ssh-keygen does the arithmetic.
"""

from __future__ import annotations

import functools
import os
import re
import tempfile
from collections.abc import Mapping
from typing import Any

from . import files, system
from .files import NodeError, Root

NAMESPACE = "kos-generation"
KEY_TYPES = ("ssh-ed25519", "sk-ssh-ed25519@openssh.com")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_BLOB = re.compile(r"[A-Za-z0-9+/]{40,400}={0,2}")
_LINE = re.compile(
    rf'({_NAME.pattern}) namespaces="{NAMESPACE}" ((?:{"|".join(map(re.escape, KEY_TYPES))}) {_BLOB.pattern})'
)
_SHOWN = f"{files.STATE}/allowed_signers"


class Untrusted(NodeError):
    """A generation that nobody this node believes has signed."""


class NotSigned(Exception):
    """A signature that is not one of this content."""


class Stranger(Exception):
    """A good signature by nobody known; the text is the fingerprint of its key."""


def message(identity: str) -> bytes:
    """What is signed for the generation `identity`: its id, which commits to every byte of it."""
    return identity.encode() + b"\n"


def signers(root: Root) -> dict[str, str]:
    """The trusted public keys (``type base64``) by name; empty on a node that nobody has enrolled.

    Raises Untrusted for a list that cannot be read or that holds a line kOS would not have written: a restriction
    that was ignored would be trust that nobody gave.
    """
    path = _path(root)
    if not os.path.lexists(path):
        return {}
    content = files.read(path)
    if content is None:
        raise Untrusted(f"{_SHOWN} is not a file that can be read: put it back, or remove it and use kai trust add")
    found = {}
    for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        row = _LINE.fullmatch(line)
        if row is None:
            raise Untrusted(f'line {number} of {_SHOWN} is not of the form: NAME namespaces="{NAMESPACE}" TYPE KEY')
        found[row[1]] = row[2]
    if not found:
        raise Untrusted(f"{_SHOWN} names nobody: put its keys back, or name one with kai trust add")
    return found


def enrolled(root: Root) -> bool:
    """Whether somebody has ever deployed here: from then on a list that is gone is no invitation."""
    if os.path.lexists(_path(root)):
        return True
    try:
        return bool(os.listdir(root.state("generations")))
    except FileNotFoundError:
        return False


def listing(root: Root, signed_by: str | None = None) -> list[dict[str, Any]]:
    """Every trusted key: its name, its fingerprint, and whether it signed the current generation."""
    return [
        {"name": name, "fingerprint": fingerprint(key), "key": key, "current": name == signed_by}
        for name, key in sorted(signers(root).items())
    ]


def parse_key(line: str) -> tuple[str, str]:
    """The key (``type base64``) and the comment of a public key line. Raises NodeError for any but Ed25519."""
    kind, rest = line.strip().partition(" ")[::2]
    blob, comment = rest.partition(" ")[::2]
    if kind not in KEY_TYPES or not _BLOB.fullmatch(blob):
        raise NodeError("that is not an Ed25519 public key: one line such as 'ssh-ed25519 AAAA… name'")
    fingerprint(f"{kind} {blob}")
    return f"{kind} {blob}", comment.strip()


def fingerprint(key: str) -> str:
    """``SHA256:…`` as every OpenSSH tool prints it. Raises NodeError for what is not a key."""
    done = system.run(["ssh-keygen", "-l", "-f", "-"], stdin=f"{key}\n".encode(), check=False)
    if done.returncode != 0:
        raise NodeError("that is not a public key that ssh-keygen can read")
    return done.stdout.decode().split()[1]


def enrol(root: Root, line: str) -> str | None:
    """Trust the first signer of a node that trusts nobody yet; returns its name, or None when it had one.

    It is as good as the connection it came by: root's own over SSH, the medium, or cloud-init.
    """
    if enrolled(root):
        return None
    name, key = _first(line)
    _write(root, {name: key})
    return name


def add(root: Root, name: str, line: str) -> bool:
    """Trust one more key. Returns whether it was new. Raises NodeError for a name that is taken or not one."""
    key, _comment = parse_key(line)
    known = signers(root)
    if not _NAME.fullmatch(name):
        raise NodeError(f"'{name}' is not a name for a key: letters, digits and . _ @ -")
    if known.get(name, key) != key:
        raise NodeError(f"'{name}' names another key here: remove that one first, or choose another name")
    holder = next((other for other, present in known.items() if present == key and other != name), None)
    if holder:
        raise NodeError(f"this node trusts that key already, as '{holder}'")
    if name in known:
        return False
    _write(root, {**known, name: key})
    return True


def remove(root: Root, name: str) -> bool:
    """No longer trust a key. Returns whether it was there. Raises NodeError for the last one."""
    known = signers(root)
    if name not in known:
        return False
    if len(known) == 1:
        raise NodeError(
            f"'{name}' is the only key this node trusts, and without one nobody could change it: add another"
        )
    _write(root, {other: key for other, key in known.items() if other != name})
    return True


def believed(root: Root, candidate: str = "") -> dict[str, str]:
    """Whose signatures count here, by name; `candidate` only where nobody has deployed yet. Raises Untrusted."""
    known = signers(root) if enrolled(root) or not candidate else dict([_first(candidate)])
    if not known and enrolled(root):
        raise Untrusted(f"{_SHOWN} is gone: put it back, or name a key with kai trust add NAME KEYFILE")
    return known


def verify(root: Root, identity: str, signature: str, candidate: str = "") -> str:
    """The name of the trusted signer of the generation `identity`.

    `candidate` (a public key line) counts only where nobody has deployed yet. Raises Untrusted when the signature is
    missing, is of other content, or is by a key that this node does not trust.
    """
    known = believed(root, candidate)
    if not signature:
        raise Untrusted(f"generation {identity[:12]}… carries no signature: a node takes signed ones only")
    return _verified(identity, signature, tuple(sorted(known.items())))


# The status page asks every few seconds, and nothing of the answer depends on anything but these three.
@functools.lru_cache(maxsize=8)
def _verified(identity: str, signature: str, known: tuple[tuple[str, str], ...]) -> str:
    try:
        return signer_of(message(identity), signature, NAMESPACE, dict(known))
    except NotSigned as error:
        raise Untrusted(
            f"the signature is not one of generation {identity[:12]}…: it was altered on the way, run again"
        ) from error
    except Stranger as error:
        trusted = ", ".join(name for name, _key in known) or "nobody yet"
        raise Untrusted(
            f"generation {identity[:12]}… is signed by {error}, whom this node does not trust (it trusts {trusted}); "
            "where that key is yours: kai trust add NAME KEYFILE."
        ) from error


def signer_of(content: bytes, signature: str, namespace: str, known: Mapping[str, str]) -> str:
    """Who of `known` (public keys by name) signed `content` for `namespace`. Raises NotSigned, Stranger."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("signature", "allowed_signers")]
        for path, text in zip(paths, (signature, _allowed(known, namespace)), strict=True):
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(text)
        base = ["ssh-keygen", "-Y"]
        anyone = system.run([*base, "check-novalidate", "-n", namespace, "-s", paths[0]], content, check=False)
        if anyone.returncode != 0:
            raise NotSigned
        found = system.run([*base, "find-principals", "-s", paths[0], "-f", paths[1]], check=False)
        name = found.stdout.decode().strip()
        verify_argv = [*base, "verify", "-f", paths[1], "-I", name, "-n", namespace, "-s", paths[0]]
        if found.returncode != 0 or system.run(verify_argv, content, check=False).returncode != 0:
            raise Stranger(anyone.stdout.decode().split()[-1])
        return name


def _first(line: str) -> tuple[str, str]:
    """A name for the first signer, from its key's comment."""
    key, comment = parse_key(line)
    return (comment if _NAME.fullmatch(comment) else "controller"), key


def _allowed(known: Mapping[str, str], namespace: str) -> str:
    return "".join(f'{name} namespaces="{namespace}" {key}\n' for name, key in sorted(known.items()))


def _write(root: Root, known: dict[str, str]) -> None:
    files.write(_path(root), file_text(known).encode())


def file_text(known: Mapping[str, str]) -> str:
    """The list of the trusted, as it lies on a node: public keys (``type base64``) by name."""
    head = "# Who may sign this node's generations (kai trust). Format: ssh-keygen(1), ALLOWED SIGNERS.\n"
    return head + _allowed(known, NAMESPACE)


def _path(root: Root) -> str:
    return root.state("allowed_signers")
