# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plan to generation: every file, systemd unit, user and package, as one content-addressed tree. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jinja2
from jinja2.sandbox import SandboxedEnvironment

from . import venvs
from .alternatives import Alternative, alternatives
from .catalogue import Catalogue
from .containers import MODELS, Egress, ImagePlace, environment, image_places, name_of, quadlet, quadlet_path
from .faults import ConfigurationError, Fault, Place
from .generation import Generation
from .manifest import ContainerSubstrate, FileManifest, Service
from .resolver import Plan, PlannedService
from .units import credential_path, unit_text, wanted_by

FORMAT = 1
PROBE_DEADLINE = 30
RULES_DIRECTORY = "/etc/kos/prometheus/rules"


@dataclass(frozen=True)
class _Entry:
    """One file of the generation: its row in the manifest and its content (None for a link)."""

    row: dict[str, Any]
    content: bytes | None


def render(plan: Plan, node_code: Mapping[str, bytes]) -> Generation:
    """The generation of `plan`; `node_code` (relative path -> content) is the node's core it carries.

    Raises ConfigurationError when a template cannot be rendered or two services write one file.
    """
    catalogue = plan.catalogue
    entries = list(_entries(plan, catalogue))
    _refuse_twice(entries)
    files = {f"node/{name}": content for name, content in node_code.items()}
    files |= {entry.row["source"]: entry.content for entry in entries if entry.content is not None}
    manifest = _manifest(plan, [entry.row for entry in entries])
    manifest["alternatives"] = []
    for alternative in alternatives(plan):
        images = _image_rows(alternative.added, alternative.plan)
        manifest["alternatives"].append({**alternative.as_dict(), "images": images})
        files |= _alternative_files(alternative, catalogue, files)
    return Generation.of(manifest, files)


def _alternative_files(
    alternative: Alternative, catalogue: Catalogue, files: Mapping[str, bytes | None]
) -> dict[str, bytes]:
    """The manifest of `alternative` and those of its files that differ from `files`.

    Packages, users, secrets and data of what it leaves stay, so that going back needs no network and loses nothing.
    """
    folder = f"alternatives/{alternative.service.name}"
    entries = {entry.row["path"]: entry for entry in _entries(alternative.plan, alternative.plan.catalogue)}
    for entry in _entries(alternative.staying, catalogue):
        # Accounts, masks of Debian's own units, and what packages were installed with.
        if entry.row["phase"] == "packages":
            entries[entry.row["path"]] = entry
    found: dict[str, bytes] = {}
    for entry in entries.values():
        if entry.content is not None and files.get(entry.row["source"]) != entry.content:
            entry.row["source"] = f"{folder}/{entry.row['source']}"
            found[entry.row["source"]] = entry.content
    manifest = _manifest(alternative.plan, [entry.row for entry in entries.values()])
    staying = _manifest(alternative.staying, [])
    manifest |= {key: staying[key] for key in ("packages", "images", "users", "volumes", "secrets")}
    manifest |= {"alternatives": [], "instead_of": alternative.as_dict()}
    found[f"{folder}/manifest.json"] = json.dumps(manifest, sort_keys=True, ensure_ascii=False).encode()
    return found


def _manifest(plan: Plan, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "profile": plan.deployment.name,
        "environment": plan.deployment.profile.environment,
        "storage": plan.deployment.settings.get("services", {}).get("storage"),
        "services": [_service_row(service) for service in plan.services],
        "unavailable": [entry.as_dict() for entry in plan.unavailable],
        "files": sorted(rows, key=lambda row: row["path"]),
        "units": [_unit_row(service, unit) for service in plan.services for unit in service.manifest.units],
        "packages": plan.packages,
        "unless": plan.unless,
        "settings": [row for service in plan.services for row in _setting_rows(service)],
        "daemons": [row for service in plan.services for row in _daemon_rows(service)],
        "mirror": _mirror(plan),
        "images": _image_rows(plan.services, plan),
        "users": plan.users,
        "volumes": list(_volume_rows(plan)),
        "secrets": [
            {"service": service.name, "name": secret.name, "length": secret.length if secret.made == "node" else 0}
            for service in plan.services
            for secret in service.manifest.secrets
        ],
        "ports": [vars(port) for port in plan.ports],
        "requires": plan.requires,
    }


def _volume_rows(plan: Plan) -> Iterator[dict[str, Any]]:
    for service in plan.services:
        for unit in service.manifest.units:
            if unit.state_directory:
                user = unit.user or service.manifest.user or "root"
                path = f"/var/lib/{unit.state_directory}"
                yield {"path": path, "service": service.name, "user": user, "unit": unit.name}
    readers = [service for service in plan.services if (container := _container(service)) and container.models]
    if readers:
        unit = readers[0].manifest.units[0]
        # Every service that serves models reads the same ones, which are root's.
        yield {"path": MODELS, "service": readers[0].name, "user": "root", "unit": unit.name, "shared": True}


