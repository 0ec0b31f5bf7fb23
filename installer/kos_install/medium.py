# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The medium that this system was started from: what it is, and whether it is as it was made.

One process reads the medium (`kos-install --verify`, a systemd unit); every console looks at what it wrote.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.kind.kos.plugins.module_utils.node import trust
from ansible_collections.kind.kos.plugins.module_utils.node.files import NodeError
from ansible_collections.kind.kos.plugins.plugin_utils import media_check
from ansible_collections.kind.kos.plugins.plugin_utils.media import NoManifest

# Below the proved root, put there when the medium was made.
RECORD = Path("/usr/share/kos/medium.json")
KEYS = Path("/usr/share/kos/keys")
STATE = Path("/run/kos/verification.json")
VERIFIER = "kos-verify.service"

RUNNING, GOOD, BROKEN, UNKNOWN = "running", "good", "broken", "unknown"
_TOLD_EVERY = 0.5  # seconds


@dataclass(frozen=True)
class Verification:
    """How far it has come: bytes while it runs; who signed it, or what is wrong, when it is over."""

    state: str
    done: int = 0
    total: int = 0
    signer: str = ""
    said: tuple[str, ...] = ()


def record(path: Path = RECORD) -> dict[str, Any]:
    """What the medium is, as it was written when it was made; empty where this is none."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def own_disk(system: Path = Path("/")) -> Path | None:
    """The disk that the proved root lies on, as in /dev; None where there is no such root."""
    mapper = system / "dev/mapper/root"
    slaves = sorted((system / "sys/class/block" / mapper.resolve().name / "slaves").glob("*"))
    if not mapper.exists() or not slaves:
        return None
    return Path("/dev") / (system / "sys/class/block" / slaves[0].name).resolve().parent.name


def partition(label: str, system: Path = Path("/")) -> Path | None:
    """The partition of our own disk with this label, as in /dev: another disk may have one that is called so."""
    disk = own_disk(system)
    for path in sorted((system / "sys/class/block" / disk.name).glob("*/uevent")) if disk else []:
        if f"PARTNAME={label}" in path.read_text(encoding="utf-8").splitlines():
            return Path("/dev") / path.parent.name
    return None


def known(folder: Path = KEYS) -> dict[str, str]:
    """The public keys whose signature counts, by name: the medium's own, which its proved root holds."""
    found = {}
    for path in sorted(folder.glob("*.pub")):
        key, comment = trust.parse_key(path.read_text(encoding="utf-8"))
        found[comment or path.stem] = key
    return found


def verify(disk: Path | None, keys: Mapping[str, str], state: Path = STATE) -> Verification:
    """Read the whole medium and write how it goes to `state`."""
    state.parent.mkdir(parents=True, exist_ok=True)
    told = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told > _TOLD_EVERY:
            told = time.monotonic()
            _write(state, Verification(RUNNING, done, total))

    _write(state, Verification(RUNNING))
    result = _result(disk, keys, tell)
    _write(state, result)
    return result


def _result(disk: Path | None, keys: Mapping[str, str], tell: Any) -> Verification:
    if disk is None:
        return Verification(UNKNOWN, said=("this system was not started from a medium that can be proved",))
    try:
        report = media_check.verify(disk, keys, tell)
    except (OSError, NoManifest, NodeError) as error:
        return Verification(UNKNOWN, said=(str(error),))
    size = report.sealed.manifest.size if report.sealed else 0
    if report.ok:
        return Verification(GOOD, size, size, report.signer)
    return Verification(BROKEN, size, size, report.signer, tuple(map(str, report.faults)))


def progress(state: Path = STATE) -> Verification:
    """What the verifying process last wrote."""
    try:
        data = json.loads(state.read_text(encoding="utf-8"))
        return Verification(**{**data, "said": tuple(data["said"])})
    except (OSError, ValueError, TypeError, KeyError):
        return Verification(RUNNING)


def sentence(now: Verification) -> str:
    """What came out of it, for a log or a terminal."""
    if now.state == GOOD:
        return f"Verified: all {_size(now.total)} of this medium are as {now.signer} signed them."
    if now.state == BROKEN:
        return "\n  ".join(["BROKEN: this medium is not as it was made. Do not install from it.", *now.said])
    return f"Not verified: {' '.join(now.said)}"


def _size(count: int) -> str:
    return f"{count / 10**6:.0f} MB" if count < 10**9 else f"{count / 10**9:.1f} GB"


def _write(state: Path, verification: Verification) -> None:
    unfinished = state.with_name(f".{state.name}.new")
    unfinished.write_text(json.dumps(vars(verification)), encoding="utf-8")
    os.replace(unfinished, state)
