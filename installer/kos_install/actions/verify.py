# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove that the disk is as it was asked for, before it gets what would start it: close all of it, and look anew."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.node.machine import slots

from ..errors import VerifyFailed
from ..storage.actions import Boot, Luks, Mount, Verify
from . import boot, luks, mount, proofs
from .context import Context
from .proofs import Finding

_HEADERS = "var/lib/kos-recovery"
_KERNEL, _INITRD = "linux", "initrd"


def perform(context: Context, action: Verify) -> None:
    """Prove all of it; each thing is a row of the log. Raises VerifyFailed with every thing that is wrong."""
    mount.close_all(context.plan, context.target, context.log)
    rows = _told(context, proofs.encryption(context))
    # Whoever cannot be opened as asked is not opened.
    _judge(rows)
    for wanted in _of_luks(context):
        luks.reopen(context, wanted)
    for place in context.plan.actions:
        if isinstance(place, Mount):
            mount.perform(context, place)
    _keep_headers(context)
    rows = _told(context, proofs.machine_keys(context))
    rows += _told(context, proofs.mounts(context))
    places = [place for wanted in _boots(context) for place in boot.places(Root(str(context.target)), wanted)]
    rows += _told(context, _starts(context))
    rows += _told(context, proofs.secrecy(context, [Path(place.path) for place in places]))
    _judge(rows)


def stands(context: Context, action: Verify) -> bool:
    """Nothing is believed that was proved before."""
    return False


def _told(context: Context, findings: Iterator[Finding]) -> list[Finding]:
    rows = []
    for finding in findings:
        context.log(str(finding))
        rows.append(finding)
    return rows


def _judge(rows: list[Finding]) -> None:
    wrong = [str(row).removeprefix("WRONG: ") for row in rows if not row.good]
    if wrong:
        raise VerifyFailed(f"the disk is not as it was asked for, and will not start: not so: {'; '.join(wrong)}")


def _keep_headers(context: Context) -> None:
    """The copies of the headers are of the headers as they are now: a new recovery key changes them."""
    folder = context.target / _HEADERS
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for wanted in _of_luks(context):
        luks.back_up_header(os.path.realpath(wanted.device), folder / f"{wanted.name}.luks-header", context.log)


def _starts(context: Context) -> Iterator[Finding]:
    """Everything that the firmware and the boot loader will look for. Raises OSError, NodeError."""
    for wanted in _boots(context):
        for place in boot.places(Root(str(context.target)), wanted):
            loader = boot.loader_of(place, wanted)
            size = loader.stat().st_size if loader.is_file() else 0
            yield Finding(f"{place.path} has its boot loader", size > 0, str(loader))
            own = [slot for slot in slots.listing(place.path) if slot.kind == boot.kind_of(wanted)]
            numbers = [slot.number for slot in own]
            yield Finding(f"{place.path} has one boot entry", numbers == [boot.FIRST], str(numbers))
            for slot in own:
                yield from _entry(context, Path(place.path), Path(slot.path), wanted)


def _entry(context: Context, esp: Path, entry: Path, wanted: Boot) -> Iterator[Finding]:
    expected = boot.entry_of(context, Root(str(context.target)))
    content = entry.read_bytes()
    missing = [word for word in expected.arguments if word.encode() not in content]
    yield Finding(f"{entry} starts the kernel with what opens the disk", not missing, " ".join(missing))
    if wanted.uki:
        least = sum(os.path.getsize(path) for path in (expected.kernel, expected.initrd))
        yield Finding(f"{entry} holds a kernel and an initrd", len(content) > least, f"{len(content)} bytes")
        return
    folder = esp / slots.FILES / str(boot.FIRST)
    for name, source in ((_KERNEL, expected.kernel), (_INITRD, expected.initrd)):
        yield Finding(f"{folder / name} is the {name} of the system", proofs.same(folder / name, Path(source)))


def _boots(context: Context) -> list[Boot]:
    return [one for one in context.plan.actions if isinstance(one, Boot)]


def _of_luks(context: Context) -> list[Luks]:
    return [one for one in context.plan.actions if isinstance(one, Luks)]
