# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person reads on the console: 80 columns, a serial line, letters that every font has. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from rich.text import Text

from .machine import Disk, Machine
from .medium import BROKEN, GOOD, UNKNOWN, Verification

SHELL, VERIFY, NETWORK, REBOOT, POWER_OFF = "12345"
MENU = {
    SHELL: "shell with kai",
    VERIFY: "verify again",
    NETWORK: "network",
    REBOOT: "reboot",
    POWER_OFF: "power off",
}
OTHER_KEY = f"That key does nothing here: {min(MENU)} to {max(MENU)} do, and Enter shows all of this anew."
_SHOWN = 3  # of what is wrong; the journal has the rest


@dataclass(frozen=True)
class View:
    """All that one screen shows; `short` is None while that is not known."""

    record: Mapping[str, Any]
    machine: Machine
    medium: str
    short: Sequence[str] | None


def head(view: View) -> Table:
    """What the medium and the machine are."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _rows(view):
        table.add_row(name, value)
    return table


def _rows(view: View) -> list[tuple[str, Text]]:
    record, machine = view.record, view.machine
    made = datetime.fromtimestamp(record.get("made", 0), UTC).strftime("%Y-%m-%d")
    if record:
        what = f"{record['profile']}, {record['output']} for {record['architecture']}, packages of {made}"
    else:
        what = "this system was not started from one"
    return [
        ("Medium", Text(what)),
        ("Secure Boot", Text(machine.secure_boot)),
        ("Machine", Text(f"{machine.cores} cores, {machine.memory_mb} MB of memory")),
        ("Disks", Text("\n".join(_disk(disk, view.medium) for disk in machine.disks) or "none")),
        ("Network", Text(_network(machine))),
        ("Minimum", _minimum(view.short)),
    ]


def _network(machine: Machine) -> str:
    if not machine.cards:
        return "no network card that this system knows"
    return ", ".join(machine.addresses) or f"no address yet ({', '.join(machine.cards)})"


def _disk(disk: Disk, medium: str) -> str:
    size = f"{disk.size / 10**9:.0f} GB" if disk.size >= 10**9 else _size(disk.size)
    said = f"{disk.path}, {size}{', ' + disk.model if disk.model else ''}"
    return f"{said} (this medium)" if disk.path == medium else said


def _minimum(short: Sequence[str] | None) -> Text:
    if short is None:
        return Text("looking …", style="dim")
    return Text("met", style="green") if not short else Text("not met: " + "; ".join(short), style="yellow")


def verification(now: Verification) -> Text:
    """One line while it runs; what came out of it, and what is wrong, once it is over."""
    if now.state == GOOD:
        return Text(f"Verified: all {_size(now.total)} of this medium are as {now.signer} signed them.", style="green")
    if now.state == BROKEN:
        rest = len(now.said) - _SHOWN
        more = [f"… and {rest} more: journalctl -u kos-verify"] if rest > 0 else []
        lines = ["BROKEN: this medium is not as it was made. Do not install from it.", *now.said[:_SHOWN], *more]
        return Text("\n  ".join(lines), style="bold red")
    if now.state == UNKNOWN:
        return Text(f"Not verified: {' '.join(now.said)}", style="yellow")
    share = f"{100 * now.done // now.total:3d} %" if now.total else "…"
    return Text(f"Verifying this medium: {share} of {_size(now.total)}" if now.total else "Verifying this medium …")


def foot() -> Text:
    """What can be done, and what not yet."""
    keys = "   ".join(f"{key} {said}" for key, said in MENU.items())
    honest = "Installing onto a disk is not part of this medium: it comes with the installer.\n"
    return Text.assemble((honest, "dim"), (keys, "bold"))


def _size(count: int) -> str:
    return f"{count / 10**6:.0f} MB" if count < 10**9 else f"{count / 10**9:.1f} GB"