def _service_row(service: PlannedService) -> dict[str, Any]:
    manifest, container = service.manifest, _container(service)
    return {
        "name": service.name,
        "summary": manifest.summary,
        "tier": manifest.tier,
        "capabilities": list(service.capabilities),
        "substrate": service.substrate,
        "reasons": list(service.reasons),
        "user": manifest.user,
        "requires": manifest.requires,
        "units": [unit.name for unit in manifest.units if unit.starts == "now"],
        "probe": _probe(service),
        "models_reload": container.models_reload if container else None,
        "bounds": manifest.bounds.model_dump() if manifest.bounds else None,
        "hooks": manifest.hooks.model_dump(),
        "cluster": manifest.cluster,
        "backup": manifest.backup.model_dump(exclude_none=True) if manifest.backup else None,
        "imports": {name: commands.model_dump() for name, commands in sorted(manifest.imports.items())},
        "check": {"exec": manifest.check, "packages": _packages(manifest)} if manifest.check else None,
    }


def _setting_rows(service: PlannedService) -> Iterator[dict[str, Any]]:
    for setting in service.manifest.settings:
        yield {**setting.model_dump(), "service": service.name, "tier": service.tier}


def _daemon_rows(service: PlannedService) -> Iterator[dict[str, Any]]:
    for daemon in service.manifest.daemons:
        yield {**daemon.model_dump(), "service": service.name, "tier": service.tier}


def _image_places(plan: Plan, catalogue: Catalogue) -> list[ImagePlace]:
    """Where the images of the plan, and of what a node may move to, are fetched from."""
    plans = [plan, *(entry.plan for entry in alternatives(plan))]
    named = sorted({service.image for each in plans for service in each.services if service.image})
    return image_places([catalogue.images[name] for name in named], _mirror(plan))


def _mirror(plan: Plan) -> str:
    return str(plan.deployment.settings.get("orchestration", {}).get("mirror") or "")


def _egress(plan: Plan, catalogue: Catalogue) -> list[Egress]:
    return [Egress.of(service.manifest, catalogue) for service in plan.services if service.image]


def _packages(manifest: Service) -> list[str]:
    return manifest.substrates.deb.packages if manifest.substrates.deb else []


def _container(service: PlannedService) -> ContainerSubstrate | None:
    return service.manifest.substrates.container if service.image else None


def _probe(service: PlannedService) -> dict[str, Any] | None:
    manifest = service.manifest
    container = _container(service)
    if container is not None and container.health:
        deadline = manifest.probe.deadline if manifest.probe else PROBE_DEADLINE
        return {
            "container": name_of(service.name),
            "user": manifest.user,
            "deadline": deadline,
            "environment": environment(manifest.user or ""),
        }
    return manifest.probe.model_dump(exclude_none=True) if manifest.probe else None


def _image_rows(services: Iterable[PlannedService], plan: Plan) -> list[dict[str, Any]]:
    """What of `services` is content of the unit store: container images, and the wheels of environments."""
    contained = [_image_row(service, plan.catalogue, plan) for service in services if service.image]
    digests = {
        service.name: venvs.digest_of(service.name, plan.catalogue.images, plan.kind.architecture)
        for service in services
        if service.substrate == "venv"
    }
    return contained + [venvs.row(name, digest) for name, digest in digests.items() if digest]


def _image_row(service: PlannedService, catalogue: Catalogue, plan: Plan) -> dict[str, Any]:
    image = catalogue.images[service.image or ""]
    return {
        "service": service.name,
        "user": service.manifest.user,
        "repository": image.repository,
        "digest": image.digest(plan.kind.architecture),
        "environment": environment(service.manifest.user or ""),
    }


def _unit_row(service: PlannedService, unit: Any) -> dict[str, Any]:
    return {
        "name": unit.name,
        "service": service.name,
        "tier": service.tier,
        "on_change": unit.on_change,
        "oneshot": unit.type == "oneshot",
        "starts": unit.starts,
        "runs_node_code": "/var/lib/kos/current/node" in (unit.exec or ""),
        "live": unit.live,
    }


def _entries(plan: Plan, catalogue: Catalogue) -> Iterator[_Entry]:
    yield _users_entry(plan)
    if plan.packages:
        yield _packages_entry(plan)
    templates = _templates()
    for service in plan.services:
        yield from _mask_entries(service)
        for unit in service.manifest.units:
            if service.substrate == "container":
                text = quadlet(service.manifest, catalogue, plan.kind)
                yield _file(quadlet_path(service.name), text, service, [unit.name])
                continue
            text = unit_text(unit, service.manifest, catalogue)
            path = f"/etc/systemd/system/{unit.name}"
            yield _file(path, text, service, [unit.name])
            if unit.starts != "demand":
                yield _link(f"/etc/systemd/system/{wanted_by(unit)}.wants/{unit.name}", path, service, [])
        for file in service.manifest.files:
            yield _template_entry(file, service, plan, catalogue, templates)
    yield from _alert_entries(plan, catalogue)


