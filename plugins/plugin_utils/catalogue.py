# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue: every service, read from ``services/<name>/service.yaml``, and every container image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .asks import NO_ASKS, Asks, load_asks
from .documents import read_document
from .faults import ConfigurationError, Fault, Place, nearest, shown_path
from .hardening import NO_RULES, Rules, load_rules
from .images import Image, load_images
from .manifest import Service
from .models import parse

IMAGE_LOCK = "images.lock"


class Catalogue:
    """Every service by name, the folder each came from, and which service a variant's name leads to."""

    def __init__(
        self,
        folder: Path,
        services: dict[str, Service],
        sandbox: dict[str, str | list[str]],
        asks: Asks = NO_ASKS,
        images: Mapping[str, Image] | None = None,
        rules: Rules = NO_RULES,
    ) -> None:
        self.folder = folder
        self.services = services
        self.sandbox = sandbox
        self.asks = asks
        self.images = images or {}
        self.rules = rules
        self.variants = {entry.name: (service, entry) for service in services.values() for entry in service.variants}

    @property
    def names(self) -> list[str]:
        """Every name that a profile may ask for, sorted."""
        return sorted({*self.services, *self.variants})

    def service(self, name: str) -> Service:
        """The service called `name`, or of which that is a variant. Raises KeyError."""
        return self.variants[name][0] if name in self.variants else self.services[name]

    def standing_in(self, stand_ins: Mapping[str, str]) -> Catalogue:
        """The same catalogue where whatever requires a key of `stand_ins` requires its value instead."""
        services = {
            name: service.model_copy(
                update={"requires": [stand_ins.get(needed, needed) for needed in service.requires]}
            )
            for name, service in self.services.items()
        }
        return self.with_services(services)

    def with_services(self, services: dict[str, Service]) -> Catalogue:
        """The same catalogue with other manifests."""
        return Catalogue(self.folder, services, self.sandbox, self.asks, self.images, self.rules)

    def without(self, name: str, why: str) -> Catalogue:
        """The same catalogue where the service `name` cannot run, because of `why`."""
        barred = self.services[name].model_copy(update={"not_run": why})
        return self.with_services({**self.services, name: barred})

    def text(self, service: str, relative: str) -> str:
        """The content of a file in the service's folder; it never leaves that folder."""
        base = (self.folder / service).resolve()
        path = (base / relative).resolve()
        if not path.is_relative_to(base):
            raise ConfigurationError([Fault(f"'{relative}' points outside {base.name}/", None, service)])
        return path.read_text(encoding="utf-8")

    def headers(self) -> dict[str, Any]:
        """The security headers that every gateway sends; empty where the catalogue has none."""
        path = self.folder / "headers.yaml"
        return read_document(path).data if path.is_file() else {}

    def has(self, service: str, relative: str) -> bool:
        """Whether the service's folder holds `relative`."""
        return (self.folder / service / relative).is_file()


def load_catalogue(folder: Path, site_lock: Path | None = None) -> Catalogue:
    """Every manifest below `folder`, and every image of its lock, with the site's digests over them.

    Raises ConfigurationError with all faults of all manifests: unknown keys, a name that differs from its
    folder or is used twice, a requirement, default or fallback that no manifest describes.
    """
    services: dict[str, Service] = {}
    places: dict[str, Place] = {}
    faults: list[Fault] = []
    paths = sorted(folder.glob("*/service.yaml"))
    for path in paths:
        try:
            # A probe may send what no text holds: MQTT is binary.
            document = read_document(path, control=True)
            manifest = parse(Service, document.data, document.place)
        except ConfigurationError as error:
            faults += error.faults
            continue
        if manifest.name != path.parent.name:
            faults.append(Fault(f"must be '{path.parent.name}', like its folder", document.place(("name",)), "name"))
        services[manifest.name] = manifest
        places[manifest.name] = document.place()
    faults += _wrong_references(services, {path.parent.name for path in paths}, places)
    images = load_images(folder / IMAGE_LOCK, site_lock)
    faults += _missing_images(services, images, places)
    if faults:
        raise ConfigurationError(faults)
    catalogue = Catalogue(folder, services, _sandbox(folder), load_asks(folder), images, load_rules(folder))
    _check_asks(catalogue)
    return catalogue


def _check_asks(catalogue: Catalogue) -> None:
    names = catalogue.names
    place = Place(shown_path(catalogue.folder / "asks.yaml"))
    faults = [
        Fault(f"no service is called '{service}'", place, key, nearest(service, names))
        for key, replies in catalogue.asks.asks.items()
        for reply in replies.values()
        for service in reply.services
        if service not in names
    ]
    if faults:
        raise ConfigurationError(faults)


def _wrong_references(services: dict[str, Service], folders: set[str], places: dict[str, Place]) -> Iterator[Fault]:
    """Names that two manifests use, and names that none does; `folders` counts manifests that could not be read."""
    known = set(folders)
    for service in services.values():
        for variant in service.variants:
            if variant.name in known:
                yield Fault(f"another service is already called '{variant.name}'", places[service.name], "variants")
            known.add(variant.name)
    for service in services.values():
        # A variant has no process of its own: it cannot be started, replaced or borrowed from.
        named = [*service.requires, *service.stands_for, *(file.of for file in service.files if file.of)]
        references = [(needed, folders) for needed in named]
        references += [(other.service, known) for other in service.others]
        for referred, names in references:
            if referred not in names:
                yield Fault(f"no service is called '{referred}'", places[service.name], "", nearest(referred, names))


def _missing_images(
    services: dict[str, Service], images: Mapping[str, Image], places: dict[str, Place]
) -> Iterator[Fault]:
    for service in services.values():
        if service.image and service.image not in images:
            at, fix = places[service.name], nearest(service.image, list(images))
            yield Fault(f"{IMAGE_LOCK} has no image '{service.image}'", at, "substrates.container.image", fix)


def _sandbox(folder: Path) -> dict[str, Any]:
    path = folder / "sandbox.yaml"
    return read_document(path).data if path.is_file() else {}
