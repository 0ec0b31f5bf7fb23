# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""In which points one node is not what another is: pure, over what `composition` on each of them said."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..module_utils.node import merkle

Composition = Mapping[str, Any]
FORMAT = 1
# The rows of a manifest's lists have names; of these keys in this order.
_NAMED_BY = {
    "services": ("name",), "units": ("name",), "images": ("service",), "ports": ("service", "name"),
    "secrets": ("service", "name"), "volumes": ("path",), "alternatives": ("service",),
    "unavailable": ("capability", "requested"),
}  # fmt: skip
# What the manifest says of a service that a person would ask for; the rest of a row is one hash of it.
_TOLD = ("substrate", "tier", "user", "capabilities", "reasons")
_MANIFEST = "manifest.json"
# kOS's own code travels in each generation.
_CODE = "node/"
_LONGEST = 60


@dataclass(frozen=True)
class Difference:
    """One point: of what kind, which, and how it is on the one node and on the other."""

    kind: str
    name: str
    one: str
    other: str

    def as_dict(self) -> dict[str, str]:
        """The difference as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """Two nodes side by side.

    `differences` are of what kOS made of them: generation, drift, the packages that the generation names. `base` are
    the packages of the rest of the system, `machine` what two machines may differ in; neither makes them unequal.
    """

    one: str
    other: str
    generations: tuple[str, str]
    packages: tuple[int, int]
    differences: tuple[Difference, ...]
    base: tuple[Difference, ...]
    machine: tuple[Difference, ...]

    @property
    def equal(self) -> bool:
        """Whether kOS made the same of both."""
        return not self.differences

    def as_dict(self) -> dict[str, Any]:
        """The comparison as plain data."""
        rows = {key: [row.as_dict() for row in getattr(self, key)] for key in ("differences", "base", "machine")}
        generations = dict(zip((self.one, self.other), self.generations, strict=True))
        named, others = self.packages
        return {
            "one": self.one, "other": self.other, "equal": self.equal, "generations": generations,
            "packages": {"named": named, "base": others}, **rows,
        }  # fmt: skip


def compare(one: Composition, other: Composition, names: tuple[str, str] | None = None) -> Comparison:
    """`other` beside `one`; `names` are what to call them, by default what they call themselves."""
    called = names or (str(one["node"]), str(other["node"]))
    named = _packages_named(one) | _packages_named(other)
    everywhere = set(one["packages"]) | set(other["packages"])
    return Comparison(
        one=called[0],
        other=called[1],
        generations=(_id(one), _id(other)),
        packages=(len(named & everywhere), len(everywhere - named)),
        differences=(
            *_generations(one, other),
            *_drift(one, other),
            *_mapped("package", _only(one["packages"], named), _only(other["packages"], named)),
        ),
        base=tuple(_mapped("package", _without(one["packages"], named), _without(other["packages"], named))),
        machine=tuple(_mapped("machine", {"name": one["node"], **one["machine"]},
                              {"name": other["node"], **other["machine"]})),
    )  # fmt: skip


def _id(composition: Composition) -> str:
    generation = composition["generation"]
    return str(generation["id"]) if generation else ""


def _packages_named(composition: Composition) -> set[str]:
    return set(composition["generation"]["manifest"]["packages"]) if composition["generation"] else set()


def _only(rows: Mapping[str, str], names: set[str]) -> dict[str, str]:
    return {name: version for name, version in rows.items() if name in names}


def _without(rows: Mapping[str, str], names: set[str]) -> dict[str, str]:
    return {name: version for name, version in rows.items() if name not in names}


def _generations(one: Composition, other: Composition) -> Iterable[Difference]:
    """The id first, then what it comes from; and, for each, whether its disk still holds what was committed."""
    pair = one["generation"], other["generation"]
    for generation, at in zip(pair, (0, 1), strict=True):
        if generation and generation["committed"] not in (None, generation["id"]):
            said = f"{generation['id'][:12]} on its disk, committed as {generation['committed'][:12]}: it was altered"
            yield Difference("generation", "stored copy", *((said, "-") if at == 0 else ("-", said)))
    if not all(pair):
        if any(pair):
            yield Difference("generation", "id", *(row["id"][:12] if row else "none deployed" for row in pair))
        return
    if pair[0]["alternative"] != pair[1]["alternative"]:
        yield Difference("generation", "fallback in force", *(row["alternative"] or "none" for row in pair))
    if pair[0]["id"] == pair[1]["id"]:
        return
    yield Difference("generation", "id", pair[0]["id"][:12], pair[1]["id"][:12])
    manifests = pair[0]["manifest"], pair[1]["manifest"]
    services = [{row["name"] for row in manifest["services"]} for manifest in manifests]
    # What only one of them has brings its ports, files and units along: they are not told again.
    apart = services[0] ^ services[1]
    yield from _services(manifests[0]["services"], manifests[1]["services"])
    yield from _manifests(*manifests, apart)
    yield from _files(pair[0], pair[1], apart)


def _manifests(one: Mapping[str, Any], other: Mapping[str, Any], apart: set[str]) -> Iterable[Difference]:
    for key in sorted({*one, *other} - {"services", "files"}):
        if key in _NAMED_BY:
            yield from _mapped(key, *(_by_name(key, rows.get(key, []), apart) for rows in (one, other)))
        elif isinstance(one.get(key, []), list) and isinstance(other.get(key, []), list):
            yield from _mapped(key, *(dict.fromkeys(rows.get(key, []), "there") for rows in (one, other)))
        elif one.get(key) != other.get(key):
            yield Difference("generation", key, _shown(one.get(key)), _shown(other.get(key)))


def _by_name(key: str, rows: Iterable[Mapping[str, Any]], apart: Collection[str] = ()) -> dict[str, Any]:
    named = {}
    for row in rows:
        if row.get("service") in apart:
            continue
        name = " ".join(str(row[part]) for part in _NAMED_BY[key] if part in row)
        named[name] = {part: value for part, value in row.items() if part not in _NAMED_BY[key]}
    return named


def _services(one: Iterable[Mapping[str, Any]], other: Iterable[Mapping[str, Any]]) -> Iterable[Difference]:
    left, right = _by_name("services", one), _by_name("services", other)
    for name in sorted({*left, *right}):
        if name not in left or name not in right:
            yield Difference("service", name, *("there" if name in rows else "not there" for rows in (left, right)))
            continue
        told = [_only_told(rows[name]) for rows in (left, right)]
        yield from (
            Difference("service", f"{name}: {key}", _shown(told[0].get(key)), _shown(told[1].get(key)))
            for key in (*_TOLD, "how it is run")
            if told[0].get(key) != told[1].get(key)
        )


def _only_told(row: Mapping[str, Any]) -> dict[str, Any]:
    rest = json.dumps({key: value for key, value in row.items() if key not in _TOLD}, sort_keys=True)
    return {**{key: row.get(key) for key in _TOLD}, "how it is run": merkle.digest(rest.encode())[:12]}


def _files(one: Mapping[str, Any], other: Mapping[str, Any], apart: set[str]) -> Iterable[Difference]:
    """Files by their place on the node; the rest of the tree by its name in it; kOS's own code in one point."""
    pair = one, other
    code = [merkle.root(row for row in found["files"].items() if row[0].startswith(_CODE)) for found in pair]
    if code[0] != code[1]:
        yield Difference("generation", "kOS's own code", code[0][:12], code[1][:12])
    yield from _mapped("file", *(_placed(found, apart) for found in pair))
    both = {row["path"] for row in _rows(one, apart)} & {row["path"] for row in _rows(other, apart)}
    yield from _mapped("file", *(_applied(found, both) for found in pair))
    yield from _mapped("file", *(_unplaced(found) for found in pair))


