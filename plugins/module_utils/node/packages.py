# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which of the packages that kOS installed nothing needs any more, and how they go without a trace."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from . import files, system
from .files import Root

_FORMAT = "${db:Status-Status}\\t${Package}\\t${Provides}\\t${Pre-Depends}, ${Depends}\\n"
_ABSENT = ("not-installed", "config-files")
# What Debian's removal scripts delete without asking, and where kOS itself never puts anything.
_DATA = {
    "postgresql-17": "/etc/postgresql/17",  # a directory for each cluster; its data goes with it
    "prometheus": "/var/lib/prometheus",
    "valkey-server": "/var/lib/valkey",
}


@dataclass(frozen=True)
class Package:
    """A row of dpkg's database: its state, what it stands in for, and the alternatives of each dependency."""

    name: str
    status: str
    provides: frozenset[str]
    depends: tuple[frozenset[str], ...]


def table(root: Root) -> dict[str, Package]:
    """Every package that dpkg knows, by name; one read of its database."""
    if not os.path.exists(root.join("/var/lib/dpkg/status")):
        return {}
    argv = ["dpkg-query", f"--admindir={root.join('/var/lib/dpkg')}", "-W", "-f", _FORMAT]
    rows = (line.split("\t") for line in system.run(argv).stdout.decode().splitlines())
    return {row[1]: _package(*row) for row in rows}


def stood_in_for(known: Mapping[str, Package], other: str | None) -> bool:
    """Whether `other` (None: nothing), or a package that provides it, is installed."""
    return other is not None and any(
        package.status == "installed" and other in (name, *package.provides) for name, package in known.items()
    )


def marked_manual(root: Root, names: Collection[str]) -> set[str]:
    """Those of `names` that somebody has asked apt for by name: not marked as automatically installed."""
    text = (files.read(root.join("/var/lib/apt/extended_states")) or b"").decode()
    blocks = (dict(line.partition(": ")[::2] for line in block.splitlines()) for block in text.split("\n\n"))
    automatic = {block["Package"] for block in blocks if block.get("Auto-Installed") == "1" and "Package" in block}
    return set(names) - automatic


def no_longer_needed(known: Mapping[str, Package], ours: Collection[str], wanted: Collection[str]) -> set[str]:
    """The packages of `ours` that are neither `wanted` nor needed by any that stays.

    Versions are not looked at: before anything goes, apt is asked whether something else would go along.
    """
    present = {name: package for name, package in known.items() if package.status != "not-installed"}
    providers: dict[str, set[str]] = {}
    for name, package in present.items():
        if package.status not in _ABSENT:
            for provided in (name, *package.provides):
                providers.setdefault(provided, set()).add(name)
    gone = (set(ours) & set(present)) - set(wanted)
    staying = sorted(name for name in present if name not in gone)
    while staying:
        for alternatives in present[staying.pop()].depends:
            able = set().union(*(providers.get(name, set()) for name in alternatives))
            if able and able <= gone:
                gone -= able
                staying += sorted(able)
    return gone


def with_data(root: Root, names: Collection[str]) -> dict[str, str]:
    """Those of `names` in whose own directory of Debian's (the value) somebody keeps data that is not kOS's."""
    return {name: _DATA[name] for name in sorted(names) if name in _DATA and _holds_files(root.join(_DATA[name]))}


def purge(root: Root, names: Collection[str], configured: Collection[str], made: Collection[str]) -> None:
    """Remove `names` with their configuration, but for the `configured`, which keep theirs.

    What their scripts delete in /etc beyond the paths that installing them `made` comes back. Safe to repeat
    after a crash. Raises CommandFailed.
    """
    _put_back(root)
    if names:
        _clear(root, set(names) - set(configured), made)
        _keep(root, set(made))
        system.remove_packages(root, names, configured)
        _put_back(root)


def paths_in_etc(root: Root) -> list[str]:
    """Every file and link below /etc."""
    found = []
    for folder, folders, names in os.walk(root.join("/etc")):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        found += ["/" + os.path.relpath(os.path.join(folder, name), root.path) for name in [*names, *links]]
    return sorted(found)


def _clear(root: Root, going: Collection[str], made: Collection[str]) -> None:
    """Delete what the installation scripts of `going` put into folders of those packages, and would leave there."""
    lists = _lists(root)
    theirs = set().union(*(lists.get(name, set()) for name in going))
    others = set().union(*(paths for name, paths in lists.items() if name not in going))
    for path in made:
        if os.path.dirname(path) in theirs - others and path not in theirs | others:
            files.remove(root.join(path))


def _lists(root: Root) -> dict[str, set[str]]:
    """The paths below /etc that each installed package brought itself, by its name."""
    folder = root.join("/var/lib/dpkg/info")
    found: dict[str, set[str]] = {}
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        if name.endswith(".list"):
            lines = (files.read(os.path.join(folder, name)) or b"").decode().splitlines()
            package = name.removesuffix(".list").partition(":")[0]
            found.setdefault(package, set()).update(line for line in lines if line.startswith("/etc/"))
    return found


def _holds_files(top: str) -> bool:
    return any(names for _folder, _folders, names in os.walk(top))


def _keep(root: Root, made: set[str]) -> None:
    path = _archive(root)
    files.remove(f"{path}.new")
    # /etc/shadow is in it: it is never readable by others, not even while it is written.
    descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as stream, tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in paths_in_etc(root):
            if name not in made:
                tar.add(root.join(name), name.lstrip("/"), recursive=False)
    os.sync()
    os.rename(f"{path}.new", path)


def _put_back(root: Root) -> None:
    path = _archive(root)
    if not os.path.exists(path):
        return
    with tarfile.open(path) as tar:
        for member in tar:
            if not os.path.lexists(root.join(f"/{member.name}")):
                tar.extract(member, root.path, numeric_owner=True, filter="fully_trusted")
    files.remove(path)


def _archive(root: Root) -> str:
    return root.state("etc-before-purge.tar")


def _package(status: str, name: str, provides: str, depends: str) -> Package:
    clauses = (frozenset(_names(clause.split("|"))) for clause in depends.split(","))
    return Package(name, status, frozenset(_names(provides.split(","))), tuple(clause for clause in clauses if clause))


def _names(items: list[str]) -> Iterator[str]:
    for item in items:
        name = item.strip().partition(" ")[0].partition(":")[0]
        if name:
            yield name
