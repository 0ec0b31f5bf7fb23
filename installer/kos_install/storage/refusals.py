# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a machine cannot do though the answers ask for it; whatever disk it is. Each is a sentence with the fix."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from ipaddress import ip_address
from urllib.parse import urlsplit

from ansible_collections.kind.kos.plugins.plugin_utils import hardware
from ansible_collections.kind.kos.plugins.plugin_utils.hardware import memory
from ansible_collections.kind.kos.plugins.plugin_utils.profile import Minimum

from ..answers import Answers, Secret
from ..hardware.facts import facts
from ..hardware.model import Disk, Machine
from .cost import unaffordable
from .selection import described

# Below it neither the passphrase's argon2id nor unpacking the system has room.
MEMORY_LEAST_MB = 480  # what a machine sold with 512 MB reports, and a little less


def refusals(answers: Answers, machine: Machine, test: bool) -> list[str]:
    """Everything but disks; `test`: the medium was built for tests, which may unlock cheaply."""
    found = [*_machine(answers, machine), *_unlocking(answers, machine), *_over_network(answers, machine)]
    found += _network(answers, machine)
    if answers.encryption.argon2id:
        found += unaffordable(machine, answers.encryption.argon2id, test)
    return found


def _machine(answers: Answers, machine: Machine) -> Iterator[str]:
    if machine.memory_mb < MEMORY_LEAST_MB:
        here, least = memory(machine.memory_mb), memory(MEMORY_LEAST_MB)
        yield f"{here} of memory do not suffice: {least} are the least for an install"
    if machine.firmware == "bios" and answers.storage.layout == "free_space":
        yield "storage.layout: free_space needs UEFI: started by a BIOS, two systems would fight over one boot sector"
    if answers.encryption.secure_boot == "own" and answers.storage.layout == "free_space":
        yield (
            "encryption.secure_boot: own keys take the place of those by which the system beside kOS starts: take"
            " stock, or a disk for kOS alone"
        )
    if machine.firmware == "bios" and machine.architecture != "amd64":
        yield f"an {machine.architecture} machine starts kOS by UEFI: give it such firmware, or flash a card image"


def _unlocking(answers: Answers, machine: Machine) -> Iterator[str]:
    asked = answers.encryption
    if asked.secure_boot == "own" and machine.firmware != "uefi":
        yield "encryption.secure_boot: own needs UEFI, and a BIOS started this machine: start it by UEFI, or take stock"
    elif asked.secure_boot == "own" and machine.secure_boot != "setup":
        yield (
            "encryption.secure_boot: own keys can only be enrolled in setup mode: in the firmware's Secure Boot menu"
            " reset to setup mode (it may be called: delete all keys), start this medium again, or take stock"
        )
    if asked.tpm2 and not machine.tpm2:
        yield "encryption.tpm2: this machine shows no TPM 2: switch it on in the firmware, or leave the key away"
    elif asked.tpm2 and machine.firmware != "uefi":
        yield "encryption.tpm2 needs Secure Boot, which a machine that is started by a BIOS lacks: leave the key away"
    elif asked.tpm2 and asked.secure_boot == "stock" and not asked.tpm2.pin:
        yield (
            "encryption.tpm2: with stock keys anybody could start an initrd of theirs, and the TPM would open the disk"
            " for it: give tpm2.pin, or take secure_boot: own"
        )
    if asked.fido2 and not machine.fido2:
        yield "encryption.fido2: no FIDO2 key is plugged in: plug it in, or leave the key away"