def _users_entry(plan: Plan) -> _Entry:
    lines = []
    for service in plan.services:
        manifest = service.manifest
        for user in manifest.users:
            lines.append(f'u {user} - "kOS {manifest.name}" /var/lib/{user} /usr/sbin/nologin')
        lines += [f"m {manifest.user} {group}" for group in manifest.groups]
    row = _row("/etc/sysusers.d/kos.conf", None, 0, "packages", [])
    return _Entry({**row, "source": "tree/etc/sysusers.d/kos.conf"}, ("\n".join(lines) + "\n").encode())


def _packages_entry(plan: Plan) -> _Entry:
    """Keeps apt's autoremove away from packages that kOS installs marked as automatic."""
    path = "/etc/apt/apt.conf.d/80kos"
    names = "".join(f'    "^{name.replace(".", "[.]").replace("+", "[+]")}$";\n' for name in plan.packages)
    text = f"// What kOS needs, although nobody asked apt for it by name.\nAPT::NeverAutoRemove {{\n{names}}};\n"
    return _Entry({**_row(path, None, 0, "packages", []), "source": f"tree{path}"}, text.encode())


def _mask_entries(service: PlannedService) -> Iterator[_Entry]:
    deb = service.manifest.substrates.deb if service.substrate == "deb" else None
    for unit in deb.masks if deb else []:
        # In place before the package is, so that dpkg never starts Debian's own unit.
        yield _link(f"/etc/systemd/system/{unit}", "/dev/null", service, [], phase="packages")


def _template_entry(
    file: FileManifest,
    service: PlannedService,
    plan: Plan,
    catalogue: Catalogue,
    templates: SandboxedEnvironment,
) -> _Entry:
    text = _rendered(file, service, plan, catalogue, templates)
    own_units = [unit.name for unit in service.manifest.units]
    affected = file.units if file.units is not None else [file.unit] if file.unit else own_units
    if file.sealed and file.unit:
        row = _row(credential_path(file.unit, file.sealed), service, service.tier, "tier", affected)
        row |= {"mode": "0600", "sealed": file.sealed, "source": f"sealed/{file.unit}.{file.sealed}"}
        return _Entry(row, text.encode())
    entry = _file(file.path or "", text, service, affected, phase=file.phase)
    return _Entry({**entry.row, "mode": file.mode, "owner": file.owner, "group": file.group}, entry.content)


def _alert_entries(plan: Plan, catalogue: Catalogue) -> Iterator[_Entry]:
    """Each planned service's alerts.yaml, for the Prometheus of the same plan."""
    prometheus = next((service for service in plan.services if service.name == "prometheus"), None)
    if prometheus is None:
        return
    units = [unit.name for unit in prometheus.manifest.units][:1]
    for service in plan.services:
        if catalogue.has(service.name, "alerts.yaml"):
            text = catalogue.text(service.name, "alerts.yaml")
            yield _file(f"{RULES_DIRECTORY}/{service.name}.yaml", text, prometheus, units)


def _rendered(
    file: FileManifest,
    service: PlannedService,
    plan: Plan,
    catalogue: Catalogue,
    templates: SandboxedEnvironment,
) -> str:
    if file.text is not None:
        return file.text
    owner = file.of or service.name
    source = catalogue.text(owner, f"templates/{file.template}")
    try:
        return templates.from_string(source).render(
            plan=plan,
            egress=_egress(plan, catalogue),
            image_places=lambda: _image_places(plan, catalogue),
            service=service.manifest,
            settings=plan.deployment.settings,
            headers=catalogue.headers(),
        )
    except jinja2.TemplateError as error:
        place = Place(f"services/{owner}/templates/{file.template}", getattr(error, "lineno", 0) or 0)
        raise ConfigurationError([Fault(f"cannot be rendered: {error}", place)]) from error


def _templates() -> SandboxedEnvironment:
    return SandboxedEnvironment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )


def _file(path: str, text: str, service: PlannedService, units: list[str], phase: str = "tier") -> _Entry:
    row = _row(path, service, service.tier, phase, units)
    return _Entry({**row, "source": f"tree{path}"}, text.encode())


def _link(path: str, target: str, service: PlannedService, units: list[str], phase: str = "tier") -> _Entry:
    row = _row(path, service, service.tier, phase, units)
    return _Entry({**row, "link": target}, None)


def _row(path: str, service: PlannedService | None, tier: int, phase: str, units: list[str]) -> dict[str, Any]:
    return {
        "path": path,
        "mode": "0644",
        "owner": "root",
        "group": "root",
        "service": service.name if service else "users",
        "tier": tier,
        "phase": phase,
        "units": units,
    }


def _refuse_twice(entries: list[_Entry]) -> None:
    writers: dict[str, str] = {}
    faults = []
    for entry in entries:
        path, service = entry.row["path"], entry.row["service"]
        if path in writers:
            faults.append(Fault(f"{path} is written by {writers[path]} and {service}", fix="give each its own file"))
        writers.setdefault(path, service)
    if faults:
        raise ConfigurationError(faults)
