# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the secrets of an install come from. They live in memory: never in arguments, logs, or a file that is ours."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ansible_collections.kind.kos.plugins.module_utils.node.machine import strength

from .answers import Answers, Secret
from .errors import InstallError, Unplannable

# systemd.exec(5): those of this service, and those that the machine was started with.
_OF_SERVICE = "CREDENTIALS_DIRECTORY"
_OF_SYSTEM = Path("/run/credentials/@system")
_LONGEST = strength.LONGEST
# Characters. A PIN is guarded by the TPM itself, which lets nobody guess for long.
PIN_LEAST = 6
_SHORTEST = {"tpm2_pin": PIN_LEAST, "wifi": 8}
# IEEE 802.11: of a WPA passphrase, bytes.
_LONGEST_WPA = 63

# What is asked for -> what was typed.
Prompt = Callable[[str], str]


def wanted(answers: Answers) -> dict[str, tuple[str, Secret]]:
    """Name of each secret that these answers need -> the key they name it by, and where it comes from."""
    asked = answers.encryption
    found = {"passphrase": ("encryption.passphrase", asked.passphrase)}
    if asked.tpm2 and asked.tpm2.pin:
        found["tpm2_pin"] = ("encryption.tpm2.pin", asked.tpm2.pin)
    for number, one in enumerate(answers.network):
        if one.wifi:
            found[f"wifi:{one.wifi.ssid}"] = (f"network[{number}].wifi.passphrase", one.wifi.passphrase)
    return found


def place_of(key: str) -> tuple[str | int, ...]:
    """``network[0].wifi`` step by step."""
    return tuple(int(step) if step.isdecimal() else step for step in re.findall(r"[^.\[\]]+", key))


def resolve(
    answers: Answers, beside: Path, prompt: Prompt | None = None, environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """Every secret by name. `beside`: the folder of the answers; without `prompt` nobody is there to type.

    Raises Unplannable with one sentence for each that is missing or useless; none of them shows a secret.
    """
    found, faults = {}, []
    for name, (key, secret) in wanted(answers).items():
        try:
            found[name] = _usable(name, _read(key, secret, beside, prompt, environment))
        except InstallError as error:
            faults.append(f"{key}: {error}")
    if faults:
        raise Unplannable(*faults)
    return found


def faults_of_files(answers: Answers, beside: Path) -> dict[str, str]:
    """Key of each secret that is a file -> what is wrong with it, as `resolve` would say; none that is good.

    Credentials, and what is typed, are only on the machine that is installed.
    """
    faults = {}
    for name, (key, secret) in wanted(answers).items():
        if secret.file is not None:
            try:
                _usable(name, _beside(beside, secret.file))
            except InstallError as error:
                faults[key] = str(error)
    return faults


def _read(key: str, secret: Secret, beside: Path, prompt: Prompt | None, environment: Mapping[str, str]) -> bytes:
    if secret.credential is not None:
        return _credential(secret.credential, environment)
    if secret.file is not None:
        return _beside(beside, secret.file)
    if prompt is None:
        raise InstallError("nobody is there to type it: start it at a terminal, or give a credential or a file")
    return prompt(key).encode()


def _credential(name: str, environment: Mapping[str, str]) -> bytes:
    for folder in _folders(environment):
        if (folder / name).is_file():
            return _content(folder / name)
    raise InstallError(
        f"there is no credential {name}: give it to the service (LoadCredential=) or to the machine (SMBIOS, kernel)"
    )


def _folders(environment: Mapping[str, str]) -> Iterator[Path]:
    if environment.get(_OF_SERVICE):
        yield Path(environment[_OF_SERVICE])
    yield _OF_SYSTEM


def _beside(folder: Path, name: str) -> bytes:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InstallError("the file must lie beside the answers or in a folder there: a relative path without ..")
    return _content(folder / name)


def _content(path: Path) -> bytes:
    """A small regular file. Raises InstallError, which names the file and not what is in it."""
    try:
        # O_NONBLOCK: opening a FIFO must not hang.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InstallError(f"{path} is no regular file")
            return stream.read(_LONGEST + 2)
    except OSError as error:
        raise InstallError(f"{path} cannot be read: {error.strerror}") from error


def _usable(name: str, raw: bytes) -> str:
    """A secret as it will be typed: one line of letters that a keyboard has. Raises InstallError."""
    try:
        text = raw.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise InstallError("it is not UTF-8, so nobody could type it") from None
    if wrong := fault(name, text):
        raise InstallError(wrong)
    return normal(text)


def normal(text: str) -> str:
    """As the keys of a console give it, letters with their accents in one: some systems send the two apart."""
    return unicodedata.normalize("NFC", text)


def fault(name: str, text: str) -> str:
    """What is wrong with a secret of this name, without repeating it; empty where nothing is.

    One rule for every way in: the screens, a file, a credential, a client of the engine.
    """
    kind = name.partition(":")[0]
    least, most = _SHORTEST.get(kind, 1), _LONGEST_WPA if kind == "wifi" else _LONGEST
    if kind == "passphrase":
        return strength.fault(text)
    if not text.isprintable():
        return strength.UNTYPEABLE
    if len(text) < least:
        return f"it is shorter than {least} characters"
    if len(text.encode()) > most:
        return f"it is longer than {most} bytes"
    return ""
