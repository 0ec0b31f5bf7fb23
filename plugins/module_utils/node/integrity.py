# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that changed though nobody should have changed them: what AIDE finds, less what kOS and apt account for.

A file that changed while kOS or apt was changing this machine changed because of that, and becomes what is known.
The kernel writes that moment down (ctime), by its own clock. Anything else stays a finding until accepted.
"""

from __future__ import annotations

import contextlib
import glob
import gzip
import json
import os
import time
from dataclasses import asdict, dataclass
from typing import Any

from . import files, history, store, system
from .files import NodeError, Root
from .journal import Journal

SERVICE = "aide"
CONFIGURATION = "/etc/kos/aide/aide.conf"
DATA = "/var/lib/kos-aide"
ACCEPT = "systemctl start kos-aide-accept.service"
_APT = "/var/log/apt/history.log*"
# Seconds in which a committed change removes what nothing asks for any more, where nobody looked right after it.
_TIDYING = 300
# More than these are one attack, or one mistake: the first ones tell which.
_NAMED = 20
# AIDE's exit code: a bit each for added, removed and changed files; from here on it failed.
_FAILED = 8

Span = tuple[float, float]


@dataclass(frozen=True)
class Finding:
    """A path, and what became of it."""

    path: str
    what: str


def check(root: Root) -> list[Finding] | None:
    """Compare every file with what is known, and make what is accounted for known; returns the rest.

    None: kOS is changing this machine, or did while files were read; the end of a change asks again.
    Raises NodeError.
    """
    before = _undisturbed(root)
    if before is None:
        return None
    try:
        _require_own_configuration(root)
        first = not os.path.exists(root.join(f"{DATA}/known"))
        report = _aide(root, "--init" if first else "--update")
        if _undisturbed(root) != before:
            return None
        findings = [] if first else unaccounted(root, report, spans(root))
        if not findings:
            os.replace(root.join(f"{DATA}/seen"), root.join(f"{DATA}/known"))
    except (NodeError, OSError) as error:
        _remember(root, None, str(error))
        raise
    _remember(root, findings)
    return findings


def accept(root: Root) -> None:
    """Make every file known as it is now. Raises NodeError."""
    _require_own_configuration(root)
    _aide(root, "--init")
    os.replace(root.join(f"{DATA}/seen"), root.join(f"{DATA}/known"))
    _remember(root, [])


def _undisturbed(root: Root) -> list[Any] | None:
    """The history of this node while nothing changes it; None while something does."""
    with files.lock(root, wait=True):
        journal = Journal(root)
        return None if journal.open and journal.switched else history.read(root)


def _require_own_configuration(root: Root) -> None:
    """An intruder who may write the configuration would leave out what he changed."""
    generation = store.current(root)
    rows = generation.manifest["files"] if generation else []
    source = next((row["source"] for row in rows if row["path"] == CONFIGURATION), None)
    if generation is None or source is None:
        raise NodeError("the current generation has no AIDE: kai deploy")
    if files.read(root.join(CONFIGURATION)) != generation.content(source):
        raise NodeError(f"{CONFIGURATION} is not as the generation has it, so nothing was compared: kai deploy")


def _aide(root: Root, verb: str) -> dict[str, Any]:
    done = system.run(["aide", f"--config={root.join(CONFIGURATION)}", verb], check=False)
    if done.returncode >= _FAILED or done.returncode < 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise NodeError(f"AIDE failed: {said[-1].strip() if said else done.returncode}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def unaccounted(root: Root, report: dict[str, Any], known: list[Span]) -> list[Finding]:
    """What of AIDE's report happened while neither kOS nor apt was at work."""
    rows = [(path, "is new") for path in report.get("added", {})]
    rows += [(path, "is gone") for path in report.get("removed", {})]
    rows += [(path, _changed(code)) for path, code in report.get("changed", {}).items()]
    return [Finding(path, what) for path, what in sorted(rows) if not _within(_moment(root, path), known)]


def _changed(code: str) -> str:
    """What differs, from AIDE's line of letters: H stands for the content's hash."""
    return "has another content" if "H" in code[1:] else "has other rights, another owner or another target"


def _moment(root: Root, path: str) -> float:
    """When the kernel saw `path` change; of one that is gone, its directory."""
    while path != "/":
        with contextlib.suppress(OSError):
            return os.lstat(root.join(path)).st_ctime
        path = os.path.dirname(path)
    return 0.0


