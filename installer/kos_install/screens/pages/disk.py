# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the node goes: disks that can take it, those that cannot and why, and what each disk holds before and after."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ...answers import DiskSelector
from ...errors import InstallError
from ...hardware.model import Disk, Machine
from ...storage import layouts
from ...storage.selection import candidates
from ...storage.sizes import human
from .. import trial
from ..draft import Draft
from ..model import Kind, Option, Page, Question, Session, ask
from ..said import picture, said
from ..words import _

_MIRROR, _BESIDE, _WHOLE = "mirror", "free_space", "whole_disk"
_TAIL = 8  # characters of a serial number


def page(session: Session) -> Page:
    """Ask for the layout and for each disk that it needs."""
    here = session.machine
    kinds = [
        Option(_WHOLE, _("a whole disk: all that is on it is lost")),
        Option(_BESIDE, _("free space of a disk: what is on it stays")),
        Option(_MIRROR, _("two disks, the same on both: one may die")),
    ]
    system, data = choices(here, layouts.SYSTEM_LEAST), choices(here, layouts.DATA_LEAST)
    if sum(not one.refused for one in system) < 2:
        kinds[2] = Option(_MIRROR, kinds[2].label, _("it needs two disks that can take kOS"))
    more = [Option("", _("none, all on one disk")), *(one for one in data if not one.refused)]
    return Page(
        "disk",
        _("Disk"),
        _("Where shall kOS go? Nothing happens to a disk until you confirm the plan at the end."),
        _(
            "Only disks that can take kOS can be chosen; the others say why they cannot. The medium that you started"
            " from is never one of them. Below is what the disk holds now, and what it will hold. A data disk of its"
            " own takes what services store. Everything is encrypted, whatever you choose here."
        ),
        [
            ask("storage.layout", _("Layout"), "choice", _WHOLE, options=kinds),
            _disk("storage.disk", _("Disk"), system, required=True),
            _disk("storage.second", _("Second disk"), system, required=True, mirror=True),
            _disk("storage.data", _("Disk for data"), more, required=False),
        ],
        before_after,
        lambda draft: _apart(draft) or unplannable(session),
        field="storage.disk",
        wide=True,
    )


def choices(machine: Machine, least: int) -> list[Option]:
    """Every disk, with what speaks against it."""
    found = []
    for disk in machine.disks:
        named = DiskSelector.model_validate(selector(disk, machine))
        (row,) = [one for one in candidates(machine, named, least) if one.disk.path == disk.path]
        found.append(Option(disk.path, _described(disk, machine), "; ".join(said(reason) for reason in row.reasons)))
    return sorted(found, key=lambda option: bool(option.refused))


def selector(disk: Disk, machine: Machine) -> dict[str, Any]:
    """What tells this disk from all others, whatever the kernel calls it at the next start."""
    serials = Counter(one.serial for one in machine.disks)
    if disk.serial and serials[disk.serial] == 1:
        return {"serial": disk.serial}
    return {"by_id": disk.by_id[0]} if disk.by_id else {"path": disk.path}


def serial(disk: Disk, machine: Machine) -> str:
    """The end of its serial number, as the others do not have it; all of it where one of them has."""
    if not disk.serial:
        return ""
    tail = disk.serial[-_TAIL:]
    others = [one.serial for one in machine.disks if one.path != disk.path]
    alike = any(serial.endswith(tail) for serial in others)
    return _("serial {serial}").format(serial=disk.serial if alike else f"..{tail}" if disk.serial != tail else tail)


def _described(disk: Disk, machine: Machine) -> str:
    systems = ", ".join(dict.fromkeys(said(part.os) for part in disk.partitions if part.os))
    parts = _("partitions: {count}").format(count=len(disk.partitions)) if disk.partitions else disk.holds
    holds = systems or parts
    named = [disk.path.removeprefix("/dev/"), human(disk.size), disk.model, serial(disk, machine), holds or _("empty")]
    return "  ".join(filter(None, named))


def _disk(path: str, label: str, options: list[Option], required: bool, mirror: bool = False) -> Question:
    def read(draft: Draft) -> str:
        given = draft.scratch.get(path)
        if given is not None:
            return str(given)
        return _only(options) if required and not mirror else ""

    def write(draft: Draft, value: str) -> None:
        draft.scratch[path] = value

    def check(value: str) -> str:
        return _("choose a disk") if required and not value else ""

    def shown(draft: Draft) -> bool:
        return not mirror or draft.get("storage.layout", _WHOLE) == _MIRROR

    kind: Kind = "choice" if required else "pick"
    return Question(path, label, kind, read, write, options, check=check, shown=shown)


def _only(options: list[Option]) -> str:
    """The one disk that can be chosen, where there is but one."""
    free = [option.value for option in options if option.value and not option.refused]
    return free[0] if len(free) == 1 else ""


def taken(session: Session) -> Disk | None:
    """The disk for the system: the one that was chosen, else the only one that can be."""
    path = session.draft.scratch.get("storage.disk") or _only(choices(session.machine, layouts.SYSTEM_LEAST))
    return next((disk for disk in session.machine.disks if disk.path == path), None)


def settle(draft: Draft, machine: Machine) -> None:
    """Write the chosen disks down as answers: by what tells each from all others.

    The only disk there is needs no word.
    """
    mirror = draft.get("storage.layout", _WHOLE) == _MIRROR
    disks = {disk.path: disk for disk in machine.disks}
    for path in ("storage.disk", "storage.second", "storage.data"):
        disk = disks.get(draft.scratch.get(path, ""))
        draft.put(path, selector(disk, machine) if disk and (mirror or path != "storage.second") else None)


def recall(draft: Draft, machine: Machine) -> None:
    """Find the disks of answers that come from a file or from another screen."""
    for path in ("storage.disk", "storage.second", "storage.data"):
        if (given := draft.get(path)) and path not in draft.scratch:
            rows = candidates(machine, DiskSelector.model_validate(given), 0)
            named = [row.disk.path for row in rows if not any("asked for" in reason for reason in row.reasons)]
            if len(named) == 1:
                draft.scratch[path] = named[0]


def _apart(draft: Draft) -> str:
    chosen = [draft.scratch.get(path) for path in ("storage.disk", "storage.data")]
    if draft.get("storage.layout", _WHOLE) == _MIRROR:
        chosen.append(draft.scratch.get("storage.second"))
    named = [path for path in chosen if path]
    return _("each disk can have one role only: choose different ones") if len(set(named)) < len(named) else ""


def before_after(session: Session) -> str:
    """The disk before and after, or why it cannot be done."""
    return "".join(_tried(session))


def unplannable(session: Session) -> str:
    """Why the disk that is chosen cannot take this layout; empty where it can."""
    return _tried(session)[1]


def _tried(session: Session) -> tuple[str, str]:
    """The picture, or why there is none; neither where no disk is chosen."""
    if not taken(session):
        return "", ""
    try:
        return picture(trial.picture(session)), ""
    except InstallError as error:
        return "", said(str(error))
