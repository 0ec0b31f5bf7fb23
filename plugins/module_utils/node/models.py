# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's language models: GGUF files, each kept once under its SHA-256, with names that are links to it.

Everything is in one directory, which services read and only root writes: ``sha256/HEX`` is a model, ``NAME.gguf`` a
link to one, ``default.gguf`` the link to the one that is served by that name, ``incoming`` what is still on its way.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import re
import secrets
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from . import files, ledger, space, store
from .files import NodeError, Root

MODELS = "/var/lib/kos-models"
DEFAULT = "default"
_STORE, _INCOMING, _SUFFIX = "sha256", "incoming", ".gguf"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SUM = re.compile(r"[0-9a-f]{64}")
_PART_OF_SEVERAL = re.compile(r"-\d{5}-of-\d{5}$")
_SHARED = 0o755
_CHUNK = 4 * 2**20
# Seconds without a byte after which the other side counts as gone, and an unfinished file as left behind.
_PATIENCE = 60
_ABANDONED = 3600


class Refused(NodeError):
    """A model that is not taken, or not let go; its text says why and what to do."""


@dataclass(frozen=True)
class Wanted:
    """A model that somebody asked for: what it is called, and the sum that its content must have."""

    name: str
    sha256: str
    default: bool = False

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name == DEFAULT:
            raise Refused(
                f"'{self.name}' is not a name for a model: lower-case letters, digits and . _ -, not 'default'"
            )
        if _PART_OF_SEVERAL.search(self.name):
            raise Refused(f"'{self.name}' is one part of several: join them first (llama-gguf-split --merge)")
        if not _SUM.fullmatch(self.sha256):
            raise Refused("a SHA-256 is 64 digits of 0-9 and a-f: copy it from whoever published the model")


def digest(path: str) -> str:
    """The SHA-256 of the file at `path`, read piece by piece. Raises OSError."""
    with open(path, "rb", buffering=0) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def require_gguf(path: str) -> None:
    """Raises Refused where the file at `path` does not begin as a GGUF file of version 2 or 3. Raises OSError."""
    with open(path, "rb") as stream:
        _require_head(stream.read(8))


def _require_head(head: bytes) -> None:
    if len(head) < 8 or head[:4] != b"GGUF" or struct.unpack("<I", head[4:8])[0] not in (2, 3):
        raise Refused("that is not a GGUF file, the one form of model that llama.cpp reads: nothing was added")


def listing(root: Root) -> list[dict[str, Any]]:
    """Every model: name, sha256, size in bytes, and whether it is the default."""
    default = _target(root, DEFAULT)
    rows = []
    for name in _names(root):
        kept = _target(root, name)
        if kept is not None and os.path.isfile(_kept(root, kept)):
            size = os.path.getsize(_kept(root, kept))
            rows.append({"name": name, "sha256": kept, "size": size, "default": kept == default})
    return rows


def offer(root: Root, wanted: Wanted, size: int) -> str | None:
    """Where the controller may write the model's `size` bytes; None where this node has it already.

    Raises Refused where the name is taken, NoRoom where it does not fit, Busy.
    """
    with _locked(root):
        _require_free_name(root, wanted)
        if _intact(root, wanted.sha256):
            return None
        space.require(root, [space.Need(MODELS, size + space.SPARE, 2, "of the model")])
        path = _new_part(root, wanted)
        # Whoever connects may be another user, who becomes root only for modules.
        os.chown(path, int(os.environ.get("SUDO_UID", os.getuid())), -1)
        return path


def take(root: Root, wanted: Wanted, part: str | None) -> bool:
    """Keep what was written to `part` (None: what is here already). Returns whether anything changed.

    Raises Refused where it is not what was announced; it is deleted then.
    """
    with _locked(root):
        _require_free_name(root, wanted)
        changed = False
        if part is not None:
            _keep(root, wanted, _own_part(root, part))
            changed = True
        elif not _intact(root, wanted.sha256):
            raise Refused("the model was removed by somebody else meanwhile: add it again")
        changed = _name(root, wanted.name, wanted.sha256) or changed
        if wanted.default or _target(root, DEFAULT) is None:
            changed = _name(root, DEFAULT, wanted.sha256) or changed
        _sweep(root)
        return changed


