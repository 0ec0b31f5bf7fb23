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
_PATTERN = re.compile(r"[*?\[]")
# iwd.network(5): other names are written in hexadecimal.
_PLAIN_SSID = re.compile(r"[A-Za-z0-9_ -]+")
_WANTED_BY = "/etc/systemd/system/multi-user.target.wants/iwd.service"


class Missing(ValueError):
    """A secret that the answers speak of and nobody gave; its name."""


def entries(networks: Sequence[Interface], secrets: Mapping[str, str]) -> list[Entry]:
    """The files of all of them; `secrets` has ``wifi:SSID``. Raises Missing."""
    found: list[Entry] = []
    for number, (match, group) in enumerate(_cards(networks), 10):
        found += [_wifi(one.wifi.ssid, secrets) for one in group if one.wifi is not None]
        found += _card(number, match, group)
    if any(one.wifi for one in networks):
        found.append(Link(_WANTED_BY, "/usr/lib/systemd/system/iwd.service"))
    return found


def _cards(networks: Sequence[Interface]) -> list[tuple[str, list[Interface]]]:
    """What is asked of each card: systemd-networkd takes the first file that matches one, and no other.

    So a card that is named comes before a pattern that has it too.
    """
    found: dict[str, list[Interface]] = {}
    for one in networks:
        found.setdefault(_match(one), []).append(one)
    return sorted(found.items(), key=lambda row: bool(_PATTERN.search(row[0])))


def _card(number: int, match: str, group: Sequence[Interface]) -> list[Entry]:
    """One file for the card, whatever lies over it, and two for each VLAN."""
    direct = [one for one in group if one.vlan is None]
    over = {one.vlan.id: one for one in group if one.vlan is not None}
    lines = [line for one in direct for line in _addressed(one)] or ["LinkLocalAddressing=no"]
    lines += [f"VLAN=vlan{tag}" for tag in over]
    found: list[Entry] = [_network(f"{number}-kos", match, list(dict.fromkeys(lines)))]
    for tag, one in over.items():
        device = f"[NetDev]\nName=vlan{tag}\nKind=vlan\n\n[VLAN]\nId={tag}\n"
        found.append(File(f"{_FOLDER}/{number}-kos-vlan{tag}.netdev", device))
        found.append(_network(f"{number}-kos-vlan{tag}", f"vlan{tag}", _addressed(one)))
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
