# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Container images on the node: which are missing, where they come from, and into whose storage they go.

The node's store is an OCI image layout of content-addressed blobs; what it holds is proved by digest, and the
digests stand in the signed generation. Order: store, then what a controller or a bundle brings, then a registry.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Collection, Iterator
from typing import Any

from . import files, space, store, system, venvs
from .bundle import image_rows
from .files import NodeError, Root
from .store import Generation

STORE = "images"
RECORD = "loaded.json"
STORAGE = "/var/lib/containers"
SETTINGS = "/etc/kos/containers"
# Seconds for one image from a registry.
PULL = 3600
# Seconds for removing old ones, while the node waits.
_TIDY = 60
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CHUNK = 1 << 20
_LONGEST = 1 << 26


class NoImage(NodeError):
    """An image that is neither on the node nor to be had, or that is not what its digest says."""


def missing(root: Root, generation: Generation) -> list[dict[str, Any]]:
    """The image rows of the generation whose image its user's storage does not hold, or whose wheels lie nowhere."""
    rows = generation.manifest.get("images", [])
    record = files.read_json(root.state(STORE, RECORD), {})
    # A name in the storage alone may have been put there by the service, for an image that is another.
    users = {row["user"] for row in rows if "user" in row}
    held = {user: loaded(root, user) & set(record.get(user, [])) for user in users}
    return [
        row
        for row in rows
        if not (
            venvs.installed(root, row) if "venv" in row else f"{row['repository']}@{row['digest']}" in held[row["user"]]
        )
    ]


def loaded(root: Root, user: str) -> set[str]:
    """The references (``repository@digest``) of the images in the user's storage, as Podman writes them down."""
    content = _untrusted(root.join(f"{STORAGE}/{user}/storage/overlay-images/images.json"))
    try:
        return {name for row in json.loads(content or b"[]") for name in row.get("names") or [] if "@sha256:" in name}
    except (ValueError, TypeError, AttributeError):
        # Not as Podman writes it: what is not known to be there is loaded again.
        return set()


def _untrusted(path: str) -> bytes:
    """What a plain file holds that the service's user may have put there instead of Podman; nothing for any other."""
    try:
        # No link is followed, and no pipe is waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        return stream.read() if stat.S_ISREG(status.st_mode) and status.st_size < _LONGEST else b""


