# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service on the container substrate: its manifest in that form, and its Quadlet.

The system manager runs it as the service's own user, rootless: no session of that user has to linger, and gate,
order, limits and credentials are those of any other systemd unit. Source: podman-systemd.unit(5) of Podman 5.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .catalogue import Catalogue
from .hardware import KindOfHardware
from .images import Image
from .manifest import BackupCommands, ContainerSubstrate, PortManifest, Service, UnitManifest
from .units import BACK_OFF, Directive, credential_directives, limits, text_of, unit_section

RUNTIME = "podman"
QUADLETS = "/etc/containers/systemd"
# Where each user's images and containers are, and the language models of the node.
STORAGE = "/var/lib/containers"
MODELS = "/var/lib/kos-models"
# The service that brings the sandbox, and how Podman is told to use it.
_SANDBOXES: dict[str | None, tuple[str, ...]] = {"gvisor": ("gvisor",), "wasm": ("wasm",)}
_RUNTIMES: dict[str | None, tuple[str, ...]] = {
    # Without root it cannot make control groups or a network stack: the unit's group limits it, and what it takes
    # for the host's network is the container's own.
    "gvisor": ("--runtime=/usr/bin/runsc", "--runtime-flag=ignore-cgroups", "--runtime-flag=network=host"),
    "wasm": ("--runtime=/usr/bin/crun-wasm", "--annotation=module.wasm.image/variant=compat"),
}
_SETTINGS = "/etc/kos/containers"


def environment(user: str) -> dict[str, str]:
    """What Podman and skopeo need to know to act for `user`."""
    return {
        "HOME": f"{STORAGE}/{user}",
        "XDG_RUNTIME_DIR": f"/run/{user}",
        "CONTAINERS_CONF_OVERRIDE": f"{_SETTINGS}/containers.conf",
        "CONTAINERS_STORAGE_CONF": f"{_SETTINGS}/storage.conf",
    }


def name_of(service: str) -> str:
    """The name of the service's user, container and systemd unit (without ``.service``)."""
    return f"kos-{service.replace('_', '-')}"


def as_container(manifest: Service) -> Service:
    """`manifest` in the form that runs its container: one user, one systemd unit, the runtime required.

    Its data directory is that of the packaged form, so that a service keeps its data when it changes substrate.
    """
    name, container = name_of(manifest.name), manifest.substrates.container or ContainerSubstrate()
    unit = f"{name}.service"
    kept = [file for file in manifest.files if file.unit in (None, unit)]
    left_out = {port.port for port in manifest.ports if port.name in container.leaves_out}
    metrics = manifest.metrics if manifest.metrics and manifest.metrics.port not in left_out else None
    form = UnitManifest(
        name=unit,
        type="notify",
        exec="podman run",
        state_directory=name if folders(manifest) else None,
        credentials=sorted(file.sealed for file in kept if file.sealed),
    )
    return manifest.model_copy(
        update={
            "user": name,
            "groups": [],
            "units": [form],
            "files": [file.model_copy(update={"units": file.units and [unit]}) for file in kept],
            "ports": [port for port in manifest.ports if port.name not in container.leaves_out],
            "metrics": metrics,
            "requires": [*dict.fromkeys([RUNTIME, *_SANDBOXES.get(container.sandbox, ()), *manifest.requires])],
            "check": None,
            "backup": _backup(manifest),
        }
    )


def folders(manifest: Service) -> dict[str, str]:
    """Each directory of the node that holds data of the service, and where its container has it."""
    name = name_of(manifest.name)
    if manifest.volumes:
        return {f"/var/lib/{name}/{volume.name}": volume.path for volume in manifest.volumes}
    packaged = [f"/var/lib/{unit.state_directory}" for unit in manifest.units if unit.state_directory]
    return {folder: folder for folder in packaged}