def _within(moment: float, known: list[Span]) -> bool:
    # What was written down are whole seconds.
    return any(begin <= moment < end + 1 for begin, end in known)


def spans(root: Root) -> list[Span]:
    """When kOS was changing this machine, and when apt was."""
    return [*_of_kos(root), *_of_apt(root)]


def _of_kos(root: Root) -> list[Span]:
    looked = _known_since(root)
    rows = [row for row in history.read(root) if row.get("began")]
    return [(row["began"], row["time"] + (_TIDYING if row["time"] > looked else 0)) for row in rows]


def _known_since(root: Root) -> float:
    try:
        return os.stat(root.join(f"{DATA}/known")).st_mtime
    except FileNotFoundError:
        return 0.0


def _of_apt(root: Root) -> list[Span]:
    found = []
    for path in glob.glob(root.join(_APT)):
        begin: float | None = None
        for line in _lines(path):
            key, _colon, value = line.partition(": ")
            if key == "Start-Date":
                begin = _time(value)
            elif key == "End-Date" and begin is not None:
                found.append((begin, _time(value)))
                begin = None
        if begin is not None:
            # apt is still at it.
            found.append((begin, time.time()))
    return found


def _lines(path: str) -> list[str]:
    content = files.read(path) or b""
    return (gzip.decompress(content) if path.endswith(".gz") else content).decode(errors="replace").splitlines()


def _time(text: str) -> float:
    return time.mktime(time.strptime(text.strip(), "%Y-%m-%d %H:%M:%S"))


def _remember(root: Root, findings: list[Finding] | None, error: str = "") -> None:
    """Keep the outcome: how many findings for everybody, which ones for root alone."""
    before = files.read_json(root.state("integrity.json"), {})
    now = int(time.time())
    record = {
        "tried": now,
        "compared": now if findings is not None else before.get("compared"),
        "findings": len(findings) if findings is not None else before.get("findings", 0),
        "error": error,
    }
    if findings is not None:
        rows = json.dumps([asdict(row) for row in findings]).encode()
        files.write(root.join(f"{DATA}/findings.json"), rows, 0o600)
    files.write_json(root.state("integrity.json"), record)
    files.write(root.state("metrics", "integrity.prom"), _figures(record).encode())


def _figures(record: dict[str, Any]) -> str:
    figures = {
        "findings": (record["findings"], "Files that changed and that neither kOS nor apt accounts for."),
        "compared_timestamp_seconds": (record["compared"] or 0, "When files were compared last; 0 before that."),
        "failed": (int(bool(record["error"])), "Whether the last comparison failed."),
    }
    return "".join(
        f"# HELP kos_integrity_{name} {text}\n# TYPE kos_integrity_{name} gauge\nkos_integrity_{name} {value}\n"
        for name, (value, text) in figures.items()
    )


def summary(root: Root, manifest: dict[str, Any] | None) -> dict[str, Any] | None:
    """The outcome of the last comparison; None on a node that compares nothing."""
    if manifest is None or SERVICE not in [row["name"] for row in manifest["services"]]:
        return None
    nothing = {"tried": None, "compared": None, "findings": 0, "error": ""}
    found: dict[str, Any] = files.read_json(root.state("integrity.json"), nothing)
    return found


def concerns(row: dict[str, Any] | None) -> list[str]:
    """What of a `summary` a person should know, a sentence each."""
    lines = []
    if row and row["findings"]:
        many = "1 file" if row["findings"] == 1 else f"{row['findings']} files"
        lines.append(f"{many} changed, and neither kOS nor apt did it: kai doctor names them")
    if row and row["error"]:
        lines.append(f"Files could not be compared with what they were: {row['error']}")
    return lines


def findings(root: Root, manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """What the doctor says: a problem and its fix each."""
    row = summary(root, manifest)
    if row is None:
        return []
    named = files.read_json(root.join(f"{DATA}/findings.json"), [])
    lines = [f"{each['path']} {each['what']}, and neither kOS nor apt did it" for each in named[:_NAMED]]
    if len(named) > _NAMED:
        lines.append(f"{len(named) - _NAMED} more files changed, and neither kOS nor apt did it")
    found = [(line, f"undo it; or, if it was you: {ACCEPT}") for line in lines]
    if row["error"]:
        found.append((f"files could not be compared: {row['error']}", "systemctl start kos-aide.service"))
    return found
