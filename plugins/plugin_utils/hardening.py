# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of hardening as data, and the service that those of a level make; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .asks import leaves, plain
from .documents import KeyPath, read_document
from .faults import Fault, Place, nearest
from .manifest import Daemon, DebSubstrate, FileManifest, MachineSetting, Service
from .models import Strict, parse
from .profile import HardeningLevel

SERVICE = "hardening"
RULES = f"{SERVICE}/rules.yaml"
_SSHD = "sshd"
_HEAD = "# Made by kOS, rule by rule: docs/hardening.md. Switch a rule off with security.hardening.off.\n"


class RuleFile(Strict):
    """A file of a rule's own."""

    path: Annotated[str, Field(pattern=r"^/")]
    text: str
    mode: Annotated[str, Field(pattern=r"^0[0-7]{3}$")] = "0644"
    daemon: str | None = Field(default=None, description="which of `daemons` reads it")


class RuleDaemon(Strict):
    """How a program that runs is told that its files changed; with `unit`, only while that is active."""

    unit: str | None = None
    tell: list[str]


class Rule(Strict):
    """One thing that hardening does, in one sentence; whatever it sets belongs to it alone or is merged by key."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z-]*$")]
    level: Literal["baseline", "strict"]
    title: str
    cis: list[str] = []
    may_break: str | None = None
    needs: Literal["kernel"] | None = Field(default=None, description="what the machine must have for it")
    sysctl: dict[str, int] = {}
    sshd: dict[str, str | int] = {}
    modules: Annotated[list[str], Field(description="kernel modules that cannot be loaded")] = []
    modes: Annotated[dict[str, str], Field(description="of files and directories that are Debian's own")] = {}
    packages: list[str] = []
    unless: Annotated[dict[str, str], Field(description="package -> another, or a virtual one, that suffices")] = {}
    masks: Annotated[list[str], Field(description="systemd units of `packages` that do not start")] = []
    files: list[RuleFile] = []


class LeftOut(Strict):
    """What no rule does although somebody asks for it."""

    what: str
    why: str
    cis: list[str] = []
    scanner: list[str] = []


class Rules(Strict):
    """The rules, in the order in which they are merged; `asked_by`: setting -> values that ask for level baseline."""

    asked_by: dict[str, list[str]] = {}
    daemons: dict[str, RuleDaemon] = {}
    rules: list[Rule] = []
    left_out: list[LeftOut] = []

    @model_validator(mode="after")
    def _consistent(self) -> Rules:
        ids = [rule.id for rule in self.rules]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"two rules are called {', '.join(twice)}")
        daemons = {file.daemon for rule in self.rules for file in rule.files if file.daemon}
        daemons |= {_SSHD for rule in self.rules if rule.sshd}
        if strange := sorted(daemons - {*self.daemons}):
            raise ValueError(f"nothing says how to tell {', '.join(strange)}")
        return self

    def of(self, level: HardeningLevel, off: Iterable[str] = ()) -> list[Rule]:
        """Those of `level` that are not switched `off`."""
        wanted = {"none": (), "baseline": ("baseline",), "strict": ("baseline", "strict")}[level]
        return [rule for rule in self.rules if rule.level in wanted and rule.id not in off]


NO_RULES = Rules()


def load_rules(folder: Path) -> Rules:
    """The rules of a services folder; none where it has none. Raises ConfigurationError."""
    path = folder / RULES
    if not path.is_file():
        return NO_RULES
    document = read_document(path)
    return parse(Rules, document.data, document.place)


def level_of(rules: Rules, settings: Mapping[str, Any]) -> tuple[HardeningLevel, str]:
    """The level that `settings` ask for, and the key that does; what is said by name wins."""
    said = _said(settings).get("level")
    if said:
        return said, "security.hardening.level"
    for path, value in leaves(dict(settings)):
        key = ".".join(path)
        values = [plain(item) for item in (value if isinstance(value, list) else [value])]
        if set(values) & set(rules.asked_by.get(key, [])):
            return "baseline", key
    return "none", ""


def faults(rules: Rules, settings: Mapping[str, Any], place: Callable[[KeyPath], Place | None]) -> list[Fault]:
    """Rules that `settings` switch off and that do not exist."""
    known = [rule.id for rule in rules.rules]
    key = ("security", "hardening", "off")
    return [
        Fault(f"no rule of hardening is called '{name}'", place((*key, index)), ".".join(key), nearest(name, known))
        for index, name in enumerate(_said(settings).get("off") or [])
        if name not in known
    ]


def hardened(service: Service, rules: Rules, settings: Mapping[str, Any]) -> Service:
    """`service` with everything that the rules of the settings' level make: files, packages, settings, daemons."""
    level, _key = level_of(rules, settings)
    active = rules.of(level, _said(settings).get("off") or [])
    made = [*_merged_files(active), *(_file(file) for rule in active for file in rule.files)]
    read = {name for file in made for name in file.units or []}
    packages = sorted({name for rule in active for name in rule.packages})
    unless = {name: other for rule in active for name, other in rule.unless.items()}
    masks = [name for rule in active for name in rule.masks]
    deb = DebSubstrate(packages=packages, unless=unless, masks=masks)
    return service.model_copy(
        update={
            "substrates": service.substrates.model_copy(update={"deb": deb}),
            "files": made,
            "settings": list(_settings(active)),
            "daemons": [
                Daemon(name=name, unit=row.unit, tell=row.tell) for name, row in rules.daemons.items() if name in read
            ],
        }
    )


