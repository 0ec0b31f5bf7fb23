# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documents of cloud-init, for the three ways in which a machine in a cloud becomes a node.

*pull*: it fetches the signed collection and deploys itself. *push*: a controller deploys it. *seeded*: made of an image
of `kos-image`, it deploys itself from what is on it.

Every value is data: the scripts (cloud_scripts.py) are the same for everybody and read what differs from files beside
them, as one argument each. Formats: https://docs.cloud-init.io/en/latest/explanation/format.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Any
from uuid import UUID, uuid5

import yaml

from ..module_utils.node import trust
from ..module_utils.node.files import STATE
from . import cloud_scripts, own_node

USER_DATA, META_DATA, NETWORK_CONFIG, VENDOR_DATA = NAMES = (
    "user-data",
    "meta-data",
    "network-config",
    "vendor-data",
)
SHAPES = ("pull", "push", "seeded")
HOSTNAME, LOGIN = "kos", "kos"
# Of the signature of a collection.
NAMESPACE = "kos-collection"
# RFC 1123, without dots: the name of one machine.
_HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
# As useradd(8) of Debian takes it.
_LOGIN = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
# What the kernel and netplan take; no pattern: cloud-init gives those to netplan alone, and Debian may have networkd.
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}")
_MAC = re.compile(r"([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# A login in it would be a secret in user-data.
_URL = re.compile(r"https?://[^\s/@]+/[!-~]+")
_MIRROR = re.compile(r"https?://[^\s/@]+(/[!-~]*)?")
_HEAD = "#cloud-config\n"


@dataclass(frozen=True)
class Network:
    """One card, by its name or its MAC: DHCP, or an `address` with its prefix length, as in 192.0.2.7/24."""

    interface: str
    address: str = ""
    gateway: str = ""
    nameservers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Machine:
    """What it is called, who may log in, where its packages come from. `keys` are lines of OpenSSH, already proved.

    Without a `network` cloud-init itself sees to DHCP, on the first card that is connected.
    """

    keys: tuple[str, ...]
    hostname: str = HOSTNAME
    login: str = LOGIN
    mirror: str = ""
    security_mirror: str = ""
    network: Network | None = None
    full_name: str = ""
    locale: str = ""
    timezone: str = ""


@dataclass(frozen=True)
class Layer:
    """The text of a site or user layer, and the ending of its file (`.yaml`)."""

    text: str
    suffix: str


@dataclass(frozen=True)
class Node:
    """What a machine that deploys itself deploys."""

    profile: str
    environment: str | None = None
    site: Layer | None = None
    user: Layer | None = None
    accepted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Collection:
    """Where the signed collection lies (its signature beside it, `.sig`), and the public key that counts.

    `sha256`: of this very version, where no other will do.
    """

    url: str
    signer: str
    sha256: str = ""


def fault(machine: Machine) -> str:
    """What is wrong with what a machine is told of itself, with the way out; empty where it is good."""
    if not _HOSTNAME.fullmatch(machine.hostname):
        return f"'{machine.hostname[:80]}' is no name for a machine: letters, digits and hyphens, at most 63"
    if not _LOGIN.fullmatch(machine.login) or machine.login == "root":
        return f"'{machine.login[:80]}' is no name for who logs in: small letters, digits, _ and -, and not root"
    card = machine.network.interface if machine.network else ""
    if card and not (_INTERFACE.fullmatch(card) or _MAC.fullmatch(card)):
        return f"'{card[:80]}' is no card: its name as in enp1s0, or its MAC as in 52:54:00:12:34:56"
    for mirror in filter(None, (machine.mirror, machine.security_mirror)):
        if not _MIRROR.fullmatch(mirror):
            return f"'{mirror[:200]}' is no address of a mirror: as in https://mirror.example/debian"
    if not machine.keys:
        return "nobody could log in: name a public key with --ssh-key ~/.ssh/id_ed25519.pub"
    return ""


def collection_fault(collection: Collection) -> str:
    """What is wrong with where the collection lies, with the way out; empty where it is good."""
    if not _URL.fullmatch(collection.url):
        return f"'{collection.url[:200]}' is no address of a file: as in https://kos.example/kind-kos-0.1.0.tar.gz"
    if collection.sha256 and not _SHA256.fullmatch(collection.sha256):
        return "that is no SHA-256: 64 digits and letters from a to f, as `kai cloud-init publish` prints it"
    return ""


def pull(machine: Machine, node: Node, collection: Collection) -> dict[str, str]:
    """The documents of a machine that fetches the signed collection and deploys itself, by name."""
    kind = " ".join(collection.signer.split()[:2])
    files = [
        _file(f"{cloud_scripts.DOOR}/collection", f"{collection.url}\n"),
        _file(f"{cloud_scripts.DOOR}/sha256", f"{collection.sha256}\n" if collection.sha256 else ""),
        _file(f"{cloud_scripts.DOOR}/publishers", f'publisher namespaces="{NAMESPACE}" {kind}\n'),
        *_node_files(machine, node),
        _file(cloud_scripts.KAI, cloud_scripts.LAUNCHER, 0o755),
        _file(cloud_scripts.PATH, cloud_scripts.PULL, 0o700),
    ]
    return _documents(machine, {"write_files": files})


def push(machine: Machine, signer: str = "") -> dict[str, str]:
    """The documents of a machine that waits for a controller; only what `signer` signs can then change it."""
    # As trust.py writes it. Its name does not come from the key, whose comment may be any text.
    known = {"controller": " ".join(signer.split()[:2])} if signer else {}
    files = [_file(f"{STATE}/allowed_signers", trust.file_text(known), 0o644)] if known else []
    data: dict[str, Any] = {"runcmd": [["sh", "-c", cloud_scripts.PUSH]]}
    return _documents(machine, {**data, "write_files": files} if files else data)


def seeded(machine: Machine, node: Node | None) -> dict[str, str]:
    """The documents of a machine that was made of our image; without a `node` a controller deploys it."""
    if node is None:
        return _documents(machine, {})
    files = [*_node_files(machine, node), _file(cloud_scripts.PATH, cloud_scripts.SEEDED, 0o700)]
    return _documents(machine, {"write_files": files})


def _node_files(machine: Machine, node: Node) -> list[dict[str, Any]]:
    """Its own inventory, and the layers that it names."""
    given = {"site": node.site, "user": node.user}
    layers = {name: layer for name, layer in given.items() if layer}
    paths = {name: f"{own_node.LAYERS}/{name}{layer.suffix}" for name, layer in layers.items()}
    inventory = own_node.inventory_text(
        machine.hostname, node.profile, node.environment, node.accepted, paths.get("site"), paths.get("user")
    )
    return [
        _file(own_node.INVENTORY, inventory),
        _file(f"{cloud_scripts.DOOR}/environment", f"{node.environment}\n" if node.environment else ""),
        *(_file(paths[name], layer.text) for name, layer in layers.items()),
    ]


def _file(path: str, content: str, mode: int = 0o600) -> dict[str, Any]:
    return {"path": path, "content": content, "permissions": f"{mode:04o}", "owner": "root:root"}


def _documents(machine: Machine, more: Mapping[str, Any]) -> dict[str, str]:
    person = {
        "name": machine.login,
        "lock_passwd": True,
        "shell": "/bin/bash",
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "ssh_authorized_keys": list(machine.keys),
        **({"gecos": machine.full_name} if machine.full_name else {}),
    }
    place = {key: value for key, value in (("locale", machine.locale), ("timezone", machine.timezone)) if value}
    closed = {"ssh_pwauth": False, "disable_root": True}
    data = {"hostname": machine.hostname, **closed, "users": [person], **place, **_apt(machine), **more}
    user = _HEAD + _yaml(data)
    # Another seed is another machine to cloud-init, which then begins anew.
    instance = uuid5(UUID(int=0), user)
    return {
        USER_DATA: user,
        META_DATA: _yaml({"instance-id": f"kos-{instance}", "local-hostname": machine.hostname}),
        **({NETWORK_CONFIG: _yaml(_network(machine.network))} if machine.network else {}),
        # What holds where somebody gives the machine other user-data.
        VENDOR_DATA: _HEAD + _yaml(closed),
    }


def _apt(machine: Machine) -> dict[str, Any]:
    given = {"primary": machine.mirror, "security": machine.security_mirror}
    found = {key: [{"arches": ["default"], "uri": uri}] for key, uri in given.items() if uri}
    return {"apt": found} if found else {}


def _network(asked: Network) -> dict[str, Any]:
    """Version 2, netplan's."""
    by_mac = _MAC.fullmatch(asked.interface)
    card: dict[str, Any] = {"match": {"macaddress": asked.interface.lower()}} if by_mac else {}
    card |= {"dhcp4": not asked.address, "dhcp6": not asked.address}
    if asked.address:
        six = ip_interface(asked.address).version == 6
        route = {"to": "::/0" if six else "0.0.0.0/0", "via": asked.gateway}
        card |= {"addresses": [asked.address]}
        card |= {"routes": [route]} if asked.gateway else {}
        card |= {"nameservers": {"addresses": list(asked.nameservers)}} if asked.nameservers else {}
    return {"version": 2, "ethernets": {"wired" if by_mac else asked.interface: card}}


class _Readable(yaml.SafeDumper):
    """Writes text of several lines as such: people read these documents."""


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _represent)


def _yaml(data: Mapping[str, Any] | Sequence[Any]) -> str:
    return yaml.dump(data, Dumper=_Readable, sort_keys=True, width=4096)
