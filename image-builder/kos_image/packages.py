# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Debian packages of media: locked by name, version and digest, and fetched as they were locked.

The lock is one document an architecture. What apt resolves for it is resolved against an empty system, by way of this
machine's apt, from indexes that Debian signed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path

from ansible_collections.kind.kos.plugins.plugin_utils import apt, debs
from ansible_collections.kind.kos.plugins.plugin_utils.debs import field as said
from ansible_collections.kind.kos.plugins.plugin_utils.unit_store import locked

from .command import last_words, run
from .errors import ImageError, Refused

COMPONENTS = ("main", "non-free-firmware")
# In every set, asked for or not: Debian's essential packages and apt, which mmdebstrap installs first.
ALWAYS = ("?narrow(?essential,?architecture({architecture}))", "apt")
_FORMAT = 1
_KEPT_SECONDS = 14 * 86400
_HELPER = "/usr/lib/apt/apt-helper"
_SECURITY = "pool/updates/"  # where Debian's security archive, and it alone, keeps its packages


@dataclass(frozen=True, order=True)
class Package:
    """A row of the lock. `size` is that of the file, `installed` what dpkg reckons it takes unpacked; both in bytes."""

    name: str
    version: str
    architecture: str
    filename: str
    size: int
    installed: int
    sha256: str
    sets: tuple[str, ...]

    @property
    def file(self) -> str:
        """Its name in the cache."""
        return self.filename.rpartition("/")[2]


@dataclass(frozen=True)
class Lock:
    """The packages of one architecture. `made` is the SOURCE_DATE_EPOCH of what is made of them, in seconds.

    `asked`: what each set was resolved for, by name.
    """

    architecture: str
    made: int
    packages: tuple[Package, ...]
    asked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, name: str) -> tuple[Package, ...]:
        """The packages of a set, sorted by name. Raises Refused where the lock has no such set."""
        found = tuple(package for package in self.packages if name in package.sets)
        if not found:
            raise Refused(f"the lock for {self.architecture} has no packages for {name}: run `kos-image lock`")
        return found

    def only(self, names: Collection[str]) -> Lock:
        """The lock with these sets alone."""
        kept = (replace(one, sets=tuple(name for name in one.sets if name in names)) for one in self.packages)
        asked = {name: wanted for name, wanted in self.asked.items() if name in names}
        return replace(self, packages=tuple(one for one in kept if one.sets), asked=asked)

    def digest(self, name: str) -> str:
        """What makes two sets equal: names, versions, architectures, contents."""
        rows = [[one.name, one.version, one.architecture, one.sha256] for one in self.of(name)]
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    @staticmethod
    def read(path: Path) -> Lock:
        """The lock in `path`. Raises Refused where there is none, or none that this version reads."""
        try:
            document = json.loads(path.read_text())
            if document["format"] != _FORMAT:
                raise ValueError(f"its format is {document['format']}, not {_FORMAT}")
            rows = (Package(**{**row, "sets": tuple(row["sets"])}) for row in document["packages"])
            asked = {name: tuple(names) for name, names in document["asked"].items()}
            return Lock(document["architecture"], document["made"], tuple(rows), asked)
        except FileNotFoundError as error:
            raise Refused(f"there is no package lock {path}: run `kos-image lock`") from error
        except (ValueError, KeyError, TypeError) as error:
            raise Refused(f"{path} is no package lock ({error}): run `kos-image lock`") from error

    def write(self, path: Path) -> None:
        """Write it, whole or not at all."""
        rows = [asdict(package) for package in self.packages]
        about = {"format": _FORMAT, "architecture": self.architecture, "made": self.made, "asked": dict(self.asked)}
        document = {**about, "packages": rows}
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.write_text(json.dumps(document, indent=1) + "\n")
        new.rename(path)


def joined(one: Lock, other: Lock) -> Lock:
    """`one` with the sets of another lock."""
    sets: dict[Package, set[str]] = {}
    for package in (*one.packages, *other.packages):
        sets.setdefault(replace(package, sets=()), set()).update(package.sets)
    packages = sorted(replace(package, sets=tuple(sorted(names))) for package, names in sets.items())
    return replace(one, packages=tuple(packages), asked={**one.asked, **other.asked})


def resolve(
    sets: Mapping[str, Sequence[str]],
    architecture: str,
    cache: Path,
    components: Sequence[str] = COMPONENTS,
    system: bool = True,
) -> Lock:
    """The packages of each set with all that they need, as the mirror has them now; apt keeps its indexes in `cache`.

    A set is a whole `system`, or only for one that is there. Raises ImageError.
    """
    always = [] if not system else [pattern.format(architecture=architecture) for pattern in ALWAYS]
    folder = cache / "apt" / architecture
    try:
        by = debs.apart(folder, architecture, run, components)
        by.get("update", "-o", "APT::Update::Error-Mode=any")
        found = debs.resolve(by, [[*always, *wanted] for wanted in sets.values()])
    except (apt.NoMirror, debs.IndexBroken) as error:
        raise ImageError(str(error)) from error
    sets_of: dict[str, list[str]] = {}
    for name, paragraphs in zip(sets, found, strict=True):
        for paragraph in paragraphs:
            sets_of.setdefault(paragraph, []).append(name)
    packages = tuple(sorted(_package(paragraph, names) for paragraph, names in sets_of.items()))
    asked = {name: tuple(sorted(wanted)) for name, wanted in sets.items()}
    return Lock(architecture, newest_release(folder / "lists"), packages, asked)