def _over_network(answers: Answers, machine: Machine) -> Iterator[str]:
    """While the disk is locked there is a network by cable and no Wi-Fi (see dracut's module 90kos-unlock)."""
    asked = answers.encryption
    if asked.tang and not _is_address(urlsplit(asked.tang.url).hostname or ""):
        yield "encryption.tang.url: while the disk is locked nobody looks up names: give the server's address"
    for key, wanted in (("tang", asked.tang), ("remote_unlock", asked.remote_unlock)):
        if wanted and all(one.wifi or one.match.startswith("wl") for one in answers.network):
            yield f"encryption.{key} needs a network by cable: give one, or leave the key away"
        elif wanted and machine.nics and all(card.wireless for card in machine.nics):
            yield f"encryption.{key} needs a cable, and this machine has no card for one: add it, or leave the key away"


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _network(answers: Answers, machine: Machine) -> Iterator[str]:
    cards = [card.name for card in machine.nics if card.wireless]
    for number, interface in enumerate(answers.network):
        if not interface.wifi:
            continue
        if not cards:
            yield f"network[{number}].wifi: this machine has no Wi-Fi card that Linux knows: use a cable, or add a card"
        elif not any(fnmatchcase(card, interface.match) for card in cards):
            yield f"network[{number}].match: no Wi-Fi card is called {interface.match}; there is {', '.join(cards)}"


def shortfalls(
    answers: Answers, machine: Machine, minimum: Minimum | None, profile: str, disk_gb: int | None
) -> tuple[list[str], list[str]]:
    """What the profile asks for and this machine lacks: (refused, accepted by the answers).

    `disk_gb` is None where no disk is to be judged.
    """
    if minimum is None:
        return [], []
    if disk_gb is None:
        minimum, disk_gb = minimum.model_copy(update={"disk_gb": None}), 0
    rows = hardware.shortfalls(facts(machine, disk_gb), minimum, set(answers.accept_shortfall))
    refused = [
        f"{row.what}: the profile {profile} needs {row.need}, and here is {row.have}: take another profile,"
        f" or accept_shortfall: [{row.what}]"
        for row in rows
        if not row.accepted
    ]
    return refused, [
        f"{row.what}: the profile {profile} needs {row.need}, and here is {row.have}" for row in rows if row.accepted
    ]


def unattended(answers: Answers, machine: Machine, wiped: list[str], given: bool = False) -> list[str]:
    """Why these answers do not suffice when nobody watches: a secret to type, a disk whose end nobody confirmed.

    `given`: every secret is there already, whoever typed it.
    """
    asked: list[tuple[str, Secret | None]] = [("encryption.passphrase", answers.encryption.passphrase)]
    asked.append(("encryption.tpm2.pin", answers.encryption.tpm2.pin if answers.encryption.tpm2 else None))
    asked += [(f"network[{number}].wifi.passphrase", one.wifi.passphrase if one.wifi else None)
              for number, one in enumerate(answers.network)]  # fmt: skip
    found = [
        f"{key}: nobody is there to type it: give a credential or a file"
        for key, one in asked
        if one and one.prompt and not given
    ]
    if "recovery_key" in answers.encryption.model_fields_set and answers.encryption.recovery_key:
        found.append("encryption.recovery_key: nobody is there to write it down: leave it away, or say false")
    if answers.encryption.fido2:
        found.append("encryption.fido2: nobody is there to touch the key: leave it away, or install at the screen")
    for disk in machine.disks:
        if disk.path in wiped and disk.installed == answers.digest() and not answers.confirm.again:
            found.append(
                f"confirm.again: these very answers have installed {described(disk)} already: take the medium out to"
                " start what is there, or add confirm.again: true to wipe it once more"
            )
        words = _words(disk)
        if disk.path in wiped and not set(words) & set(answers.confirm.wipe):
            found.append(_unconfirmed(disk, words))
    return found


def _words(disk: Disk) -> list[str]:
    """What confirms the end of a disk: its serial number to the letter; of one that has none, its other names."""
    return [disk.serial] if disk.serial else [name.rpartition("/")[2] for name in disk.by_id]


def _unconfirmed(disk: Disk, words: list[str]) -> str:
    if not words:
        return f"confirm.wipe: {described(disk)} has nothing to tell it by: install it at the screen"
    return f"confirm.wipe does not name {described(disk)}, which would be wiped: add {words[0]}"
