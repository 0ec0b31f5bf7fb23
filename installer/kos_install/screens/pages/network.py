# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How the node reaches others: by itself, with a fixed address, by Wi-Fi, or not at all."""

from __future__ import annotations

import ipaddress
from typing import Any

from ..draft import Draft
from ..model import Option, Page, Question, Session
from ..words import _
from .encryption import secret

_DHCP, _STATIC, _WIFI, _NONE = "dhcp", "static", "wifi", "none"
_ANY = "en*"
_VLAN_MOST = 4094  # IEEE 802.1Q


def page(session: Session) -> Page:
    """Ask for one network; further ones of an answers file stay as they are."""
    wireless = [card for card in session.machine.nics if card.wireless]
    cards = [Option(_ANY, _("whichever has a cable"))]
    cards += [Option(card.name, f"{card.name}  {card.mac}") for card in session.machine.nics if not card.wireless]
    kinds = [
        Option(_DHCP, _("a cable, and the network gives the address (DHCP)")),
        Option(_STATIC, _("a cable, and an address that you know")),
        Option(_WIFI, _("Wi-Fi"), "" if wireless else _("this machine has no Wi-Fi card that Linux knows")),
        Option(_NONE, _("no network")),
    ]
    return Page(
        "network",
        _("Network"),
        _("How shall this machine reach others once it is installed? The install itself needs no network."),
        _(
            "If you do not know, choose the first: nearly every router gives addresses. An address is written with the"
            " length of its network, such as 192.0.2.7/24. A VLAN is a number that whoever runs the network tells you."
        ),
        [
            Question("network", _("Network"), "choice", kind, _choose, kinds),
            _field("match", _("Card"), "pick", cards, _wired),
            _field("addresses", _("Address"), check=_address, shown=_static),
            _field("gateway", _("Gateway"), check=_host, shown=_static),
            _field("dns", _("Name servers"), check=_hosts, shown=_static),
            _field("vlan", _("VLAN"), check=_vlan, shown=_wired),
            _field("card", _("Card"), "pick", [Option(card.name, card.name) for card in wireless], _wireless),
            _field("ssid", _("Name of the Wi-Fi"), check=_ssid, shown=_wireless),
            _wifi_passphrase(),
        ],
    )


def kind(draft: Draft) -> str:
    """Which of the ways was chosen."""
    if draft.scratch.get("network"):
        return str(draft.scratch["network"])
    given = draft.get("network")
    if given is None:
        return _DHCP
    if not given:
        return _NONE
    return _WIFI if given[0].get("wifi") else _DHCP if given[0].get("dhcp", True) else _STATIC


def _choose(draft: Draft, value: str) -> None:
    draft.scratch["network"] = value
    settle(draft)


def settle(draft: Draft) -> None:
    """Write the network down as answers."""
    way = kind(draft)
    rest = (draft.get("network") or [])[1:]
    one = {_DHCP: _cable, _STATIC: _fixed, _WIFI: _air}.get(way)
    if one is None:
        draft.put("network", [])
        return
    interface = one(draft)
    draft.put("network", None if way == _DHCP and not interface and not rest else [interface, *rest])


def _cable(draft: Draft) -> dict[str, Any]:
    card, vlan = value(draft, "match"), value(draft, "vlan")
    tagged = {"vlan": {"id": int(vlan)}} if vlan.isdecimal() else {}
    return {**({"match": card} if card not in {"", _ANY} else {}), **tagged}


def _fixed(draft: Draft) -> dict[str, Any]:
    gateway, servers = value(draft, "gateway"), value(draft, "dns").replace(",", " ").split()
    more = {**({"gateway": gateway} if gateway else {}), **({"dns": servers} if servers else {})}
    return {**_cable(draft), "dhcp": False, "addresses": value(draft, "addresses").replace(",", " ").split(), **more}


def _air(draft: Draft) -> dict[str, Any]:
    return {"match": value(draft, "card"), "wifi": {"ssid": value(draft, "ssid"), "passphrase": {"prompt": True}}}


def value(draft: Draft, key: str) -> str:
    """What stands in a field: typed here, or from answers that came from elsewhere."""
    if f"network.{key}" in draft.scratch:
        return str(draft.scratch[f"network.{key}"])
    first = (draft.get("network") or [{}])[0]
    found = {
        "match": first.get("match", _ANY),
        "card": first.get("match", ""),
        "addresses": " ".join(first.get("addresses", [])),
        "dns": " ".join(first.get("dns", [])),
        "vlan": str((first.get("vlan") or {}).get("id", "")),
        "ssid": (first.get("wifi") or {}).get("ssid", ""),
    }
    return str(found.get(key, first.get(key) or ""))


def _field(
    key: str, label: str, what: Any = "text", options: Any = (), shown: Any = None, check: Any = None
) -> Question:
    def write(draft: Draft, given: str) -> None:
        draft.scratch[f"network.{key}"] = given.strip()
        settle(draft)

    return Question(
        f"network.{key}", label, what, lambda draft: value(draft, key), write, options,
        check=check or (lambda _given: ""), shown=shown,
    )  # fmt: skip


def _wifi_passphrase() -> Question:
    """Under the name of the Wi-Fi that it belongs to."""
    asked = secret("wifi", _("Its passphrase"), _wpa)

    def write(draft: Draft, given: str) -> None:
        for name in [name for name in draft.secrets if name.startswith("wifi:")]:
            del draft.secrets[name]
        draft.secrets[f"wifi:{value(draft, 'ssid')}"] = given

    def read(draft: Draft) -> str:
        return draft.secrets.get(f"wifi:{value(draft, 'ssid')}", "")

    return Question("wifi", asked.label, "secret", read, write, check=_wpa, shown=_wireless)


def _static(draft: Draft) -> bool:
    return kind(draft) == _STATIC


def _wired(draft: Draft) -> bool:
    return kind(draft) in {_DHCP, _STATIC}


def _wireless(draft: Draft) -> bool:
    return kind(draft) == _WIFI


def _address(given: str) -> str:
    said = _("an address with the length of its network, such as 192.0.2.7/24")
    try:
        return "" if [ipaddress.ip_interface(one) for one in given.replace(",", " ").split() if "/" in one] else said
    except ValueError:
        return said


def _host(given: str) -> str:
    try:
        if given:
            ipaddress.ip_address(given)
    except ValueError:
        return _("an address such as 192.0.2.1, or nothing")
    return ""


def _hosts(given: str) -> str:
    return next((fault for one in given.replace(",", " ").split() if (fault := _host(one))), "")


def _vlan(given: str) -> str:
    fine = not given or (given.isdecimal() and 1 <= int(given) <= _VLAN_MOST)
    return "" if fine else _("a number from 1 to {most}, or nothing").format(most=_VLAN_MOST)


def _ssid(given: str) -> str:
    return "" if 0 < len(given.encode()) <= 32 else _("1 to 32 characters")


def _wpa(given: str) -> str:
    # IEEE 802.11: of WPA-PSK; networks without one are not offered.
    return "" if 8 <= len(given) <= 63 else _("8 to 63 characters")