def _package(paragraph: str, sets: Sequence[str]) -> Package:
    name, version, architecture, filename, sha256 = (
        said(paragraph, key) for key in ("Package", "Version", "Architecture", "Filename", "SHA256")
    )
    installed = int(said(paragraph, "Installed-Size")) << 10 if "\nInstalled-Size:" in paragraph else 0
    return Package(
        name, version, architecture, filename, int(said(paragraph, "Size")), installed, sha256, tuple(sorted(sets))
    )


def newest_release(lists: Path) -> int:
    """When the newest of the signed indexes in apt's `lists` was made, in seconds since 1970."""
    dates = [
        parsedate_to_datetime(said(path.read_text(errors="replace"), "Date")).replace(tzinfo=UTC)
        for path in lists.glob("*Release")
    ]
    return int(max(dates).timestamp())


def fetch(packages: Sequence[Package], cache: Path) -> Path:
    """The folder in `cache` that has the files of `packages`, fetched where they are not there yet, and all proved.

    What a cut network left is gone on with. Raises Refused for a file that is not the locked one, else ImageError.
    """
    folder = cache / "debs"
    partial = folder / "partial"
    partial.mkdir(parents=True, exist_ok=True)
    with locked(partial), ThreadPoolExecutor() as pool:
        missing = [one for one in packages if not (folder / one.file).exists()]
        if missing:
            _download(missing, partial)
            for _ in pool.map(lambda one: _prove(one, partial / one.file), missing):
                pass
            for one in missing:
                (partial / one.file).rename(folder / one.file)
            for refused in partial.glob("*.FAILED"):
                refused.unlink()
        _forget_unused(folder, packages)
        arrived = set(missing)
        for _ in pool.map(lambda one: _prove(one, folder / one.file), (one for one in packages if one not in arrived)):
            pass
    return folder


def _forget_unused(folder: Path, used: Iterable[Package]) -> None:
    """Remove the files that no build has asked for in a fortnight."""
    now = time.time()
    for package in used:
        os.utime(folder / package.file, (now, now))
    for path in folder.glob("*.deb"):
        if now - path.stat().st_mtime > _KEPT_SECONDS:
            path.unlink()


def _download(missing: Sequence[Package], partial: Path) -> None:
    """By apt's own means: its proxies, certificates, parallel connections, and going on where it stopped."""
    need, free = sum(package.size for package in missing), shutil.disk_usage(partial).free
    if need > free:
        raise ImageError(f"the packages want {need >> 20} MiB and {partial} has {free >> 20} MiB: free some space")
    try:
        way = apt.inherit()
    except apt.NoMirror as error:
        raise ImageError(str(error)) from error
    triples = [
        word for one in missing for word in (_address(one, way), str(partial / one.file), f"SHA256:{one.sha256}")
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as configuration:
        configuration.write("\n".join([*way.options, 'APT::Sandbox::User "";']) + "\n")
        configuration.flush()
        argv = [_HELPER, "-q", "-c", configuration.name, "download-file", *triples]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise _not_fetched(done.stderr or done.stdout)


def _address(package: Package, way: apt.AptConfiguration) -> str:
    security = package.filename.startswith(_SECURITY) and way.security_mirror
    return f"{security or way.mirror}/{package.filename}"


def _not_fetched(said: str) -> ImageError:
    if "Hash Sum mismatch" in said or "unexpected size" in said:
        return Refused(f"the mirror has a package that is not the locked one: {last_words(said)}")
    if " 404 " in said:
        return ImageError(
            "the mirror no longer has a version that the lock names: run `kos-image lock` for today's packages, or set "
            f"{apt.MIRROR} to a mirror that keeps it. {last_words(said)}"
        )
    return ImageError(
        "not all packages could be fetched; what arrived is kept, and the next run goes on from there: "
        + last_words(said)
    )


def _prove(package: Package, path: Path) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != package.sha256:
        raise Refused(
            f"{path} was tampered with or is damaged: it is not the {package.name} {package.version} of the lock. "
            "Remove it and run again"
        )


def index(packages: Iterable[Package], folder: Path, where: str) -> str:
    """A repository's ``Packages``: what each file in `folder` says of itself, and what the lock says of the file.

    `where` is the folder's name as seen from the repository. Raises ImageError.
    """
    with ThreadPoolExecutor() as pool:
        return "\n".join(pool.map(lambda one: paragraph(one, folder, f"{where}/{one.file}") + "\n", packages))


def paragraph(package: Package, folder: Path, filename: str) -> str:
    """What a repository says of a package file in `folder`, which it calls `filename`. Raises ImageError."""
    own = run(["dpkg-deb", "--field", str(folder / package.file)])
    return f"{own}Filename: {filename}\nSize: {package.size}\nSHA256: {package.sha256}"
