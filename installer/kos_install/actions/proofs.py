# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is proved of an installed disk before it may start: each is looked up on the disk, whatever was said before."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ansible_collections.kind.kos.plugins.module_utils.node.machine import enrol, system_layout
from ansible_collections.kind.kos.plugins.module_utils.node.machine import luks as headers

from ..storage.actions import Base, Btrfs, Fat, Journal, Luks, Mount, Plan, Table
from . import disks, filesystems, keys, luks, wishes
from . import mounts as node_mounts
from .context import Context
from .runner import one_line, outcome, run

# Larger ones are programs, packages and images: nobody writes a passphrase into the middle of one.
_LARGEST = 16 << 20
# Where something that an install did might have left a secret; a Wi-Fi's own belongs to the node, which is encrypted.
_WRITTEN = ("etc", "root", "var/log", "var/lib/kos", "var/lib/kos-media", "usr/lib/sysimage/kos")
_SHORTEST = 4  # characters: a shorter one is found everywhere
_Kind = TypeVar("_Kind", bound=Base)


@dataclass(frozen=True)
class Finding:
    """A thing that was looked at, whether it is as asked, and what it is where it is not."""

    what: str
    good: bool
    found: str = ""

    def __str__(self) -> str:
        return f"{'ok' if self.good else 'WRONG'}: {self.what}" + (f" ({self.found})" if self.found else "")


def encryption(context: Context) -> Iterator[Finding]:
    """Every LUKS of the plan, while it is closed. Raises ApplyFailed."""
    for wanted in _of(context.plan, Luks):
        device, name = str(disks.appeared(wanted.device)), wanted.name
        header = luks.dump(device)
        yield Finding(f"{name} is LUKS2 with the UUID of the plan", header is not None and _is(device, wanted))
        if header is None:
            continue
        costs = headers.costs(header)
        yield Finding(
            f"{name}: a guess at the passphrase costs what was asked",
            costs == [luks.cost(wanted).as_said()],
            f"{costs}",
        )
        ciphers = [segment.get("encryption") for segment in header["segments"].values()]
        yield Finding(f"{name} is encrypted as a whole", headers.whole(header), f"{ciphers}")
        yield from _keys(context, wanted, device)


def _keys(context: Context, wanted: Luks, device: str) -> Iterator[Finding]:
    header = luks.dump(device) or {"keyslots": {}}
    slots, name = set(header["keyslots"]), wanted.name
    recovery = headers.marked(header, headers.RECOVERY)
    waiting, others = wishes.marked(header), keys.wanted(context)
    given = headers.marked(header, *others)
    expected = 1 + wanted.recovery_key + (context.answers.encryption.tpm2 is not None) + len(others)
    whose = f"{len(slots)} key slots, {len(recovery)} of a recovery key, {len(waiting)} until the TPM is told"
    yield Finding(f"{name} has no key but those that were asked for", len(slots) == expected, whose)
    for slot in sorted(slots - recovery - waiting - given):
        opens = luks.slot_opens(device, context.secrets[luks.PASSPHRASE], slot)
        yield Finding(f"{name}: the passphrase opens slot {slot}", opens)
    for kind in others:
        yield Finding(f"{name} has the key {kind}", len(headers.marked(header, kind)) == 1)
    for slot in sorted(headers.marked(header, headers.FIDO2)):
        context.log(f"NOT TRIED: {name}: that the FIDO2 key opens slot {slot}: it would have to be touched")
    if wanted.recovery_key:
        yield Finding(f"{name} has a recovery key", len(recovery) == 1)
    if luks.RECOVERY in context.made:
        for slot in sorted(recovery):
            opens = luks.slot_opens(device, context.made[luks.RECOVERY], slot)
            yield Finding(f"{name}: the recovery key opens slot {slot}", opens)
    yield Finding(f"{name}: a wrong passphrase opens nothing", not luks.opens(device, secrets.token_urlsafe()))


def machine_keys(context: Context) -> Iterator[Finding]:
    """What a Tang server answers, and what waits in the mounted root for the TPM, opens its slots. Raises OSError."""
    waits = context.target / enrol.KEY.lstrip("/")
    left = waits.read_text(encoding="ascii") if waits.is_file() else ""
    for wanted in _of(context.plan, Luks):
        device, name = os.path.realpath(wanted.device), wanted.name
        header = luks.dump(device) or {}
        for slot in sorted(wishes.marked(header)):
            yield Finding(f"{name}: the key that waits for the TPM opens slot {slot}",
                          bool(left) and luks.slot_opens(device, left, slot))  # fmt: skip
        for slot in sorted(headers.marked(header, headers.TANG)):
            found, code = outcome(["clevis", "luks", "pass", "-d", device, "-s", slot])
            opens = not code and luks.slot_opens(device, found.rstrip("\n"), slot)
            why = one_line(found) if code else ""
            yield Finding(f"{name}: what the Tang server answers opens slot {slot}", opens, why)


