# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A unit manifest as the text of a systemd unit: the base sandbox, its exceptions, and the limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .catalogue import Catalogue
from .manifest import Service, UnitManifest

Directive = tuple[str, str]
# 1, 2, 4, 8, 15, 30 seconds: never so fast that systemd gives up.
BACK_OFF: tuple[Directive, ...] = (("RestartSec", "1"), ("RestartSteps", "5"), ("RestartMaxDelaySec", "30"))
# Where the service `certificates` keeps what the node's authority issued.
ISSUED = "/var/lib/kos-certificates"


def unit_text(unit: UnitManifest, service: Service, catalogue: Catalogue) -> str:
    """The file of `unit`; pure."""
    sections: dict[str, list[Directive]] = {
        "Unit": list(unit_section(unit, service, catalogue)),
    }
    if unit.exec is not None:
        service_section = _service_section(unit, unit.exec, service)
        sections["Service"] = [*service_section, *limits(unit, service), *_sandbox(unit, catalogue)]
    if unit.starts != "demand":
        sections["Install"] = [("WantedBy", wanted_by(unit))]
    for section, directives in unit.extra.items():
        for name, value in directives.items():
            values = value if isinstance(value, list) else [str(value)]
            # A directive that `extra` names replaces ours; repeated ones are written as a list.
            sections.setdefault(section, [])
            sections[section] = [pair for pair in sections[section] if pair[0] != name]
            sections[section] += [(name, item) for item in values]
    return text_of(sections)


def text_of(sections: Mapping[str, Sequence[Directive]]) -> str:
    """`sections` as systemd writes a file."""
    blocks = [
        "\n".join([f"[{section}]", *(f"{name}={value}" for name, value in pairs)])
        for section, pairs in sections.items()
    ]
    return "\n\n".join(blocks) + "\n"


def credential_directives(unit: UnitManifest, service: Service) -> Iterator[Directive]:
    """What systemd decrypts or copies for the unit, readable by nobody else."""
    for credential in unit.credentials:
        yield "LoadCredentialEncrypted", f"{credential}:{credential_path(unit.name, credential)}"
    for certificate in service.certificates:
        if unit.name in certificate.units:
            own, authority = ("peers", "peers-ca") if certificate.peers else ("tls", "ca")
            yield "LoadCredential", f"{authority}.crt:{ISSUED}/{authority}.crt"
            yield "LoadCredential", f"{own}.crt:{ISSUED}/{certificate.name}.crt"
            yield "LoadCredential", f"{own}.key:{ISSUED}/{certificate.name}.key"


def unit_section(unit: UnitManifest, service: Service, catalogue: Catalogue) -> Iterator[Directive]:
    """What the unit is, and after what it starts."""
    yield "Description", f"kOS {service.summary}"
    yield "Documentation", service.source
    needed = [
        other.name for name in service.requires for other in catalogue.services[name].units if other.starts == "now"
    ]
    needed += unit.after
    yield "After", " ".join(["network.target", *needed])
    if needed:
        yield "Wants", " ".join(needed)


def _service_section(unit: UnitManifest, command: str, service: Service) -> Iterator[Directive]:
    yield "Type", unit.type
    user = unit.user or service.user
    if user and user != "root":
        yield "User", user
        yield "Group", user
    for line in unit.exec_start_pre:
        yield "ExecStartPre", line
    yield "ExecStart", command
    for line in unit.exec_start_post:
        yield "ExecStartPost", line
    if unit.exec_reload:
        yield "ExecReload", unit.exec_reload
    if unit.exec_stop:
        yield "ExecStop", unit.exec_stop
    yield from _lifetime(unit)
    for name, value in unit.environment.items():
        yield "Environment", f'"{name}={value}"'
    yield from credential_directives(unit, service)


def _lifetime(unit: UnitManifest) -> Iterator[Directive]:
    if unit.type == "oneshot":
        yield "RemainAfterExit", "yes"
    else:
        yield "Restart", "on-failure"
        yield from BACK_OFF
    if unit.state_directory:
        yield "StateDirectory", unit.state_directory
        yield "StateDirectoryMode", "0700"
    if unit.runtime_directory:
        yield "RuntimeDirectory", unit.runtime_directory


def wanted_by(unit: UnitManifest) -> str:
    """The target that starts `unit` at boot."""
    usual = {"timer": "timers.target", "path": "paths.target"}.get(unit.name.rpartition(".")[2], "multi-user.target")
    return str(unit.extra.get("Install", {}).get("WantedBy", usual))


def credential_path(unit: str, name: str) -> str:
    """Where the sealed file `name` of the systemd unit `unit` lies on the node."""
    return f"/etc/credstore.encrypted/{unit.rpartition('.')[0]}.{name}"


def limits(unit: UnitManifest, service: Service) -> Iterator[Directive]:
    """The most that the unit may take of the machine."""
    if unit.type == "oneshot":
        return
    resources = unit.resources or service.resources
    if resources.memory.max:
        yield "MemoryMax", resources.memory.max
    if resources.cpu.max:
        yield "CPUQuota", resources.cpu.max
    if resources.tasks_max:
        yield "TasksMax", str(resources.tasks_max)


def _sandbox(unit: UnitManifest, catalogue: Catalogue) -> Iterator[Directive]:
    exceptions = {exception.directive: exception.value for exception in unit.sandbox}
    if "*" in exceptions:
        return
    for name, value in catalogue.sandbox.items():
        if name in exceptions:
            continue
        yield from _lines(name, value)
    for name, replaced in exceptions.items():
        if replaced is not None:
            yield from _lines(name, replaced)


def _lines(name: str, value: str | list[str]) -> Iterator[Directive]:
    for item in value if isinstance(value, list) else [value]:
        yield name, item
