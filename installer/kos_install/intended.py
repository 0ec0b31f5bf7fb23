# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the node will be by its answers: its name, who may log in, its network, how its disk opens. No secret in it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from ansible_collections.kind.kos.plugins.plugin_utils import public_keys

from . import secrets
from .answers import Answers, Encryption, Interface, Secret

_INDENT = 10  # columns, as in the summary of the machine
_WIDTH = 79


def node(answers: Answers, profile: str | None) -> dict[str, Any]:
    """As data; `profile`: the one that is taken, None where only the medium knows it."""
    user = answers.user
    return {
        "hostname": answers.hostname,
        "profile": profile,
        "environment": answers.environment,
        "locale": answers.locale,
        "keyboard": answers.keyboard,
        "timezone": answers.timezone,
        "user": {
            "name": user.name,
            "password": user.password_hash is not None,
            "ssh_keys": [public_keys.fingerprint(key) for key in user.ssh_keys],
        },
        "network": [one.model_dump(mode="json", exclude={"wifi": {"passphrase"}}) for one in answers.network],
        "opens": list(_opens(answers.encryption)),
        "secure_boot": answers.encryption.secure_boot,
        "unchecked": {key: _source(one) for key, one in secrets.wanted(answers).values() if one.file is None},
        "after": answers.after,
    }


def lines(answers: Answers, profile: str | None) -> Iterator[str]:
    """As text of 79 columns."""
    told = node(answers, profile)
    of = f"profile {profile}" if profile else "the profile of the medium"
    of += f", environment {answers.environment}" if answers.environment else ""
    yield from _row("Node", f"{answers.hostname}, {of}")
    yield from _row("", f"keyboard {answers.keyboard}, locale {answers.locale}, time zone {answers.timezone}")
    has = "a password" if told["user"]["password"] else "no password"
    has += " and" if told["user"]["ssh_keys"] else ", and no SSH key"
    yield from _row("User", f"{answers.user.name} with {has}{' these SSH keys:' if told['user']['ssh_keys'] else ''}")
    for key in told["user"]["ssh_keys"]:
        yield from _row("", key)
    for number, interface in enumerate(answers.network):
        yield from _row("" if number else "Network", _network(interface))
    if not answers.network:
        yield from _row("Network", "none")
    yield from _row("Opens by", "; ".join(told["opens"]))
    yield from _row("", f"Secure Boot with {answers.encryption.secure_boot} keys")
    if told["unchecked"]:
        named = ", ".join(f"{key} ({source})" for key, source in told["unchecked"].items())
        yield from _row("Unchecked", f"{named}: only the machine that is installed can look at it")
    yield from _row(
        "After", {"reboot": "it restarts", "power_off": "it is switched off", "wait": "it waits"}[told["after"]]
    )


def _row(title: str, text: str) -> list[str]:
    first, rest = f"{title:<{_INDENT}}", " " * _INDENT
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def _network(asked: Interface) -> str:
    parts = [*(["DHCP"] if asked.dhcp else []), *asked.addresses]
    parts += [f"gateway {asked.gateway}"] if asked.gateway else []
    parts += [f"name servers {' '.join(asked.dns)}"] if asked.dns else []
    parts += [f"VLAN {asked.vlan.id}"] if asked.vlan else []
    parts += [f"Wi-Fi {asked.wifi.ssid}"] if asked.wifi else []
    return f"{asked.match}: {', '.join(parts)}"


def _opens(asked: Encryption) -> Iterator[str]:
    yield f"a passphrase ({_source(asked.passphrase)})"
    if asked.recovery_key:
        yield "a recovery key, shown once at the end; none where nobody watches"
    if asked.tpm2:
        yield "the TPM, with a PIN" if asked.tpm2.pin else "the TPM, without a PIN"
    if asked.fido2:
        yield "a FIDO2 key"
    if asked.tang:
        yield f"the Tang server {asked.tang.url}"
    if asked.remote_unlock:
        keys = ", ".join(map(public_keys.fingerprint, asked.remote_unlock.ssh_keys))
        yield f"the passphrase over SSH, port {asked.remote_unlock.port}, with {keys}"


def _source(secret: Secret) -> str:
    if secret.file is not None:
        return f"file {secret.file}"
    return "typed" if secret.credential is None else f"credential {secret.credential}"
