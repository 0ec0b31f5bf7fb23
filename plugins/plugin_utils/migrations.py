# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which profile or mode may become which: the specification's migration graph, and paths in it."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from .documents import read_document
from .faults import ConfigurationError, Fault, Place, nearest, shown_path
from .layers import known_names
from .models import Strict, parse
from .profile import Mode


class Migrations(Strict):
    """The specification's graph of profiles."""

    profiles: dict[str, list[str]]


def graph(configs: Path) -> dict[str, list[str]]:
    """Every profile and mode with those it may become. Raises ConfigurationError."""
    document = read_document(configs / "migrations.yaml")
    edges = dict(parse(Migrations, document.data, document.place).profiles)
    for name, path in known_names(configs).items():
        if path.parent.name == "modes":
            mode = read_document(path)
            edges[name] = parse(Mode, mode.data, mode.place).migrates_to
    return edges


def path(configs: Path, source: str, target: str) -> list[str]:
    """The shortest way from `source` to `target`, both included.

    Raises ConfigurationError naming what `source` can become, where there is no way.
    """
    edges = graph(configs)
    for key, name in (("--from", source), ("--to", target)):
        if name not in edges:
            where = Place(shown_path(configs))
            raise ConfigurationError(
                [Fault(f"no profile or mode is called '{name}'", where, key, nearest(name, edges))]
            )
    ways = deque([[source]])
    seen = {source}
    while ways:
        way = ways.popleft()
        if way[-1] == target:
            return way
        for following in edges.get(way[-1], []):
            if following not in seen:
                seen.add(following)
                ways.append([*way, following])
    possible = ", ".join(sorted(seen - {source})) or "nothing else"
    fault = Fault(f"{source} does not become {target}", Place(shown_path(configs / "migrations.yaml")), "--to")
    raise ConfigurationError([Fault(fault.message, fault.place, fault.key, f"it can become: {possible}")])
