# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan's services as containers of a platform that is no kOS node: what each is, and which cannot be one. Pure.

On a node every service finds the others on loopback. Elsewhere each has an address of its own, so that the platform
can keep apart what need not meet; one namespace for all would undo that. So a manifest says ``@kos:peer:NAME@`` for a
peer and ``@kos:listen@`` for where it listens, which are 127.0.0.1 on a node, and names and 0.0.0.0 here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from .containers import RUNTIME, as_container, folders
from .hardware import Facts
from .images import BUILT
from .manifest import ContainerSubstrate, PortManifest, Service
from .resolver import Plan, megabytes
from .substrates import image_obstacle

# Whoever runs a container that needs no user of its own; the number that images without a shell use, too.
NOBODY = 65532
_TOKEN = re.compile(r"@kos:([a-z][a-z0-9_:.%-]*)@")
_KNOWN = ("secret:", "peer:", "memory:", "cpus", "listen")
# As an address: a list of origins may name localhost and mean a browser.
_LOOPBACK = re.compile(r"127\.0\.0\.1|//localhost|localhost:[0-9]|\[::1\]")


@dataclass(frozen=True)
class Workload:
    """One service as a container: what it runs, what it mounts, and whom it may connect to.

    `files` are texts by the path inside; `secrets` are the templates of its sealed files, whose values nobody has put
    in, and `credentials` is where it looks for them; `data` are directories that outlive it, by name; `peers` are the
    ports it may connect to, by service.
    """

    service: Service
    container: ContainerSubstrate
    image: str
    files: Mapping[str, str]
    secrets: Mapping[str, str]
    data: Mapping[str, str]
    peers: Mapping[str, tuple[int, ...]]
    memory_mb: int | None
    cpus: float | None
    gpu: bool

    @property
    def name(self) -> str:
        """Its name on the platform, and its host name there."""
        return platform_name(self.service.name)

    @property
    def ports(self) -> list[PortManifest]:
        """Its ports with a number."""
        return [port for port in self.service.ports if isinstance(port.port, int)]

    @property
    def needs_root(self) -> bool:
        """Whether it keeps Linux capabilities, which a user other than root would lose."""
        return bool(self.container.linux_capabilities)

    def command(self) -> list[str]:
        """Its arguments, with peers by the names that they have on the platform."""
        return [_named(word) for word in self.container.command]

    def environment(self) -> dict[str, str]:
        """Its environment, with peers by the names that they have on the platform."""
        found = {key: _named(value) for key, value in self.container.environment.items()}
        return {**found, "CREDENTIALS_DIRECTORY": self.credentials} if self.mounted_secrets else found

    @property
    def credentials(self) -> str:
        """Where its sealed files are: the place that systemd gives them on a node, which its own files may name."""
        return f"/run/credentials/{self.service.units[0].name}"

    @property
    def mounted_secrets(self) -> list[str]:
        """The sealed files that it finds in `credentials`, and in /run/secrets, where images look."""
        return [name for name in self.secrets if name != self.container.environment_secret]


@dataclass(frozen=True)
class LeftOut:
    """A planned service that the platform does not get, and why."""

    service: str
    why: str


class _Dumper(yaml.SafeDumper):
    """Writes each value where it is used, and text of several lines as such."""

    def ignore_aliases(self, _data: Any) -> bool:
        """Always: nothing refers to another place."""
        return True


def _lines(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _lines)


