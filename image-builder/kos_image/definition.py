# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a medium is, as pure data: packages, files, initrd, kernel arguments, partitions, boot.

`definitions/OUTPUT.yaml` holds what an output is, over what it is `like`; lists of a key that ends in `+` are appended.
A mapping with the keys `all`, `amd64`, `arm64` holds what depends on the architecture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ansible_collections.kind.kos.plugins.plugin_utils.documents import Document, KeyPath, read_document
from ansible_collections.kind.kos.plugins.plugin_utils.faults import Place
from ansible_collections.kind.kos.plugins.plugin_utils.merging import merge, place_in
from ansible_collections.kind.kos.plugins.plugin_utils.models import Strict, parse

from .errors import UsageError

FOLDER = Path(__file__).with_name("definitions")
Architecture = Literal["amd64", "arm64"]
_PC = "amd64"  # nothing else has a BIOS
ARCHITECTURES: tuple[Architecture, ...] = ("amd64", "arm64")


class Initrd(Strict):
    """What dracut is told: modules to add and to leave out, drivers, programs and files to take along."""

    add: list[str] = []
    omit: list[str] = []
    drivers: list[str] = []
    install: list[str] = []


class Root(Strict):
    """The root file system. `level` is the compressor's; `verity` proves each block as it is read."""

    format: Literal["squashfs", "ext4"]
    verity: bool = False
    level: int = 3
    room_mb: int = Field(default=0, description="free room in an ext4 root before it has grown to its disk")
    header_mb: int = Field(default=0, description="room before an ext4 root for the header of who encrypts it in place")


class Boot(Strict):
    """Who can start it: a BIOS, UEFI (Debian's shim, or own keys), a Raspberry Pi's own firmware."""

    bios: bool = False
    uefi: bool = False
    pi: bool = False


class Partition(Strict):
    """One partition, in their order on the disk. `content` names what fills it; `size_mb` 0 is as large as that."""

    label: str
    content: Literal["bios", "esp", "firmware", "root", "verity", "data", "manifest"]
    size_mb: int = 0


class Installed(Strict):
    """What a medium installs on a disk: its own root, with another initrd and other files laid over it."""

    packages: list[str]
    initrd: Initrd
    trees: list[str]
    links: dict[str, str]


class Definition(Strict):
    """A medium of one output and architecture; the same whatever the profile."""

    output: str
    architecture: Architecture
    summary: str
    image: Literal["raw", "qcow2"]
    packages: list[str]
    trees: list[str] = Field(default=[], description="folders of files laid over the packages")
    links: dict[str, str] = Field(default={}, description="symbolic links laid over them, and where they lead")
    initrd: Initrd
    kernel_arguments: list[str]
    root: Root
    boot: Boot
    partitions: list[Partition]
    installed: Installed | None = None

    @property
    def encrypted(self) -> bool:
        """Whether its first start encrypts it."""
        return self.root.header_mb > 0

    def in_clear(self) -> Definition:
        """The same, and nothing is ever encrypted."""
        return self.model_copy(update={"root": self.root.model_copy(update={"header_mb": 0})})


def architecture(name: str) -> Architecture:
    """The architecture of this name. Raises UsageError."""
    for known in ARCHITECTURES:
        if known == name:
            return known
    raise UsageError(f"there is no architecture '{name}' here: {' or '.join(ARCHITECTURES)}")


def outputs() -> list[str]:
    """The outputs that are media with a definition."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml") if not path.stem.startswith("_"))


def define(output: str, architecture: str) -> Definition:
    """The definition of an output. Raises UsageError, ConfigurationError."""
    if output not in outputs():
        raise UsageError(f"there is no output '{output}': one of {', '.join(outputs())}")
    allowed = architectures(output)
    if architecture not in allowed:
        raise UsageError(f"{output} is made for {' and '.join(allowed)}, not for {architecture}")
    data, place = _merged(output, architecture)
    if architecture != _PC:
        data["boot"] = {**data["boot"], "bios": False}
        data["partitions"] = [part for part in data["partitions"] if part["content"] != "bios"]
    if installs := data.pop("installs", None):
        # One root is both: what runs from the stick, and what is on the disk afterwards.
        node, _place = _merged(installs, architecture)
        data["installed"] = {key: node[key] for key in Installed.model_fields}
        data["packages"] = list(dict.fromkeys([*data["packages"], *node["packages"]]))
    return parse(Definition, {**data, "output": output, "architecture": architecture}, place)


def _merged(name: str, architecture: str) -> tuple[dict[str, Any], Callable[[KeyPath], Place]]:
    layers = [replace(layer, data=_chosen(layer.data, architecture)) for layer in _layers(name)]
    data, origins = merge(layers)
    data.pop("architectures")
    data.pop("like", None)
    return data, lambda path: place_in(origins, path) or layers[-1].place()


def architectures(output: str) -> list[str]:
    """Those that an output is made for."""
    said: Iterator[list[str]] = (
        one.data["architectures"] for one in reversed(_layers(output)) if "architectures" in one.data
    )
    return next(said)


def _layers(name: str) -> list[Document]:
    document = read_document(FOLDER / f"{name}.yaml")
    below = document.data.get("like")
    return [*(_layers(below) if below else []), document]


def _chosen(value: Any, architecture: str) -> Any:
    """What stands for this architecture, all through `value`."""
    if isinstance(value, list):
        return [_chosen(one, architecture) for one in value]
    if not isinstance(value, dict):
        return value
    if value and value.keys() <= {"all", *ARCHITECTURES}:
        return [*value.get("all", []), *value.get(architecture, [])]
    return {key: _chosen(one, architecture) for key, one in value.items()}