def _backup(manifest: Service) -> BackupCommands | None:
    """A copy of the volumes while the container is stopped: the tools of the packaged form are not on the node."""
    passed_over = {f"/var/lib/{name_of(manifest.name)}/{row.name}" for row in manifest.volumes if row.backup == "none"}
    copied = [folder for folder in folders(manifest) if folder not in passed_over]
    if not copied:
        return None
    script = ["/bin/sh", f"{_SETTINGS}/volumes.sh"]
    return BackupCommands(
        user=name_of(manifest.name),
        command=[*script, "backup", *copied],
        restore=[*script, "restore", *copied],
        holds=[*script, "holds", *copied],
        stopped=["backup", "restore"],
    )


def quadlet_path(service: str) -> str:
    """Where the service's Quadlet lies."""
    return f"{QUADLETS}/{name_of(service)}.container"


def quadlet(service: Service, catalogue: Catalogue, kind: KindOfHardware) -> str:
    """The Quadlet of a service in its container form. Raises KeyError where its image is unresolved."""
    container = service.substrates.container
    if container is None or service.image is None:
        raise KeyError(service.name)
    unit = service.units[0]
    reference = catalogue.images[service.image].reference(kind.architecture)
    sections = {
        "Unit": [*unit_section(unit, service, catalogue)],
        "Container": [*_container(service, container, reference, catalogue, kind)],
        "Service": [*_service(service, unit)],
        # Nothing that is started here waits for a network: images are there already.
        "Quadlet": [("DefaultDependencies", "false")],
        "Install": [("WantedBy", "multi-user.target")],
    }
    return text_of(sections)


def _container(
    service: Service, container: ContainerSubstrate, reference: str, catalogue: Catalogue, kind: KindOfHardware
) -> Iterator[Directive]:
    name = name_of(service.name)
    yield "ContainerName", name
    yield "HostName", name
    yield "Image", reference
    yield "Pull", "never"
    if container.entrypoint:
        yield "Entrypoint", container.entrypoint
    if container.command:
        yield "Exec", " ".join(_quoted(word) for word in container.command)
    yield from _identity(container)
    yield from _network(service, catalogue)
    yield from _mounts(service, container)
    for key, value in container.environment.items():
        yield "Environment", _quoted(f"{key}={value}")
    if container.environment_secret:
        yield "EnvironmentFile", f"%d/{container.environment_secret}"
    if kind.gpu and ("gpu" in service.needs or "gpu" in service.affinity):
        # CDI: the device that nvidia-ctk describes on the node.
        yield "AddDevice", "nvidia.com/gpu=all"
    if container.health:
        yield "HealthCmd", " ".join(_quoted(word) for word in container.health)
    yield "LogDriver", "journald"
    for argument in _RUNTIMES.get(container.sandbox, ()):
        yield "PodmanArgs", argument
    # %t is /run for the system manager, where this user may not write.
    yield "PodmanArgs", f"--cidfile=%t/{name}/cid"


def _identity(container: ContainerSubstrate) -> Iterator[Directive]:
    yield "User", str(container.user)
    yield "Group", str(container.user)
    if container.user:
        yield "UserNS", f"keep-id:uid={container.user},gid={container.user}"
    yield "DropCapability", "all"
    for kept in container.linux_capabilities:
        yield "AddCapability", kept.name
    yield "NoNewPrivileges", "true"
    if container.writable_root is None:
        yield "ReadOnly", "true"


def _network(service: Service, catalogue: Catalogue) -> Iterator[Directive]:
    """A network namespace of its own: the service's ports lead in, the ports it may reach lead out, on loopback."""
    # Without the option a daemon that listens on loopback alone would not be reached.
    options = ["--host-lo-to-ns-lo", *(f"-T,{port}" for port in reached(service, catalogue))]
    yield "Network", f"pasta:{','.join(options)}"
    for port in service.ports:
        yield "PublishPort", _published(port)


@dataclass(frozen=True)
class ImagePlace:
    """A repository that images may be fetched from: `of` is the one it mirrors, or itself; `key` must have signed."""

    at: str
    of: str
    key: str | None