def _placed(generation: Mapping[str, Any], apart: set[str]) -> dict[str, str]:
    """What lies at each path: mode, owner, and where it leads to or the digest of its content."""
    found = {}
    for row in _rows(generation, apart):
        content = generation["files"].get(row.get("source", ""), "")[:12]
        ends = f"-> {row['link']}" if row.get("link") else f"content {content}"
        found[row["path"]] = f"{row.get('mode')} {row.get('owner')}:{row.get('group')} {ends}"
    return found


def _applied(generation: Mapping[str, Any], paths: set[str]) -> dict[str, str]:
    """What else a generation says of these paths, such as the units that are to read them again."""
    told = {"path", "mode", "owner", "group", "link", "source"}
    return {
        f"{row['path']}: how it is applied": json.dumps({key: row[key] for key in sorted({*row} - told)})
        for row in generation["manifest"]["files"]
        if row["path"] in paths
    }


def _rows(generation: Mapping[str, Any], apart: set[str]) -> list[Mapping[str, Any]]:
    return [row for row in generation["manifest"]["files"] if row.get("service") not in apart]


def _unplaced(generation: Mapping[str, Any]) -> dict[str, str]:
    """The files of the tree that are laid nowhere as they are, such as what a fallback would need."""
    placed = {row.get("source") for row in generation["manifest"]["files"]}
    return {
        name: f"content {digest[:12]}"
        for name, digest in generation["files"].items()
        if name != _MANIFEST and name not in placed and not name.startswith(_CODE)
    }


def _drift(one: Composition, other: Composition) -> Iterable[Difference]:
    """What each node has become since it was deployed, where the other has not become the same."""
    found = [{(row["what"], row["problem"]) for row in composition["drift"]} for composition in (one, other)]
    for what, problem in sorted(found[0] ^ found[1]):
        there = (what, problem) in found[0]
        yield Difference("drift", what, *((problem, "-") if there else ("-", problem)))


def _mapped(kind: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterable[Difference]:
    for name in sorted({*one, *other}):
        if name not in one or name not in other or one[name] != other[name]:
            yield Difference(
                kind, name, *(_shown(rows[name]) if name in rows else "not there" for rows in (one, other))
            )


def _shown(value: Any) -> str:
    """A value in few words: what is long ends in an ellipsis and a hash, so that two of them stay apart."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_LONGEST]}… ({merkle.digest(text.encode())[:8]})"