def fetch(root: Root, wanted: Wanted, url: str) -> bool:
    """Fetch the model from `url` and keep it. Returns whether anything changed. Raises Refused, NoRoom, Busy."""
    with _locked(root):
        _require_free_name(root, wanted)
        here = _intact(root, wanted.sha256)
        part = None if here else _new_part(root, wanted)
    if part is not None:
        try:
            _download(root, url, part)
        except BaseException:
            files.remove(part)
            raise
    return take(root, wanted, part)


def remove(root: Root, name: str) -> bool:
    """Forget a model, and delete it where no other name means it. Returns whether it was there. Raises Refused."""
    with _locked(root):
        kept = _target(root, name) if _NAME.fullmatch(name) and name != DEFAULT else None
        if kept is None:
            return False
        others = [other for other in _names(root) if other != name and _target(root, other) == kept]
        if kept == _target(root, DEFAULT) and not others:
            raise Refused(
                f"'{name}' is the default, which programs ask for: choose another with kai model default NAME, "
                "or none with kai model default --none, then remove it"
            )
        files.remove(_link(root, name))
        _sweep(root)
        return True


def choose(root: Root, name: str | None) -> bool:
    """Make a model the default, or (None) have none. Returns whether that is new. Raises Refused."""
    with _locked(root):
        if name is None:
            there = _target(root, DEFAULT) is not None
            files.remove(_link(root, DEFAULT))
            return there
        kept = _target(root, name) if _NAME.fullmatch(name) else None
        if kept is None:
            known = ", ".join(_names(root)) or "none"
            raise Refused(f"this node has no model called '{name}' (it has: {known})")
        return _name(root, DEFAULT, kept)


def announce(root: Root) -> list[str]:
    """Have every service that serves models read their list again; a sentence for each that did not."""
    generation = store.current(root) if root.booted else None
    failed = []
    for row in generation.manifest["services"] if generation else []:
        if row.get("models_reload"):
            try:
                with _loopback().open(row["models_reload"], timeout=10) as answer:
                    answer.read()
            except (OSError, http.client.HTTPException):
                failed.append(f"{row['name']} does not answer, and will see the change when it starts")
    return failed


@contextlib.contextmanager
def _locked(root: Root) -> Iterator[None]:
    """Hold the models, and have the node's ledger know their directory. Raises Busy."""
    folder = root.join(MODELS)
    files.make_directory(folder)
    _set_mode(folder)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise files.Busy(
                "another kai model run is at work on this node right now: wait for it, then run again"
            ) from error
        _own(root)
        for name in (_STORE, _INCOMING):
            # llama.cpp ends where it may not look into a directory; what is on its way is readable for root alone.
            files.make_directory(os.path.join(folder, name))
            _set_mode(os.path.join(folder, name))
        yield
        for name in (_STORE, _INCOMING):
            # Without a model the directory is empty, and an uninstall keeps nothing.
            with contextlib.suppress(OSError):
                os.rmdir(os.path.join(folder, name))
    finally:
        os.close(descriptor)


def _set_mode(folder: str) -> None:
    """Whatever the umask: services read the models as users of their own."""
    os.chmod(folder, _SHARED)


def _own(root: Root) -> None:
    if any(row["path"] == MODELS for row in ledger.load(root).volumes):
        return
    with files.lock(root, wait=True):
        book = ledger.load(root)
        book.volumes = [*book.volumes, {"path": MODELS, "service": "models", "user": "root", "unit": ""}]
        ledger.save(root, book)


def _require_free_name(root: Root, wanted: Wanted) -> None:
    if _target(root, wanted.name) not in (None, wanted.sha256):
        raise Refused(f"'{wanted.name}' names another model here: remove that one first, or choose another --name")


def _new_part(root: Root, wanted: Wanted) -> str:
    path = root.join(f"{MODELS}/{_INCOMING}/{wanted.sha256}.{secrets.token_hex(8)}")
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    return path


def _own_part(root: Root, part: str) -> str:
    """`part` as a plain file of ours. Raises Refused for any other path."""
    folder = root.join(f"{MODELS}/{_INCOMING}")
    path = os.path.join(folder, os.path.basename(part))
    if path != part or not os.path.isfile(path) or os.path.islink(path):
        raise Refused("what was written is gone: run again")
    return path


