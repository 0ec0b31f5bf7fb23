# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian packages with all that they depend on, as apt resolves them from indexes that Debian signed.

They are resolved against an empty system: the machine that gets them may have any of them, or none, in any version.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from . import apt

SUITE = "trixie"
_APT_GET = ["apt-get", "-qq", "-y"]
# apt's own words for "nothing": without them it would read this machine's.
_APART = """
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::sourcelist "{folder}/debian.sources";
Dir::State "{folder}";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}";
APT::Architecture "{architecture}";
#clear APT::Architectures;
APT::Architectures {{ "{architecture}"; }};
APT::Install-Recommends "false";
APT::Sandbox::User "";
"""
_STANZA_END = re.compile(r"\n{2,}")

Run = Callable[[Sequence[str], Mapping[str, str]], str]


class IndexBroken(Exception):
    """An index does not say what it must; the text is a sentence."""


@dataclass(frozen=True)
class Apart:
    """An apt that reads and writes in `folder` alone. `run` gives the output of a program."""

    folder: Path
    way: apt.AptConfiguration
    environ: Mapping[str, str]
    run: Run

    def get(self, *arguments: str) -> str:
        """The output of apt-get; whatever `run` raises."""
        return self.run([*_APT_GET, *arguments], self.environ)


def apart(folder: Path, architecture: str, run: Run, components: Sequence[str] = ("main",)) -> Apart:
    """An apt for `folder`, which goes the way of this machine's. Raises NoMirror."""
    way = apt.inherit()
    for name in ("lists/partial", "archives/partial", "none/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").write_text("")
    (folder / "debian.sources").write_text(way.sources(SUITE, components))
    lines = [*way.options, _APART.format(folder=folder, architecture=architecture)]
    (folder / "apt.conf").write_text("\n".join(lines))
    environ = {**os.environ, "LC_ALL": "C.UTF-8", "APT_CONFIG": str(folder / "apt.conf")}
    return Apart(folder, way, environ, run)


def resolve(by: Apart, together: Sequence[Collection[str]]) -> list[list[str]]:
    """For each set that one machine installs, the paragraphs of Debian's index: of its packages and of all they need.

    Raises IndexBroken, and whatever the apt's `run` raises.
    """
    # As if nothing had been fetched, so that everything is named.
    elsewhere = ["-o", f"Dir::Cache::archives={by.folder}/none", "--print-uris", "install"]
    named = [list(_named(by.get(*elsewhere, *sorted(packages)))) for packages in together]
    every = dict.fromkeys(row for rows in named for row in rows)
    if not every:
        return [[] for _rows in named]
    shown = by.run(["apt-cache", "show", *(f"{name}={version}" for name, version in every)], by.environ)
    found = {(field(text, "Package"), field(text, "Version")): text for text in _paragraphs(shown)}
    return [[found[row] for row in rows] for rows in named]


def field(paragraph: str, key: str) -> str:
    """The first line of a field. Raises IndexBroken where there is none."""
    match = re.search(rf"^{key}: (.*)$", paragraph, re.MULTILINE)
    if match is None:
        raise IndexBroken(f"apt's index names no {key} in: {paragraph[:60]}")
    return match[1]


def _named(uris: str) -> Iterator[tuple[str, str]]:
    """Name and version of each package file of `apt-get --print-uris`."""
    for line in uris.splitlines():
        name, version, _architecture = line.split(" ")[1].rsplit("_", 2)
        yield name, unquote(version)


def _paragraphs(text: str) -> list[str]:
    return [part.strip("\n") for part in _STANZA_END.split(text) if part.strip()]
