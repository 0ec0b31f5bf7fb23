# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person reads of a build: what would be made and why, what is being made, what was."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from ansible_collections.kind.kos.cli.view import counted, errors, size, table_of
from ansible_collections.kind.kos.plugins.plugin_utils.media_check import Report

from .checking import suggested
from .stages import Stage
from .sticks import Disk

_FAULTS_SHOWN = 8


def dry_run(data: dict[str, Any]) -> RenderableType:
    """Each stage with its size and state, what is to be fetched, the place of the result; then the definition."""
    stages = table_of("stage", "size", "", title="Stages")
    stages.columns[1].no_wrap = True
    for row in data["stages"]:
        state = (
            Text("cached", style="green") if row["cached"] else Text(f"to build, because {row['because']}", "yellow")
        )
        stages.add_row(row["name"], size(row["size"]) if row["size"] else "—", state)
    parts: list[RenderableType] = [stages, Text()]
    packages = data["packages"]
    if packages:
        said = (
            f"{packages['count']} packages, {size(packages['download'])}; still to fetch: {size(packages['missing'])}"
        )
        parts.append(Text(said, style="dim"))
    parts.append(Text(f"Would write {data['to']}", style="dim"))
    if data["definition"]:
        parts += [Text(), _definition(data["definition"])]
    return Group(*parts)


def _definition(data: dict[str, Any]) -> RenderableType:
    rows = table_of("", "", title=f"{data['output']} for {data['architecture']}: {data['summary']}")
    boot = [
        name for name, wanted in (("BIOS", "bios"), ("UEFI", "uefi"), ("Raspberry Pi", "pi")) if data["boot"][wanted]
    ]
    root = data["root"]
    rows.add_row("boots by", ", ".join(boot))
    rows.add_row("root", f"{root['format']}{', every block proved (dm-verity)' if root['verity'] else ''}")
    rows.add_row("partitions", ", ".join(one["label"] for one in data["partitions"]))
    rows.add_row("kernel", " ".join(data["kernel_arguments"]))
    rows.add_row("packages", f"{len(data['packages'])} by name, and what they need; --json lists them")
    return rows


def made(data: dict[str, Any]) -> RenderableType:
    """Where the result is, what it is, and what to do with it next."""
    first = Text.assemble(("✓ ", "green"), (data["to"], "bold"), f"  {size(data['size'])}, in {data['seconds']:.0f} s")
    rows = [first, Text(f"  sha256 {data['sha256']}", style="dim")]
    if data.get("next"):
        rows.append(Text(f"  Next: {data['next']}"))
    return Group(*rows)


def locked(data: dict[str, Any]) -> RenderableType:
    """How many packages a lock holds, and what has changed since the one before."""
    rows: list[RenderableType] = [
        Text.assemble(("✓ ", "green"), (data["lock"], "bold"), f"  {counted(data['packages'], 'package')}")
    ]
    table = table_of("package", "before", "now")
    for row in data["changes"]:
        table.add_row(row["name"], row["before"] or "—", row["now"] or "—")
    return Group(
        *rows, *([table] if data["changes"] else [Text("  Nothing has changed since the last lock.", style="dim")])
    )


def keys(data: dict[str, str]) -> RenderableType:
    """Keys that were made."""
    return Text.assemble(
        ("✓ ", "green"), f"{data['key']} signs media, {data['certificate']} is its certificate; PK.auth, KEK.auth and",
        " db.auth beside them enrol it, and are on every medium it signs",
    )  # fmt: skip


def checked(medium: Path, report: Report) -> RenderableType:
    """Whether a medium is what somebody signed; each fault with its place."""
    about = report.sealed.manifest.about if report.sealed else None
    what = f"{about.output} of {about.profile} for {about.architecture}" if about else "medium"
    if report.ok:
        grown = ", its partition table as it has grown on its stick" if report.grown else ""
        return Text.assemble(("✓ ", "green"), f"{medium}: every byte as {report.signer} signed it: {what}{grown}")
    if report.whole:
        return Group(
            Text.assemble(
                ("? ", "yellow"), (f"{medium} is whole, but who signed it is not known here", "yellow"), f": {what}"
            ),
            Text(f"  {report.stranger} signed every byte of it. If you trust that key: {suggested()}"),
        )
    lines = [Text.assemble(("✗ ", "red"), (f"{medium} is not as it was made", "red"), f": {what}")]
    lines += [Text(f"  {fault}") for fault in report.faults[:_FAULTS_SHOWN]]
    if len(report.faults) > _FAULTS_SHOWN:
        lines.append(Text(f"  and {len(report.faults) - _FAULTS_SHOWN} more", style="dim"))
    return Group(*lines, Text("  Write it again from an image that verifies.", style="cyan"))


def sticks(found: Sequence[Disk]) -> RenderableType:
    """The disks that an image may be written on."""
    title = "Say it again with the device or the serial of one"
    table = table_of("device", "size", "bus", "model", "serial", "holds", title=title)
    for one in found:
        table.add_row(
            Text(one.path, style="bold"), size(one.size), one.bus, one.model or "—", one.serial or "—", one.holds
        )
    return table


class Progress:
    """Each stage with what it does and how long it has taken: lines on a log, one moving block on a terminal."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._running: dict[str, tuple[str, float]] = {}
        self._live = Live(console=errors, refresh_per_second=4, transient=True, get_renderable=self._shown)

    def __enter__(self) -> Progress:
        if not self._quiet and errors.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def tell(self, stage: Stage, state: str, seconds: float) -> None:
        """A stage is `cached`, `making` or `made`."""
        if state == "making":
            self._running[stage.key] = stage.doing, time.monotonic()
            if not errors.is_terminal:
                self._say(f"  … {stage.name}: {stage.doing}")
            return
        self._running.pop(stage.key, None)
        took = "cached" if state == "cached" else f"{seconds:.1f} s"
        self._say(f"  [green]✓[/green] {stage.name}  [dim]{took}[/dim]")

    def _say(self, line: str) -> None:
        if not self._quiet:
            errors.print(line)

    def _shown(self) -> RenderableType:
        now = time.monotonic()
        rows = [Spinner("dots", text=f"{doing}  {now - since:.0f} s") for doing, since in list(self._running.values())]
        return Group(*rows)