def yaml_text(data: dict[str, Any]) -> str:
    """`data` as YAML that a person reads."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def platform_name(service: str) -> str:
    """A name that compose, Kubernetes and the DNS take."""
    return service.replace("_", "-")


def workloads(
    plan: Plan, files: Mapping[str, bytes], facts: Facts, registry: str = ""
) -> tuple[list[Workload], list[LeftOut]]:
    """Every service of `plan` that can be a container on a machine with `facts`, and the others with the reason.

    `files` are those of the plan's generation. `registry` is where images that kOS built were pushed to.
    """
    candidates = {row.name: _container_form(row.manifest) for row in plan.services}
    why = {name: _obstacle(form, plan, files) for name, form in candidates.items()}
    left = {name: reason for name, reason in why.items() if reason}
    # What needs one that is left out is left out too, however long the chain.
    while more := _without_peers(candidates, left):
        left |= more
    staying = {name: form for name, form in candidates.items() if name not in left}
    made = [_workload(form, plan, files, facts, staying, registry) for form in staying.values()]
    return made, [LeftOut(name, left[name]) for name in candidates if name in left]


def _container_form(manifest: Service) -> Service:
    if manifest.substrates.container is None:
        return manifest
    form = as_container(manifest)
    return form.model_copy(update={"requires": [name for name in form.requires if name != RUNTIME]})


def _obstacle(form: Service, plan: Plan, files: Mapping[str, bytes]) -> str:
    if form.substrates.container is None or form.image is None:
        return "it is part of a node: its manifest names no container image"
    unresolved = image_obstacle(form.image, plan.kind, plan.catalogue.images[form.image])
    if unresolved:
        return unresolved
    if form.certificates:
        return "its certificates are issued by a node's own authority"
    for text in [*_files(form, files).values(), *_secrets(form, files).values()]:
        unknown = [name for name in _TOKEN.findall(text) if not name.startswith(_KNOWN)]
        if unknown:
            return f"its files ask for what only a node knows (@kos:{unknown[0]}@)"
    for text in [*_files(form, files).values(), *form.substrates.container.command]:
        if match := _LOOPBACK.search(text):
            return f"its manifest says {match[0]}, where only a node's services meet, and not @kos:listen@ or a peer"
    return ""


def _without_peers(candidates: Mapping[str, Service], left: Mapping[str, str]) -> dict[str, str]:
    return {
        name: f"it needs {needed} ({left[needed]})"
        for name, form in candidates.items()
        for needed in form.requires
        if name not in left and needed in left
    }


def _workload(
    form: Service,
    plan: Plan,
    files: Mapping[str, bytes],
    facts: Facts,
    staying: Mapping[str, Service],
    registry: str,
) -> Workload:
    container = form.substrates.container
    if container is None or form.image is None:
        raise KeyError(form.name)
    reference = plan.catalogue.images[form.image].reference(plan.kind.architecture)
    if registry and reference.startswith(f"{BUILT}/"):
        reference = registry.rstrip("/") + reference.removeprefix(BUILT)
    cpu = form.resources.cpu.max or ""
    return Workload(
        service=form,
        container=container,
        image=reference,
        files={path: _filled(text, facts) for path, text in _files(form, files).items()},
        secrets={name: _filled(text, facts) for name, text in _secrets(form, files).items()},
        data={_data_name(form, outside): inside for outside, inside in folders(form).items()},
        peers=_peers(form, container, staying),
        memory_mb=_share(form.resources.memory.max, facts.memory_mb),
        cpus=float(cpu.rstrip("%")) / 100 if cpu.endswith("%") else None,
        gpu=plan.kind.gpu and ("gpu" in form.needs or "gpu" in form.affinity),
    )


def _files(form: Service, files: Mapping[str, bytes]) -> dict[str, str]:
    """What its container finds in /etc/kos/NAME, as on a node."""
    own = f"/etc/kos/{form.name}/"
    # A file that affects no unit is a tool of the node: its backups.
    paths = [file.path for file in form.files if file.path and file.path.startswith(own) and file.units != []]
    return {path: files[f"tree{path}"].decode() for path in paths}


def _secrets(form: Service, files: Mapping[str, bytes]) -> dict[str, str]:
    sealed = [file for file in form.files if file.sealed]
    return {file.sealed or "": files[f"sealed/{file.unit}.{file.sealed}"].decode() for file in sealed}


def _peers(form: Service, container: ContainerSubstrate, staying: Mapping[str, Service]) -> dict[str, tuple[int, ...]]:
    found: dict[str, set[int]] = {}
    for name, other in staying.items():
        ports = {port.port for port in other.ports if isinstance(port.port, int) and port.protocol == "tcp"}
        wanted = ports if name in form.requires else ports & set(container.reaches)
        if wanted and name != form.name:
            found[name] = wanted
    return {name: tuple(sorted(ports)) for name, ports in found.items()}


def _data_name(form: Service, folder: str) -> str:
    return folder.rpartition("/")[2] if form.volumes else "data"


def _share(size: str | None, memory_mb: int) -> int | None:
    if size is None:
        return None
    return memory_mb * int(size.rstrip("%")) // 100 if size.endswith("%") else megabytes(size)


def _filled(text: str, facts: Facts) -> str:
    """`text` with all but its secrets filled in, for a machine with `facts`."""

    def value(match: re.Match[str]) -> str:
        kind, _colon, rest = match[1].partition(":")
        if kind == "memory":
            return str(_between(facts.memory_mb, *rest.split(":")))
        return str(facts.cpu) if kind == "cpus" else match[0]

    return _named(_TOKEN.sub(value, text))


def _between(memory_mb: int, share: str, floor: str = "1", ceiling: str = "1048576") -> int:
    return max(int(floor), min(int(ceiling), memory_mb * int(share.rstrip("%")) // 100))


def _named(text: str) -> str:
    listening = text.replace("@kos:listen@", "0.0.0.0")  # noqa: S104 the platform decides who reaches it
    return re.sub(r"@kos:peer:([a-z0-9_]+)@", lambda match: platform_name(match[1]), listening)
