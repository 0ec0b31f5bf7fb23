# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kind of machine can run, and on which substrate; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from . import venvs
from .catalogue import Catalogue
from .containers import as_container
from .faults import Fault, nearest
from .hardware import KindOfHardware
from .images import BUILT, Image
from .manifest import Service, Substrates

Substrate = Literal["deb", "container", "venv"]


@dataclass(frozen=True)
class Obstacle:
    """Why a service does not run on a machine of some kind."""

    why: str


def choose(manifest: Service, kind: KindOfHardware, images: Mapping[str, Image]) -> Substrate | Obstacle:
    """The first substrate of `manifest` that a machine of this kind can run."""
    if why_not := _lacking(manifest, kind) or manifest.not_run:
        return Obstacle(why_not)
    deb, venv = manifest.substrates.deb, manifest.substrates.venv
    why = "there is nothing to install for it"
    if deb is not None:
        if kind.architecture in deb.architectures:
            return "deb"
        why = f"not packaged for {kind.architecture}"
    if manifest.image is not None:
        image_why = image_obstacle(manifest.image, kind, images[manifest.image])
        if image_why is None:
            return "container"
        why = image_why
    if venv is not None:
        venv_why = _venv_obstacle(manifest, kind, images)
        if venv_why is None:
            return "venv"
        why = f"{why}; {venv_why}" if manifest.image is not None else venv_why
    return Obstacle(why)


def _lacking(manifest: Service, kind: KindOfHardware) -> str | None:
    """What the service cannot do without and a machine of this kind does not have."""
    if "gpu" in manifest.needs and not kind.gpu:
        return "it needs a GPU, and this machine has none"
    if "internet" in manifest.needs and kind.air_gapped:
        return "it is reached over the Internet, and networking.air_gapped says that this node has none"
    if "kernel" in manifest.needs and kind.shares_kernel:
        return "it needs a kernel of its own, and this machine is a container, which has its host's"
    return None


def _venv_obstacle(manifest: Service, kind: KindOfHardware, images: Mapping[str, Image]) -> str | None:
    """Why its wheels cannot be installed; a deploy installs none that this site has not fetched by hash."""
    if not manifest.units:
        return "it comes from PyPI, and its manifest does not say how it is started"
    if venvs.digest_of(manifest.name, images, kind.architecture) is None:
        return f"its wheels are not fetched: kai wheels fetch {manifest.name}"
    return None


def image_obstacle(name: str, kind: KindOfHardware, image: Image) -> str | None:
    """Why the image cannot be pinned; a deploy runs nothing that is not."""
    if kind.architecture not in image.digests:
        return f"not published for {kind.architecture}"
    if image.digest(kind.architecture) is not None:
        return None
    if image.repository.startswith(f"{BUILT}/"):
        return f"its container image is not built yet: kai unit build {name}"
    return f"its container image is unresolved: kai unit lock {name}, on a machine that reaches its registry"


def obstacle(manifest: Service, kind: KindOfHardware, images: Mapping[str, Image]) -> str | None:
    """Why `manifest` does not run on a machine of this kind, or None."""
    chosen = choose(manifest, kind, images)
    return chosen.why if isinstance(chosen, Obstacle) else None


def sandboxed(catalogue: Catalogue, tiers: Mapping[str, Literal["gvisor"]]) -> Catalogue:
    """The catalogue where the containers of each trust tier of `tiers` have that sandbox; WebAssembly has its own."""
    services = {
        name: service.model_copy(
            update={"substrates": service.substrates.model_copy(update={"container": container.model_copy(
                update={"sandbox": tiers[service.trust]})})}
        )
        if (container := service.substrates.container) and service.trust in tiers and container.sandbox is None
        else service
        for name, service in catalogue.services.items()
    }  # fmt: skip
    return catalogue.with_services(services)


def on_kind(catalogue: Catalogue, kind: KindOfHardware) -> Catalogue:
    """The catalogue with every service in the form in which a machine of this kind runs it."""
    services = {name: _in_form(service, catalogue, kind) for name, service in catalogue.services.items()}
    return catalogue.with_services(services)


def _in_form(service: Service, catalogue: Catalogue, kind: KindOfHardware) -> Service:
    chosen = choose(service, kind, catalogue.images)
    wheels = venvs.digest_of(service.name, catalogue.images, kind.architecture)
    if chosen == "venv" and wheels:
        return venvs.as_venv(service, wheels)
    return as_container(service) if chosen == "container" else service


def preferring(catalogue: Catalogue, wanted: Mapping[str, Substrate]) -> tuple[Catalogue, list[Fault]]:
    """The catalogue where each service of `wanted` has that substrate only, and what is wrong with `wanted`."""
    services, faults = dict(catalogue.services), []
    for name, substrate in wanted.items():
        key = f"orchestration.substrate.{name}"
        if name not in services:
            faults.append(Fault(f"no service is called '{name}'", None, key, nearest(name, list(services))))
            continue
        has = {kind: value for kind, value in services[name].substrates if value is not None}
        if substrate not in has:
            fix = f"it has {' and '.join(has) or 'none'}"
            faults.append(Fault(f"{name} cannot run on the substrate {substrate}", None, key, fix))
            continue
        only = Substrates.model_validate({substrate: has[substrate]})
        services[name] = services[name].model_copy(update={"substrates": only})
    return catalogue.with_services(services), faults


def missing(manifest: Service, catalogue: Catalogue, kind: KindOfHardware, asking: tuple[str, ...] = ()) -> str | None:
    """Which service that `manifest` requires cannot run and why, or None; circles are found with the start order."""
    for needed in (name for name in manifest.requires if name not in asking):
        required = catalogue.services[needed]
        why_not = obstacle(required, kind, catalogue.images)
        why_not = why_not or missing(required, catalogue, kind, (*asking, manifest.name))
        if why_not is not None:
            return f"it needs {needed} ({why_not})"
    return None
