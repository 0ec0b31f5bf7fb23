# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the suite showed behind each door: a report for each node, and the table that joins them.

python tests/acceptance/doors.py FOLDER      # of reports, as --reports wrote them
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import needs

# What pytest ends with where it collected nothing.
NO_NODE = 5
DOORS = ("playbook", "usb", "cloud-init")
PASSED, FAILED, NOT_SHOWN, NOT_PLANNED, SKIPPED = "passed", "failed", "not shown", "not planned", "skipped"
_MARKS = {NOT_SHOWN: "not shown", NOT_PLANNED: "-", SKIPPED: "skipped"}
# What the check of several nodes comes to, worst first.
_ORDER = (FAILED, PASSED, NOT_SHOWN, SKIPPED, NOT_PLANNED)


@dataclass
class Report:
    """What the suite showed of one node. `checks`: result, why, seconds of each, by name."""

    door: str
    place: str
    profile: str
    node: str
    generation: str
    seconds: float = 0.0
    checks: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def column(self) -> tuple[str, str]:
        """Which way it came to be, and on what."""
        return self.door, self.place

    def save(self, folder: Path) -> Path:
        """Write it down; the file's name tells reports of one run apart."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.door}-{self.place}-{self.profile}-{self.node}.json"
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return path


def place(seen: Mapping[str, str]) -> str:
    """What the node runs on: nspawn, vm or metal."""
    if seen["container"] not in ("", "none"):
        return "nspawn" if seen["container"] == "systemd-nspawn" else seen["container"]
    return "metal" if seen["machine"] in ("", "none") else "vm"


def load(folder: Path) -> list[Report]:
    """Every report of a folder."""
    return [Report(**json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]


class Recorder:
    """The part of pytest that writes the reports."""

    def __init__(self, config: Any) -> None:
        self._door = config.getoption("--door") or DOORS[0]
        self._folder = config.getoption("--reports")
        self._began = time.monotonic()
        self._nobody = False
        self.reports: dict[str, Report] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Take a phase of a check down: its worst phase counts."""
        about = dict(report.user_properties).get("kos")
        if about is None:
            return
        node = {key: about[key] for key in ("place", "profile", "node", "generation")}
        mine = self.reports.setdefault(about["node"], Report(self._door, **node))
        row = mine.checks.setdefault(about["check"], {"result": PASSED, "why": "", "seconds": 0.0})
        row["seconds"] = round(row["seconds"] + report.duration, 2)
        if report.failed:
            row |= {"result": FAILED, "why": ""}
        elif report.skipped:
            row |= _skipped(report.longrepr)

    def pytest_sessionfinish(self, session: Any) -> None:
        """A run that met no node has shown nothing, however many checks it skipped."""
        self._nobody = bool(session.testscollected) and not self.reports and not session.config.option.collectonly
        if self._nobody:
            session.exitstatus = session.exitstatus or NO_NODE

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say what could not be shown here, and write the reports."""
        if self._nobody:
            terminalreporter.write_line("no node was looked at: --hosts names none that the inventory has")
        for mine in self.reports.values():
            mine.seconds = round(time.monotonic() - self._began, 1)
            for why, names in _reasons([mine]).items():
                terminalreporter.write_line(f"{needs.NOT_SHOWN}{why}: {', '.join(names)}")
            if self._folder:
                terminalreporter.write_line(f"report: {mine.save(Path(self._folder))}")


def _skipped(said: Any) -> dict[str, str]:
    why = str(said[2] if isinstance(said, tuple) else said).removeprefix("Skipped: ")
    for prefix, result in ((needs.NOT_SHOWN, NOT_SHOWN), (needs.NOT_PLANNED, NOT_PLANNED)):
        if why.startswith(prefix):
            return {"result": result, "why": why.removeprefix(prefix)}
    return {"result": SKIPPED, "why": why}


def _reasons(reports: Iterable[Report]) -> dict[str, list[str]]:
    """Why checks were not shown: the names of those, by reason."""
    found: dict[str, list[str]] = {}
    for report in reports:
        for name, row in report.checks.items():
            if row["result"] == NOT_SHOWN:
                found.setdefault(row["why"], []).append(name.partition("::")[2])
    return found


def behind_none(reports: Sequence[Report]) -> list[str]:
    """The checks that ran nowhere."""
    ran = {name for report in reports for name, row in report.checks.items() if row["result"] in (PASSED, FAILED)}
    return sorted({name for report in reports for name in report.checks} - ran)


def failures(reports: Sequence[Report]) -> list[tuple[str, Report]]:
    """The checks that failed, each with where."""
    return [(name, report) for report in reports for name, row in report.checks.items() if row["result"] == FAILED]


def table(reports: Sequence[Report]) -> list[str]:
    """Checks down, doors across: on how many nodes each passed, and below it what ran and how long it took."""
    columns = sorted({report.column for report in reports}, key=lambda column: (DOORS.index(column[0]), column[1]))
    behind = {column: [report for report in reports if report.column == column] for column in columns}
    names = sorted({name for report in reports for name in report.checks})
    rows = [["check", *(f"{door} ({at})" for door, at in columns)]]
    rows += [[name, *(_cell(behind[column], name) for column in columns)] for name in names]
    rows.append(["nodes", *(str(len(behind[column])) for column in columns)])
    counts = {column: Counter(_worst(behind[column], name) for name in names) for column in columns}
    for title, results in (("checks that ran", (PASSED, FAILED)), ("not shown here", (NOT_SHOWN,)),
                           ("not in the plan", (NOT_PLANNED,))):  # fmt: skip
        rows.append([title, *(str(sum(counts[column][result] for result in results)) for column in columns)])
    rows.append(["seconds", *(f"{sum(report.seconds for report in behind[column]):.0f}" for column in columns)])
    widths = [max(len(row[at]) for row in rows) for at in range(len(columns) + 1)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    rule = "-" * len(lines[0])
    return [lines[0], rule, *lines[1 : len(names) + 1], rule, *lines[len(names) + 1 :]]


def _worst(reports: Sequence[Report], name: str) -> str:
    results = {report.checks[name]["result"] for report in reports if name in report.checks}
    return next((result for result in _ORDER if result in results), "")


def _cell(reports: Sequence[Report], name: str) -> str:
    worst = _worst(reports, name)
    if worst == FAILED:
        return "FAILED"
    passed = sum(report.checks.get(name, {}).get("result") == PASSED for report in reports)
    return f"ok {passed}" if passed else _MARKS.get(worst, "")


def notes(reports: Sequence[Report]) -> list[str]:
    """What the table has no room for: the nodes, what was not shown and why, what failed, what ran nowhere."""
    lines = [f"{report.door} ({report.place}): {report.node}, {report.profile}, generation"
             f" {report.generation[:12]}, {report.seconds:.0f} s" for report in reports]  # fmt: skip
    for column in dict.fromkeys(report.column for report in reports):
        for why, names in _reasons([report for report in reports if report.column == column]).items():
            lines.append(f"{column[0]} ({column[1]}): {needs.NOT_SHOWN}{why}: {', '.join(dict.fromkeys(names))}")
    lines += [f"FAILED behind {report.door} ({report.place}): {name}" for name, report in failures(reports)]
    return lines + [f"ran behind no door: {name}" for name in behind_none(reports)]


def main(arguments: list[str] | None = None) -> int:
    """Join the reports of a folder; 1 where a check failed or, unless --some, ran behind no door."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--some", action="store_true", help="only some doors were tried: a check may have run nowhere")
    parser.add_argument("--json", action="store_true", help="print the joined reports as JSON")
    options = parser.parse_args(arguments)
    reports = load(options.folder)
    if not reports:
        sys.stderr.write(f"no report in {options.folder}: run the suite with --reports {options.folder}\n")
        return 2
    missing = [] if options.some else behind_none(reports)
    if options.json:
        print(json.dumps({"reports": [asdict(report) for report in reports], "behind_none": missing}, indent=1))
    else:
        print(*table(reports), "", *notes(reports), sep="\n")
    return 1 if failures(reports) or missing else 0


if __name__ == "__main__":
    sys.exit(main())