def not_stored(root: Root, rows: Collection[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of `rows` whose image the node's own store does not hold whole."""
    return [row for row in rows if not _whole(root, row["digest"])]


def has_blob(root: Root, path: str) -> bool:
    """Whether the node's own store holds the blob ``blobs/sha256/…``."""
    return os.path.exists(root.state(STORE, path))


def take(root: Root, stream: io.BufferedIOBase) -> None:
    """Put the blobs of a tar archive (``blobs/sha256/…``) into the store, each proved by its digest first.

    Raises NoImage for anything else in it, OSError where space lacks.
    """
    folder = _blobs(root)
    os.makedirs(folder, mode=0o755, exist_ok=True)
    try:
        with tarfile.open(fileobj=stream, mode="r|*") as tar:
            for member in tar:
                match = re.fullmatch(r"blobs/sha256/([0-9a-f]{64})", member.name)
                source = tar.extractfile(member) if member.isreg() and match else None
                if match is None or source is None:
                    raise NoImage(f"the archive of images holds '{member.name}', which is no blob of an image")
                _keep(source, os.path.join(folder, match[1]), match[1])
    except (tarfile.TarError, EOFError) as error:
        raise NoImage(f"the archive of images cannot be read: {error}") from error


def _keep(source: Any, path: str, digest: str) -> None:
    """Write `source` to `path` if its SHA-256 is `digest`. Raises NoImage."""
    if os.path.exists(path):
        return
    hidden, found = f"{path}.kos-new", hashlib.sha256()
    try:
        with open(hidden, "wb") as target:
            while chunk := source.read(_CHUNK):
                found.update(chunk)
                target.write(chunk)
            os.fchmod(target.fileno(), 0o644)
            os.fsync(target.fileno())
        if found.hexdigest() != digest:
            raise NoImage(f"a blob of an image is {found.hexdigest()[:12]}…, not the {digest[:12]}… it claims to be")
        os.rename(hidden, path)
    finally:
        files.remove(hidden)


def can_fetch(rows: Collection[dict[str, Any]] = ()) -> bool:
    """Whether `fetch` can tell what becomes of `rows`: this node has what fetches, or no registry has them anyway."""
    return shutil.which("skopeo") is not None or any(_made_here(row) for row in rows)


def _made_here(row: dict[str, Any]) -> bool:
    return str(row["repository"]).startswith("localhost/")


def fetch(root: Root, generation: Generation, rows: Collection[dict[str, Any]]) -> None:
    """Fetch into the store what of `rows` it lacks: from the mirror, then from the registry. Raises NoImage."""
    absent = not_stored(root, rows)
    for row in filter(_made_here, absent):
        digest = row["digest"][7:19]
        if "venv" in row:
            raise NoImage(
                f"{row['service']}: its wheels {digest}… are on a controller that did not send them: "
                f"kai wheels fetch {row['service']}, or deploy from where they were fetched"
            )
        raise NoImage(
            f"{row['service']}: its image {digest}… was built by a controller that did not send it: "
            f"kai unit build {row['service']}, or deploy from where it was built"
        )
    if absent:
        _lay_out_policy(root, generation)
    mirror = generation.manifest.get("mirror", "")
    for row in absent:
        digest, repository = row["digest"], row["repository"]
        sources = [f"{mirror}/{repository.partition('/')[2]}"] if mirror else []
        said = ""
        for source in [*sources, repository]:
            said = _copy_from(root, source, digest)
            if not said:
                break
        if said or not _whole(root, digest):
            raise NoImage(
                f"{row['service']}: its image {repository}@{digest[:19]}… is not on this node and cannot be fetched: "
                f"{said or 'it arrived incomplete'}. Bring it with a bundle (kai bundle build), or reach its registry"
            )


def _lay_out_policy(root: Root, generation: Generation) -> None:
    """Whose signatures count is what this generation says, even before its files are in place."""
    for row in generation.manifest["files"]:
        if "source" in row and row["path"].startswith(f"{SETTINGS}/"):
            target = root.state(STORE, row["path"].removeprefix(f"{SETTINGS}/"))
            files.make_directory(os.path.dirname(target))
            files.write(target, generation.content(row["source"]), 0o644)


def _copy_from(root: Root, repository: str, digest: str) -> str:
    """Copy an image into the store; returns what went wrong, or nothing."""
    folder = root.state(STORE)
    argv = ["skopeo", "--policy", f"{folder}/policy.json", "--registries.d", f"{folder}/registries.d"]
    argv += ["copy", "--quiet", "--preserve-digests"]
    argv += [f"docker://{repository}@{digest}", f"oci:{root.state(STORE)}:{digest[7:]}"]
    try:
        done = system.run(argv, check=False, timeout=PULL)
    except system.CommandFailed as error:
        return str(error)
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return (said[-1] if said else "skopeo failed") if done.returncode else ""


def load(root: Root, rows: Collection[dict[str, Any]]) -> None:
    """Put the images of `rows` from the store into their users' storages, as those users; install wheels.

    In a root that is not booted the images wait in the store for its first boot. Raises NoImage, NoVenv.
    """
    for row in rows:
        if "venv" in row:
            venvs.install(root, row, _manifest(root, row["digest"]), _blobs(root))
            continue
        if root.path != "/":
            continue
        _index(root, row["digest"])
        user = pwd.getpwnam(row["user"])
        for folder in (f"{STORAGE}/{row['user']}", row["environment"]["XDG_RUNTIME_DIR"]):
            _own(folder, user)
        argv = ["/usr/bin/skopeo", "--policy", f"{SETTINGS}/policy.json", "copy", "--quiet", "--preserve-digests"]
        argv += [f"oci:{root.state(STORE)}:{row['digest'][7:]}"]
        argv += [f"containers-storage:{row['repository']}@{row['digest']}"]
        done = as_user(argv, row["user"], row["environment"], PULL)
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise NoImage(f"{row['service']}: its image cannot be unpacked: {said[-1] if said else 'skopeo failed'}")
        _note_loaded(root, row)


def _note_loaded(root: Root, row: dict[str, Any]) -> None:
    """Write down what root has had unpacked, where no service can write."""
    path = root.state(STORE, RECORD)
    record = files.read_json(path, {})
    there = loaded(root, row["user"])
    names = {*record.get(row["user"], []), f"{row['repository']}@{row['digest']}"}
    files.write_json(path, {**record, row["user"]: sorted(names & there)})


def room_for(root: Root, rows: Collection[dict[str, Any]]) -> list[space.Need]:
    """What `load` will write for those of `rows` that are wheels and which the store holds."""
    stored = [row for row in rows if "venv" in row and _whole(root, row["digest"])]
    return [venvs.room_for(row, _manifest(root, row["digest"])) for row in stored]


def _manifest(root: Root, digest: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files.read(os.path.join(_blobs(root), digest[7:])) or b"{}")
    return found


def as_user(
    argv: list[str], user: str, environment: dict[str, str], timeout: float, cgroup: str = ""
) -> subprocess.CompletedProcess[bytes]:
    """Run `argv` as `user`, in the control group `cgroup` where one is named. Raises NoImage after `timeout` s."""
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"]
    # Podman moves processes between control groups below one of the user's own only.
    enter = ["sh", "-c", 'echo 0 > "$0/cgroup.procs" && exec "$@"', cgroup] if cgroup else []
    words = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "USER": user, **environment}

    try:
        return subprocess.run(
            [*enter, *become, *argv], capture_output=True, env=words, cwd="/", check=False, timeout=timeout,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise NoImage(f"{argv[0]} did not end within {timeout:.0f} s") from error


def prune(root: Root) -> list[str]:
    """Forget images that no kept generation names, and what the current one has no user for.

    What the store keeps can be unpacked again, for a user who by then may have other ids. Returns a sentence for each
    thing that stayed.
    """
    left = []
    kept = [generation for row in store.listing(root) if (generation := store.load(root, row["number"]))]
    rows = [row for generation in kept for row in image_rows(generation.manifest)]
    contained = [row for row in rows if "user" in row]
    names = {(row["user"], f"{row['repository']}@{row['digest']}") for row in contained}
    environments = {row["user"]: row["environment"] for row in contained}
    current = store.current(root)
    drop([root.join(path) for path in leftovers(root, current.manifest if current else None, rows)])
    for user in _users(root):
        old = [name for name in loaded(root, user) if (user, name) not in names]
        if old and user in environments:
            try:
                as_user(["/usr/bin/podman", "image", "rm", "--force", *sorted(old)], user, environments[user], _TIDY)
            except (NoImage, OSError) as error:
                # The change is committed: what is only untidy fails nothing.
                left.append(f"old images of {user}: {error}")
    _prune_store(root, {row["digest"] for row in rows})
    return left


def leftovers(root: Root, manifest: dict[str, Any] | None, rows: Collection[dict[str, Any]] | None = None) -> list[str]:
    """The storages of users that `manifest` no longer names, and the environments that it, or `rows`, does not."""
    return [*_storages(root, manifest), *venvs.leftovers(root, list(rows or image_rows(manifest or {})))]


def drop(paths: Collection[str]) -> None:
    """Delete these, and what Podman keeps in memory for the user that each storage belongs to."""
    for path in paths:
        with contextlib.suppress(OSError):
            files.remove(f"/dev/shm/libpod_rootless_lock_{os.lstat(path).st_uid}")  # noqa: S108
        shutil.rmtree(path, ignore_errors=True)


def _storages(root: Root, manifest: dict[str, Any] | None) -> list[str]:
    wanted = {row["user"] for row in image_rows(manifest or {}) if "user" in row}
    return [f"{STORAGE}/{user}" for user in _users(root) if user not in wanted]


def _users(root: Root) -> list[str]:
    folder = root.join(STORAGE)
    return sorted(name for name in os.listdir(folder) if name.startswith("kos-")) if os.path.isdir(folder) else []


def _prune_store(root: Root, digests: Collection[str]) -> None:
    wanted = {blob for digest in digests for blob in _blobs_of(root, digest)}
    folder = _blobs(root)
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if name not in wanted:
            files.remove(os.path.join(folder, name))


def _whole(root: Root, digest: str) -> bool:
    """Whether the store holds the image's manifest and every blob that it names."""
    names = list(_blobs_of(root, digest))
    return len(names) > 1 and all(os.path.exists(os.path.join(_blobs(root), name)) for name in names)


def _blobs_of(root: Root, digest: str) -> Iterator[str]:
    """The names of the image's blobs: its manifest, and what that names."""
    if not _DIGEST.fullmatch(digest):
        raise NoImage(f"'{digest}' is no digest of an image")
    yield digest[7:]
    content = files.read(os.path.join(_blobs(root), digest[7:]))
    # Only what has the right digest is believed.
    if content is None or hashlib.sha256(content).hexdigest() != digest[7:]:
        return
    manifest = json.loads(content)
    for entry in [manifest.get("config", {}), *manifest.get("layers", [])]:
        yield str(entry.get("digest", "")).removeprefix("sha256:")


def _index(root: Root, digest: str) -> None:
    """Have the layout's index name the image, so that skopeo finds it."""
    content = files.read(os.path.join(_blobs(root), digest[7:])) or b""
    path = root.state(STORE, "index.json")
    index = files.read_json(path, {"schemaVersion": 2, "manifests": []})
    row = {
        "mediaType": json.loads(content).get("mediaType", "application/vnd.oci.image.manifest.v1+json"),
        "digest": digest,
        "size": len(content),
        "annotations": {"org.opencontainers.image.ref.name": digest[7:]},
    }
    index["manifests"] = [*(entry for entry in index["manifests"] if entry["digest"] != digest), row]
    files.write(path, json.dumps(index).encode(), 0o644)
    files.write(root.state(STORE, "oci-layout"), b'{"imageLayoutVersion": "1.0.0"}', 0o644)


def _own(folder: str, user: pwd.struct_passwd) -> None:
    os.makedirs(os.path.dirname(folder), mode=0o755, exist_ok=True)
    if not os.path.isdir(folder):
        os.mkdir(folder, 0o700)
    os.chown(folder, user.pw_uid, user.pw_gid)


def _blobs(root: Root) -> str:
    return root.state(STORE, "blobs", "sha256")
