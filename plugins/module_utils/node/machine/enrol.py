# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine's own chip learns to open its disks: on the first boot on which Secure Boot is enforced, not before.

PCR 7 holds the state of Secure Boot, so a chip that was told in the installer would open nothing afterwards. The
installer leaves a wish, a key of a slot of its own, and the PIN sealed to this machine, all in the encrypted root; they
are worthless once it is done. A passphrase and a recovery key stay as they are.
"""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from .. import files, system
from ..files import NodeError, Root
from . import cryptsetup, luks, secureboot, systems

FOLDER = "/etc/kos/enrol"
WISH, KEY, PIN = f"{FOLDER}/wish.json", f"{FOLDER}/key", f"{FOLDER}/pin"
# Marks the slot of the installer's key in the header of the disk.
TOKEN = "kos-enrol"  # noqa: S105 -- a type
PIN_NAME = "kos-tpm2-pin"
MEMORY, _NEW_PIN = "/run", "cryptenroll.new-tpm2-pin"
STATE = f"{systems.FOLDER}/enrol.json"
# Copies of the headers of the disks, which the installer made, one NAME.luks-header for each.
HEADERS = "/var/lib/kos-recovery"
TPM = "/dev/tpmrm0"
PCRS = "7"


class EnrolmentFailed(NodeError):
    """The chip did not take the key; the passphrase still opens the disk."""


def wish(root: Root, devices: list[str], pin: bool) -> None:
    """Note what the first boot shall do: `devices` are UUIDs of LUKS headers. Raises OSError."""
    files.make_directory(root.join(FOLDER))
    os.chmod(root.join(FOLDER), 0o700)
    files.write_json(root.join(WISH), {"devices": devices, "pin": pin}, 0o600)


def enrol(root: Root) -> dict[str, Any]:
    """Do what the installer was asked for, once that is possible. Raises NodeError."""
    wanted = files.read_json(root.join(WISH), None)
    if wanted is None:
        return state(root)
    why = obstacle()
    if why:
        return _keep(root, {"tpm2": "pending", "why": why})
    # What must not be guessed is never in a file of another program's: it is decrypted here, by this machine alone.
    unsealed = ["systemd-creds", "decrypt", f"--name={PIN_NAME}", root.join(PIN), "-"]
    pin = system.run(unsealed).stdout if wanted["pin"] else None
    for uuid in wanted["devices"]:
        device = f"/dev/disk/by-uuid/{uuid}"
        if not has_tpm2(device):
            enrol_tpm2(device, root.join(KEY), pin)
        if not has_tpm2(device):
            raise EnrolmentFailed(
                f"{device} has no key of the TPM after one was enrolled: the passphrase still opens it"
            )
    _forget(root, wanted["devices"])
    return _keep(root, {"tpm2": "enrolled", "why": ""})


def obstacle() -> str:
    """Why the chip cannot be told yet; nothing where it can."""
    if not os.path.exists(TPM):
        return "this machine has no TPM 2.0, or firmware hides it"
    if not secureboot.enforced():
        return "Secure Boot is not enforced: switch it on in the firmware's settings"
    return ""


def has_tpm2(device: str) -> bool:
    """Whether a LUKS header has a key of a TPM. Raises CommandFailed."""
    return bool(luks.marked(cryptsetup.dump(device) or {}, luks.TPM2))


def enrol_tpm2(device: str, key_file: str, pin: bytes | None) -> None:
    """Let the chip open it, in the state that its firmware is in now. Raises CommandFailed."""
    argv = ["systemd-cryptenroll", f"--unlock-key-file={key_file}", "--tpm2-device=auto", f"--tpm2-pcrs={PCRS}"]
    with credentials({_NEW_PIN: pin} if pin is not None else {}) as told:
        system.run([*argv, *(["--tpm2-with-pin=yes"] if pin is not None else []), device], environment=told)


@contextlib.contextmanager
def credentials(secrets: Mapping[str, bytes]) -> Iterator[dict[str, str]]:
    """Where systemd's tools find secrets while they run: in memory, for root alone (their manuals, Credentials)."""
    if not secrets:
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="kos-enrol-", dir=MEMORY) as folder:
        for name, secret in secrets.items():
            files.write(os.path.join(folder, name), secret, 0o400)
        yield {"CREDENTIALS_DIRECTORY": folder}


def _forget(root: Root, devices: list[str]) -> None:
    """Take the installer's key out of every header: by itself, so that no other slot can be meant."""
    content = files.read(root.join(KEY))
    for device in [f"/dev/disk/by-uuid/{uuid}" for uuid in devices] if content else ():
        # One that a run before this one has removed is gone.
        system.run(["cryptsetup", "luksRemoveKey", device, "--key-file=-"], content, check=False)
        for number in luks.tokens(cryptsetup.dump(device) or {}, TOKEN):
            system.run(["cryptsetup", "token", "remove", "--token-id", number, device])
    _refresh_headers(root, devices)
    for name in (KEY, PIN, WISH):
        files.remove(root.join(name))


def _refresh_headers(root: Root, devices: list[str]) -> None:
    """Keep copies of the headers as they are now: older ones know no TPM, and still have the installer's key."""
    for path in sorted(glob.glob(root.join(f"{HEADERS}/*.luks-header"))):
        uuid = cryptsetup.uuid(path)
        if uuid in devices:
            cryptsetup.keep_header(f"/dev/disk/by-uuid/{uuid}", path)


def _keep(root: Root, told: dict[str, Any]) -> dict[str, Any]:
    if state(root) != told:
        files.write_json(root.join(STATE), told)
    return told


def state(root: Root) -> dict[str, Any]:
    """What was done or is waited for, for status; empty where nothing was asked for."""
    return dict(files.read_json(root.join(STATE), {}))
