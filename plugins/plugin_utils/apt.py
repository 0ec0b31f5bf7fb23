# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where packages come from: what this machine's apt says, or what KOS_APT_MIRROR says. Never a name in the code."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MIRROR = "KOS_APT_MIRROR"
SECURITY_MIRROR = "KOS_APT_SECURITY_MIRROR"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# Which indexes apt fetches is a matter of the programs installed here, not of the way to the mirror.
_OF_ITS_OWN = ("Acquire::IndexTargets", "Acquire::Changelogs", "Acquire::CompressionTypes")
# Whoever takes less than what Debian signed does so on this machine alone. How old an index may be is inherited: a
# mirror that keeps all versions has old ones, and apt's configuration says so.
_CARELESS = (
    "Acquire::AllowDowngradeToInsecureRepositories",
    "Acquire::AllowInsecureRepositories",
    "Acquire::AllowWeakRepositories",
    "Acquire::gpgv",
)
_NOT_INHERITED = tuple(key.lower() for key in (*_OF_ITS_OWN, *_CARELESS))
_DEFAULTS = 'Dir::Etc::main "/dev/null";\nDir::Etc::parts "/dev/null";\n'
_OPTION = re.compile(r'(?P<key>[^\s"]+) "(?P<value>.*)";')
_SUITE_ALIASES = ("stable", "oldstable", "oldoldstable", "testing", "unstable", "sid")
_REACHABLE = ("http://", "https://")
PROXIES = {"http_proxy": "Acquire::http::Proxy", "https_proxy": "Acquire::https::Proxy"}


class NoMirror(Exception):
    """This machine's apt names no Debian mirror, or there is no apt; the text is a sentence with the way out."""


@dataclass(frozen=True)
class AptConfiguration:
    """The way to the packages. `options` are lines of apt.conf; `files` are paths that they name."""

    mirror: str
    security_mirror: str | None
    options: tuple[str, ...]
    files: tuple[str, ...] = ()

    def sources(self, suite: str, components: Sequence[str] = ("main",)) -> str:
        """The content of debian.sources for `suite`."""
        archives = [(self.mirror, f"{suite} {suite}-updates")]
        if self.security_mirror:
            archives.append((self.security_mirror, f"{suite}-security"))
        return "\n".join(
            f"Types: deb\nURIs: {uri}\nSuites: {suites}\nComponents: {' '.join(components)}\nSigned-By: {KEYRING}\n"
            for uri, suites in archives
        )


def inherit(environment: Mapping[str, str] | None = None) -> AptConfiguration:
    """This machine's way to Debian packages. Raises NoMirror where it has none."""
    environ = os.environ if environment is None else environment
    mirror, security = mirrors(_run(["apt-get", "indextargets"]))
    given = environ.get(MIRROR)
    if not (given or mirror):
        raise NoMirror(f"this machine's apt names no Debian mirror on the network; set {MIRROR} to one")
    options = (*option_lines(_dump(), _dump(_DEFAULTS)), *proxy_lines(environ))
    return AptConfiguration(
        mirror=(given or str(mirror)).rstrip("/"),
        security_mirror=environ.get(SECURITY_MIRROR) or security,
        options=options,
        files=tuple(path for path in named_files(options) if Path(path).is_file()),
    )


def mirrors(targets: str) -> tuple[str | None, str | None]:
    """The archive and its security archive in the output of `apt-get indextargets`, or None where it names none.

    Third parties use Debian's suite names too, so what apt knows as Debian's own comes first, then what Debian's own
    sources file lists.
    """
    release = _codename()
    archive: list[tuple[int, str]] = []
    security: list[tuple[int, str]] = []
    for target in _stanzas(targets):
        uri, suite = target.get("Repo-URI", "").rstrip("/"), target.get("Release", "")
        if target.get("Created-By") != "Packages" or not uri.startswith(_REACHABLE):
            continue
        if suite.split("/")[0].endswith("-security") or suite.endswith("/updates"):
            security.append((_strangeness(target), uri))
        elif suite in (release, *_SUITE_ALIASES) and target.get("Component") == "main":
            archive.append((_strangeness(target), uri))
    return _best(archive), _best(security)


def _best(candidates: list[tuple[int, str]]) -> str | None:
    return min(candidates, key=lambda candidate: candidate[0])[1] if candidates else None


def _strangeness(target: Mapping[str, str]) -> int:
    if "Origin" in target:
        return 0 if target["Origin"] == "Debian" else 3
    own = ("debian.sources", "sources.list")
    return 1 if Path(target.get("Sourcesentry", "").rsplit(":", 1)[0]).name in own else 2


def _stanzas(text: str) -> Iterable[dict[str, str]]:
    for block in text.split("\n\n"):
        pairs = (line.partition(": ") for line in block.splitlines())
        stanza = {key: value for key, _colon, value in pairs if value}
        if stanza:
            yield stanza


def _codename() -> str:
    found = re.search(r"^VERSION_CODENAME=\"?(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    return found[1] if found else ""


def _dump(configuration: str = "") -> str:
    if not configuration:
        return _run(["apt-config", "dump", "Acquire"])
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(configuration)
        file.flush()
        return _run(["apt-config", "dump", "Acquire"], {"APT_CONFIG": file.name})


def _run(argv: list[str], environ: Mapping[str, str] | None = None) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=True, env={**os.environ, **(environ or {})})
    except FileNotFoundError as error:
        raise NoMirror(f"there is no `{argv[0]}` here: Debian packages come by way of apt") from error
    except subprocess.CalledProcessError as error:
        raise NoMirror(f"`{' '.join(argv)}` failed: {error.stderr.strip()}") from error
    return done.stdout


def option_lines(configured: str, defaults: str) -> tuple[str, ...]:
    """What somebody has set: one output of `apt-config dump` without what stands in the other.

    Lists are taken whole, as one of them replaces another.
    """
    known = _by_key(defaults)
    lines: list[str] = []
    for key, values in _by_key(configured).items():
        if values == known.get(key) or key.lower().startswith(_NOT_INHERITED):  # apt's keys know no case
            continue
        if key.endswith("::"):
            lines.append(f"#clear {key.removesuffix('::')};")
        lines += [f'{key} "{value}";' for value in values if value]
    return tuple(lines)


def _by_key(dump: str) -> dict[str, list[str]]:
    options: dict[str, list[str]] = {}
    for match in filter(None, map(_OPTION.fullmatch, dump.splitlines())):
        options.setdefault(match["key"], []).append(match["value"])
    return options


def proxy_lines(environ: Mapping[str, str]) -> tuple[str, ...]:
    """The proxies of the environment, which apt obeys here and a node would not see."""
    return tuple(f'{key} "{environ[name]}";' for name, key in PROXIES.items() if environ.get(name))


def named_files(options: Iterable[str]) -> list[str]:
    """The absolute paths among the values: certificates of a mirror and the like, which a node needs as well."""
    values = [match["value"] for match in map(_OPTION.fullmatch, options) if match]
    return sorted({value for value in values if value.startswith("/")})