def image_places(images: Iterable[Image], mirror: str) -> list[ImagePlace]:
    """Where the images of a plan may come from: the mirror first, each repository once."""
    found: dict[str, ImagePlace] = {}
    for image in images:
        own = image.repository
        places = [f"{mirror}/{own.partition('/')[2]}"] if mirror else []
        for at in [*places, own]:
            found.setdefault(at, ImagePlace(at, own, image.key))
    return [found[at] for at in sorted(found)]


@dataclass(frozen=True)
class Egress:
    """What the processes of one user may connect to: ports on the node's loopback, and whether anything beyond."""

    user: str
    ports: list[int]
    internet: bool

    @classmethod
    def of(cls, service: Service, catalogue: Catalogue) -> Egress:
        """What the container of `service` may connect to."""
        container = service.substrates.container
        beyond = container is not None and container.internet is not None
        return cls(name_of(service.name), reached(service, catalogue), beyond)


def reached(service: Service, catalogue: Catalogue) -> list[int]:
    """The ports on the node's loopback that the service's container may connect to, sorted."""
    container = service.substrates.container
    required = [port for name in service.requires for port in catalogue.services[name].ports]
    ports = {port.port for port in required if port.protocol == "tcp" and isinstance(port.port, int)}
    return sorted(ports | set(container.reaches if container else []))


def _published(port: PortManifest) -> str:
    address = "127.0.0.1:" if port.exposure == "node" else ""
    return f"{address}{port.port}:{port.port}" + ("/udp" if port.protocol == "udp" else "")


def _mounts(service: Service, container: ContainerSubstrate) -> Iterator[Directive]:
    for outside, inside in folders(service).items():
        yield "Volume", f"{outside}:{inside}"
    configured = {f"/etc/kos/{service.name}" for file in service.files if file.path}
    for folder in sorted(configured):
        yield "Volume", f"{folder}:{folder}:ro"
    unit = service.units[0]
    if unit.credentials or any(unit.name in certificate.units for certificate in service.certificates):
        # Where images look for secrets, and where the service's own files do under every substrate.
        yield "Volume", "%d:/run/secrets:ro"
        yield "Volume", "%d:%d:ro"
        yield "Environment", "CREDENTIALS_DIRECTORY=%d"
    if container.models:
        yield "Volume", f"{MODELS}:/models:ro"
    for folder in container.tmpfs:
        yield "Tmpfs", folder


def _service(service: Service, unit: UnitManifest) -> Iterator[Directive]:
    name = name_of(service.name)
    yield "User", name
    yield "Group", name
    for key, value in {**environment(name), "DISABLE_HC_SYSTEMD": "true"}.items():
        yield "Environment", f"{key}={value}"
    # Gone with each end: a container that died before Podman had noted its start would be "running" for ever.
    yield "RuntimeDirectory", name
    yield "RuntimeDirectoryMode", "0700"
    if service.substrates.container and service.substrates.container.models:
        yield "ExecStartPre", f"+/usr/bin/install -d -m 0755 {MODELS}"
    # Quadlet's own lines look for the container's id where this user cannot write it.
    yield "ExecStop", f"/usr/bin/podman rm -v -f -i --cidfile=%t/{name}/cid"
    yield "SuccessExitStatus", "143"
    yield "Restart", "on-failure"
    yield from BACK_OFF
    if unit.state_directory:
        below = [folder.removeprefix("/var/lib/") for folder in folders(service)]
        yield "StateDirectory", " ".join(dict.fromkeys([name, *below]))
        yield "StateDirectoryMode", "0700"
    yield from credential_directives(unit, service)
    yield from limits(unit, service)


def _quoted(word: str) -> str:
    """`word` as one argument of a systemd command line, nothing of it expanded."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    plain = escaped == word and word and not any(letter.isspace() or letter in "';" for letter in word)
    return word if plain else f'"{escaped}"'