def _said(settings: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = settings.get("security", {}).get("hardening") or {}
    return found


def _settings(active: Iterable[Rule]) -> Iterable[MachineSetting]:
    sysctls = {name: str(value) for rule in active for name, value in rule.sysctl.items()}
    modes = {path: mode for rule in active for path, mode in rule.modes.items()}
    for name, value in sysctls.items():
        yield MachineSetting(kind="sysctl", name=name, value=value)
    for path, mode in modes.items():
        yield MachineSetting(kind="mode", name=path, value=mode)


def _merged_files(active: list[Rule]) -> Iterable[FileManifest]:
    """The files that several rules write lines of."""
    sysctls = [
        (rule.id, [f"{name} = {value}" for key, value in rule.sysctl.items() for name in _by_name(key)])
        for rule in active
    ]
    if any(lines for _name, lines in sysctls):
        # After Debian's own 50-default.conf and whatever else is numbered lower.
        yield FileManifest(path="/etc/sysctl.d/95-kos-hardening.conf", text=_lines(sysctls))
    modules = [
        (rule.id, [line for name in rule.modules for line in (f"install {name} /bin/false", f"blacklist {name}")])
        for rule in active
    ]
    if any(lines for _name, lines in modules):
        yield FileManifest(path="/etc/modprobe.d/kos-hardening.conf", text=_lines(modules))
    last = {key: rule.id for rule in active for key in rule.sshd}
    sshd = [
        (rule.id, [f"{key} {value}" for key, value in rule.sshd.items() if last[key] == rule.id]) for rule in active
    ]
    if last:
        # sshd keeps the first value that it reads.
        path = "/etc/ssh/sshd_config.d/01-kos-hardening.conf"
        yield FileManifest(path=path, text=_lines(sshd), mode="0600", units=[_SSHD])


def _by_name(key: str) -> list[str]:
    """A pattern for every network interface, and before it what those that are not there yet will take."""
    return [*(key.replace("*", name) for name in ("all", "default") if "*" in key), key]


def _lines(rules: Iterable[tuple[str, list[str]]]) -> str:
    return _HEAD + "".join(f"\n# {name}\n" + "".join(f"{line}\n" for line in lines) for name, lines in rules if lines)


def _file(file: RuleFile) -> FileManifest:
    return FileManifest(path=file.path, text=file.text, mode=file.mode, units=[file.daemon] if file.daemon else [])