def _keep(root: Root, wanted: Wanted, part: str) -> None:
    """Move `part` to its place once it is what was announced; else delete it. Raises Refused."""
    try:
        # From here on nobody but root can open it.
        os.chown(part, os.getuid(), os.getgid())
        os.chmod(part, 0o600)
        require_gguf(part)
        found = digest(part)
        if found != wanted.sha256:
            raise Refused(f"the file's SHA-256 is {found}, not {wanted.sha256}: it is another file or was altered on "
                          "the way, and nothing was added")  # fmt: skip
        with open(part, "rb") as stream:
            os.fchmod(stream.fileno(), 0o644)
            os.fsync(stream.fileno())
    except BaseException:
        files.remove(part)
        raise
    os.rename(part, _kept(root, wanted.sha256))
    files.sync_directory(_kept(root, wanted.sha256))


def _download(root: Root, url: str, part: str) -> None:
    if not url.startswith(("https://", "http://")):
        raise Refused(f"'{url}' is neither a file nor an address that begins with https:// or http://")
    shown = url.partition("?")[0]
    try:
        with _opener().open(url, timeout=_PATIENCE) as answer, open(part, "wb") as stream:
            size = int(answer.headers.get("Content-Length") or 0)
            space.require(root, [space.Need(MODELS, size + space.SPARE, 2, "of the model")])
            _pour(answer, stream)
            if size and stream.tell() != size:
                raise Refused(f"{shown} ended after {stream.tell()} of {size} bytes: run again")
    except urllib.error.HTTPError as error:
        raise Refused(f"{shown} answers {error.code} ({error.reason}): check the address") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
        why = error.reason if isinstance(error, urllib.error.URLError) else error
        raise Refused(
            f"this node cannot fetch {shown} ({why}): connect it, or fetch the file elsewhere and kai model add FILE"
        ) from error


def _opener() -> urllib.request.OpenerDirector:
    """One that reads the web and nothing else: no file, no FTP, whatever an answer redirects to."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _loopback() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _pour(answer: IO[bytes], stream: IO[bytes]) -> None:
    head = answer.read(8)
    _require_head(head)
    stream.write(head)
    while chunk := answer.read(_CHUNK):
        stream.write(chunk)
    stream.flush()


def _intact(root: Root, sha256: str) -> bool:
    """Whether the model is here as it should be; one that is not is no longer used."""
    path = _kept(root, sha256)
    if not os.path.isfile(path):
        return False
    if digest(path) == sha256:
        return True
    files.remove(path)
    return False


def _sweep(root: Root) -> None:
    """Delete models without a name, and what abandoned runs left behind."""
    named = {_target(root, name) for name in [*_names(root), DEFAULT]}
    for kept in os.listdir(root.join(f"{MODELS}/{_STORE}")):
        if kept not in named:
            files.remove(_kept(root, kept))
    incoming = root.join(f"{MODELS}/{_INCOMING}")
    for part in os.listdir(incoming):
        path = os.path.join(incoming, part)
        with contextlib.suppress(FileNotFoundError):
            if time.time() - os.path.getmtime(path) > _ABANDONED:
                files.remove(path)
    files.sweep_unfinished(root.join(MODELS))


def _names(root: Root) -> list[str]:
    folder = root.join(MODELS)
    found = os.listdir(folder) if os.path.isdir(folder) else []
    names = [name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX)]
    return sorted(name for name in names if name != DEFAULT)


def _target(root: Root, name: str) -> str | None:
    """The sum that the link `name` stands for, or None."""
    try:
        folder, _slash, kept = os.readlink(_link(root, name)).partition("/")
    except OSError:
        return None
    return kept if folder == _STORE and _SUM.fullmatch(kept) else None


def _name(root: Root, name: str, sha256: str) -> bool:
    if _target(root, name) == sha256:
        return False
    files.link(_link(root, name), f"{_STORE}/{sha256}")
    return True


def _link(root: Root, name: str) -> str:
    return root.join(f"{MODELS}/{name}{_SUFFIX}")


def _kept(root: Root, sha256: str) -> str:
    return root.join(f"{MODELS}/{_STORE}/{sha256}")
