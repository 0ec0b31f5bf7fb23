# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is true of the encrypted data now, as the kernel and the header say: nothing of it is taken from our record."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .. import system
from ..files import Root
from ..machine import cryptsetup, luks
from .record import DEVICE, NAME, VOLUME, Record, moved


@dataclass(frozen=True)
class Finding:
    """A thing that was looked at, whether it is as it must be, and what was found."""

    what: str
    good: bool
    found: str = ""


def of(root: Root, record: Record) -> list[Finding]:
    """All of it, for a volume that is open. Raises CommandFailed."""
    return [*_mapping(record), *_header(record), *_directories(root)]


def _mapping(record: Record) -> Iterator[Finding]:
    # Start, length, kind, cipher, key, offset of the cipher, device, offset there.
    words = system.run(["dmsetup", "table", NAME], check=False).stdout.decode().split()
    kind, cipher = (words[2:4]) if len(words) > 7 else ("", "")
    good = (kind, cipher) == ("crypt", luks.CIPHER)
    yield Finding(f"the kernel encrypts {DEVICE} (dmsetup table)", good, " ".join((kind, cipher)))
    tree = ["lsblk", "--json", "--bytes", "--tree", "--inverse", "--output", "NAME,PATH,TYPE,UUID,MAJ:MIN", DEVICE]
    top = json.loads(system.run(tree).stdout)["blockdevices"][0]
    below = list(_walk(top))[1:]
    number = words[6] if len(words) > 7 else ""
    lies = top["type"] == "crypt" and any(row["maj:min"] == number for row in below)
    yield Finding(f"{DEVICE} lies on an encrypted device (lsblk)", lies, ", ".join(row["path"] for row in below))
    # A file is on a loop device, which lsblk may not look into.
    right = record.file or any(row["uuid"] == record.uuid for row in below)
    yield Finding("it is the volume that was made for this node", right, record.uuid)


def _walk(row: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield row
    for child in row.get("children", ()):
        yield from _walk(child)


def _header(record: Record) -> Iterator[Finding]:
    header = cryptsetup.dump(record.device)
    yield Finding(f"{record.device} is LUKS2", header is not None)
    if header is not None:
        yield Finding("all of it is encrypted", luks.whole(header))
        costs = luks.costs(header)
        strong = all(cost[0] == "argon2id" and cost[1] >= luks.FLOOR_KIB for cost in costs)
        yield Finding("a guess at a passphrase costs argon2id", bool(costs) and strong, f"{costs}")


def _directories(root: Root) -> Iterator[Finding]:
    number = os.stat(DEVICE).st_rdev if os.path.exists(DEVICE) else 0
    for path in (VOLUME, *moved(root)):
        here = os.stat(root.join(path)).st_dev if os.path.isdir(root.join(path)) else -1
        yield Finding(
            f"{path} lies in the volume", here == number, f"{os.major(max(here, 0))}:{os.minor(max(here, 0))}"
        )


def plain_swap(root: Root) -> list[str]:
    """Swap that is in clear: what services have in memory may be written there."""
    with open(root.join("/proc/swaps"), encoding="utf-8") as stream:
        names = [line.split()[0] for line in stream.readlines()[1:]]
    return [name for name in names if not os.path.basename(name).startswith("zram") and not _encrypted(name)]


def _encrypted(device: str) -> bool:
    said = system.run(["lsblk", "--noheadings", "--inverse", "--output", "TYPE", device], check=False).stdout.decode()
    return "crypt" in said.split()
