# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's networks, as files of systemd-networkd and iwd. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..answers import Interface
from .target import Entry, File, Link

_FOLDER, _IWD = "/etc/systemd/network", "/var/lib/iwd"
_WIRED, _WIRELESS = "en*", "wl*"
# iwd.network(5): other names are written in hexadecimal.
_PLAIN_SSID = re.compile(r"[A-Za-z0-9_ -]+")
_WANTED_BY = "/etc/systemd/system/multi-user.target.wants/iwd.service"


class Missing(ValueError):
    """A secret that the answers speak of and nobody gave; its name."""


def entries(networks: Sequence[Interface], secrets: Mapping[str, str]) -> list[Entry]:
    """The files of all of them; `secrets` has ``wifi:SSID``. Raises Missing."""
    found: list[Entry] = []
    for number, one in enumerate(networks, 10):
        if one.wifi is not None:
            found += [_wifi(one.wifi.ssid, secrets)]
        if one.vlan is None:
            found.append(_network(f"{number}-kos", _match(one), _addressed(one)))
            continue
        name = f"vlan{one.vlan.id}"
        found.append(_network(f"{number}-kos-below-{name}", _match(one), [f"VLAN={name}", "LinkLocalAddressing=no"]))
        device = f"[NetDev]\nName={name}\nKind=vlan\n\n[VLAN]\nId={one.vlan.id}\n"
        found.append(File(f"{_FOLDER}/{number}-kos-{name}.netdev", device))
        found.append(_network(f"{number}-kos-{name}", name, _addressed(one)))
    if any(one.wifi for one in networks):
        found.append(Link(_WANTED_BY, "/usr/lib/systemd/system/iwd.service"))
    return found


def _match(one: Interface) -> str:
    return _WIRELESS if one.wifi is not None and one.match == _WIRED else one.match


def _network(name: str, match: str, lines: Sequence[str]) -> File:
    text = "\n".join(["[Match]", f"Name={match}", "", "[Network]", *lines])
    return File(f"{_FOLDER}/{name}.network", f"{text}\n")


def _addressed(one: Interface) -> list[str]:
    lines = ["DHCP=yes"] if one.dhcp else []
    lines += [f"Address={address}" for address in one.addresses]
    lines += [f"Gateway={one.gateway}"] if one.gateway else []
    lines += [f"DNS={server}" for server in one.dns]
    # A radio that loses its network for a moment keeps its address.
    return lines + (["IgnoreCarrierLoss=10s"] if one.wifi is not None else [])


def _wifi(ssid: str, secrets: Mapping[str, str]) -> File:
    passphrase = secrets.get(f"wifi:{ssid}")
    if passphrase is None:
        raise Missing(f"wifi:{ssid}")
    name = ssid if _PLAIN_SSID.fullmatch(ssid) else "=" + ssid.encode().hex()
    return File(f"{_IWD}/{name}.psk", f"[Security]\nPassphrase={_escaped(passphrase)}\n", 0o600)


def _escaped(text: str) -> str:
    # iwd.network(5): a value loses the spaces that it begins with, unless they are written \s.
    escaped = text.replace("\\", "\\\\")
    spaces = len(escaped) - len(escaped.lstrip(" "))
    return "\\s" * spaces + escaped[spaces:]