def mounts(context: Context) -> Iterator[Finding]:
    """What is mounted lies on what is encrypted, and the node's own tables name just that. Raises ApplyFailed."""
    plan = context.plan
    parents = {one.name: os.path.realpath(one.device) for one in _of(plan, Luks)}
    for name, partition in parents.items():
        said = run(
            ["lsblk", "--noheadings", "--list", "--inverse", "--output", "PATH", f"{system_layout.MAPPER}/{name}"]
        )
        yield Finding(f"{name} lies on {partition}", partition in said.split())
    source = run(["findmnt", "--noheadings", "--nofsroot", "--output", "SOURCE", str(context.target)]).strip()
    # Of a mirror the kernel may say /dev/dm-0: whichever name somebody looked at it by.
    encrypted = {os.path.realpath(f"{system_layout.MAPPER}/{name}") for name in parents}
    yield Finding("the root of the system lies on an encrypted device", os.path.realpath(source) in encrypted, source)
    yield from _tables(context)


def _tables(context: Context) -> Iterator[Finding]:
    plan, etc = context.plan, context.target / "etc"
    devices = [device for one in _of(plan, Btrfs) for device in one.devices]
    devices += [os.path.realpath(one.device) for one in _of(plan, Fat)]
    # Of a device that says nothing, nobody's row is right.
    known = {f"UUID={uuid}" for uuid in (filesystems.probe(device, "UUID") for device in devices) if uuid}
    for table in _of(plan, Table):
        known |= {f"PARTUUID={one.uuid}" for one in table.make} | {f"PARTUUID={one.uuid}" for one in table.preserve}
    rows = [row for row in table_rows(etc / "fstab") if "bind" not in row[3].split(",")]
    strange = [row[0] for row in rows if row[0] not in known]
    yield Finding("fstab names what is there, by UUID", bool(rows) and not strange, " ".join(strange))
    wanted = {where for one in _of(plan, Mount) for _what, where, _options in one.mounts}
    missing = wanted - {row[1] for row in table_rows(etc / "fstab")}
    yield Finding("fstab mounts all of it", not missing, " ".join(sorted(missing)))
    yield from _opened(plan, etc)


def _opened(plan: Plan, etc: Path) -> Iterator[Finding]:
    """Every LUKS of the plan is opened by the initrd, or by the system, by its own UUID; and nothing else is."""
    in_initrd = {(one.name, one.uuid) for one in node_mounts.roots(plan)}
    words = (etc / "kernel/cmdline").read_text(encoding="utf-8").split() if (etc / "kernel/cmdline").exists() else []
    told = [word.partition("=")[2].partition("=") for word in words if word.startswith("rd.luks.name=")]
    said = {(name, uuid) for uuid, _equals, name in told}
    yield Finding("the initrd is told to open the root's disks, and no other", said == in_initrd, f"{sorted(said)}")
    wanted = {(one.name, f"UUID={one.uuid}") for one in _of(plan, Luks)} - {(n, f"UUID={u}") for n, u in in_initrd}
    rows = {(row[0], row[1]) for row in table_rows(etc / "crypttab")}
    wrong = " ".join(name for name, _uuid in sorted(rows ^ wanted))
    yield Finding("crypttab opens what is there, by UUID", rows == wanted, wrong)


def table_rows(path: Path) -> list[list[str]]:
    """The rows of fstab(5) or crypttab(5); none where there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    return [line.split() for line in lines if line.strip() and not line.startswith("#")]


def secrecy(context: Context, firmware: Iterable[Path]) -> Iterator[Finding]:
    """No secret lies in clear, nor where the node keeps what it was told. Raises OSError."""
    words = {**context.secrets, **context.made}
    told = [words[name].encode() for name in sorted(words) if len(words[name]) >= _SHORTEST]
    own = [words[name].encode() for name in words if not name.startswith("wifi:") and len(words[name]) >= _SHORTEST]
    for folder in firmware:
        leaks = [str(path) for path in _holding(folder, told)]
        yield Finding("no secret is on the partition of the firmware", not leaks, " ".join(leaks))
    for journal in _of(context.plan, Journal):
        raw = disks.appeared(journal.device).read_bytes()
        yield Finding("no secret is in the journal", not any(word in raw for word in told))
    leaks = [str(path) for part in _WRITTEN for path in _holding(context.target / part, own)]
    yield Finding("no secret is in what was written into the system", not leaks, " ".join(leaks))


def _holding(folder: Path, words: list[bytes]) -> Iterator[Path]:
    for parent, _folders, files in os.walk(folder):
        for name in files:
            path = Path(parent, name)
            if path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST:
                continue
            content = path.read_bytes()
            if any(word in content for word in words):
                yield path


def same(first: Path, second: Path) -> bool:
    """Whether two files have the same content, read to the end."""
    return first.is_file() and second.is_file() and _digest(first) == _digest(second)


def _digest(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _is(device: str, wanted: Luks) -> bool:
    return luks.uuid(device) == wanted.uuid


def _of(plan: Plan, kind: type[_Kind]) -> list[_Kind]:
    return [one for one in plan.actions if isinstance(one, kind)]
