# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One look at every service, by timer: restart what does not answer, and leave for its fallback what stays sick.

systemd itself restarts what crashes. What it cannot see is a process that lives and does not answer, and that is
what this adds. A systemd unit that somebody stopped stays stopped.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field, fields
from typing import Any

from . import bans, fallback, farewell, files, gate, store, system, trail, transaction
from . import cluster as clusters
from .encryption.record import locked
from .files import Busy, NodeError, Root
from .gate import Health
from .journal import Journal, boot_id, uptime
from .transaction import Request

RULES = "/etc/kos/status/watch.json"
RECORD = "watch.json"
METRICS = "kos.prom"
MEMINFO = "/proc/meminfo"
# With fewer than this many looks in a row nothing is done: one may fall into a moment of load.
_PATIENCE = 2
_SHORT_LOOKS = 3
# Percent of the last minute in which every process waited for memory.
_PRESSURE = 10.0
_LONGEST_PAUSE = 1800
# Seconds after which nobody goes on with what was only staged.
_STAGED = 3600.0


@dataclass(frozen=True)
class Rules:
    """What the profile says: seconds between looks, restarts before a fallback, percent of memory that must be free."""

    enabled: bool = True
    interval: int = 30
    restarts: int = 3
    free_memory: int = 5


@dataclass
class Patient:
    """A service that does not answer: since when (uptime), looks and restarts so far, and when the next is due."""

    since: float
    looks: int = 0
    restarts: int = 0
    due: float = 0.0
    detail: str = ""


@dataclass
class Record:
    """What earlier looks have seen. `of` is what it holds for; `restarts` counts them per service for ever.

    `refused`: services whose fallback was tried and did not become healthy either, and what it said. `well`: when the
    systemd units began (microseconds of uptime) with which a service was last seen healthy.
    """

    of: list[Any] = field(default_factory=list)
    patients: dict[str, Patient] = field(default_factory=dict)
    short: int = 0
    restarts: dict[str, int] = field(default_factory=dict)
    fallbacks: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    well: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Seen:
    """What one look finds: each service's health, which are `stopped` or `starting`, MB of memory that each uses."""

    health: dict[str, Health]
    stopped: frozenset[str] = frozenset()
    starting: frozenset[str] = frozenset()
    memory: dict[str, int] = field(default_factory=dict)
    short: bool = False


@dataclass(frozen=True)
class Move:
    """What is to be done now about `service`: `restart` it, or take its `fallback`, and why."""

    action: str
    service: str
    why: str


def look(root: Root) -> None:
    """Check every service once and act on what is due. Raises Busy while another run changes the node."""
    generation = store.current(root)
    rules = Rules(**files.read_json(root.join(RULES), {}))
    if not rules.enabled or generation is None or _being_changed(root) or locked(root):
        return
    record = load(root, _of(generation))
    found = _see(rules, generation.manifest["services"], record)
    moves = decide(rules, generation.manifest, found, record, uptime())
    if clusters.of(files.read_json(root.state("node.json"), {})).own:
        # A cluster keeps its data while a member is away, and a member that took something else's place would lose it.
        moves = [move for move in moves if move.action == "restart"]
    try:
        for move in moves:
            _act(root, generation, move, record, found.health)
    finally:
        save(root, record)
        _write_metrics(root, found.health, record, rules)


def _see(rules: Rules, services: list[dict[str, Any]], record: Record) -> Seen:
    health = {row.service: row for row in gate.check_once(services)}
    shown = f"{system.SHOWN},InactiveExitTimestampMonotonic"
    states = system.unit_states((unit for row in services for unit in row["units"]), shown)
    stopped, starting, memory = set(), set(), {}
    for row in services:
        own = [states[unit] for unit in row["units"]]
        memory[row["name"]] = sum(system.memory_of(state) or 0 for state in own) // 2**20
        if any(state.get("ActiveState") == "inactive" for state in own):
            stopped.add(row["name"])
        begun = max([0, *(int(state.get("InactiveExitTimestampMonotonic") or 0) for state in own)])
        if health[row["name"]].healthy:
            record.well[row["name"]] = begun
        deadline = (row["probe"] or {}).get("deadline", 30)
        if record.well.get(row["name"]) != begun and any(_is_starting(state, deadline) for state in own):
            starting.add(row["name"])
    return Seen(health, frozenset(stopped), frozenset(starting), memory, _short(rules))


def _is_starting(state: dict[str, str], deadline: int) -> bool:
    """Whether a systemd unit still has time to begin to answer; one that crashes again and again has not."""
    began = int(state.get("InactiveExitTimestampMonotonic") or 0) / 10**6
    return time.monotonic() - began < deadline and int(state.get("NRestarts") or 0) < gate.CRASHES


def decide(rules: Rules, manifest: dict[str, Any], seen: Seen, record: Record, now: float) -> list[Move]:
    """What is due `now` (uptime); brings `record` up to date."""
    services = {row["name"]: row for row in manifest["services"]}
    unwell = {name for name, row in seen.health.items() if not row.healthy}
    sick = sorted(unwell - seen.stopped - seen.starting)
    for name in [name for name in record.patients if name not in unwell - seen.stopped]:
        del record.patients[name]
    movable = {row["service"] for row in manifest.get("alternatives", [])} - set(record.refused)
    moves = []
    for name in sick:
        patient = record.patients.setdefault(name, Patient(now))
        patient.looks, patient.detail = patient.looks + 1, seen.health[name].detail
        if patient.looks >= _PATIENCE and now >= patient.due and not _excused(services, name, unwell):
            moves.append(_treat(rules, services[name], patient, now, name in movable))
    record.short = record.short + 1 if seen.short else 0
    if record.short >= _SHORT_LOOKS:
        moves += _lighter(manifest, movable, seen.memory)
    # One at a time: an alternative leaves one service, and then another generation's worth of checks begins.
    away = [move for move in moves if move.action == "fallback"][:1]
    return away or moves


def _treat(rules: Rules, service: dict[str, Any], patient: Patient, now: float, movable: bool) -> Move:
    deadline = (service["probe"] or {}).get("deadline", 30)
    if movable and patient.restarts >= rules.restarts:
        times = "1 restart" if patient.restarts == 1 else f"{patient.restarts} restarts"
        return Move("fallback", service["name"], f"{service['name']} stayed sick through {times}: {patient.detail}")
    # Its own time to start, then twice that, and so on.
    pause = min(deadline * 2**patient.restarts, _LONGEST_PAUSE)
    patient.restarts, patient.due = patient.restarts + 1, now + pause
    return Move("restart", service["name"], f"restart {patient.restarts}, the next in {pause} s: {patient.detail}")


def _excused(services: dict[str, dict[str, Any]], name: str, sick: set[str]) -> bool:
    """Whether something that it requires is sick: then that is the patient."""
    seen: set[str] = set()
    waiting = list(services[name]["requires"])
    while waiting:
        needed = waiting.pop()
        if needed in sick:
            return True
        if needed in services and needed not in seen:
            seen.add(needed)
            waiting += services[needed]["requires"]
    return False


def _lighter(manifest: dict[str, Any], movable: set[str], memory: dict[str, int]) -> list[Move]:
    """The move that gives back most memory; none where no fallback needs less than what it replaces uses."""
    rows = [row for row in manifest.get("alternatives", []) if row["service"] in movable]
    rows = sorted(rows, key=lambda row: row["needs_mb"] - memory.get(row["service"], 0))
    if not rows or rows[0]["needs_mb"] >= memory.get(rows[0]["service"], 0):
        return []
    name = rows[0]["service"]
    why = f"the node is short of memory: {name} uses {memory[name]} MB, what replaces it needs {rows[0]['needs_mb']} MB"
    return [Move("fallback", name, why)]


def _short(rules: Rules) -> bool:
    if not rules.free_memory:
        return False
    with open(MEMINFO, encoding="ascii") as stream:
        rows = {key: int(rest.split()[0]) for key, rest in (line.split(":") for line in stream)}
    return 100 * rows["MemAvailable"] < rules.free_memory * rows["MemTotal"] or _pressure() > _PRESSURE


def _pressure() -> float:
    """Percent of the last minute that every process waited for memory; 0 on a kernel that does not tell."""
    for line in (files.read("/proc/pressure/memory") or b"").decode().splitlines():
        if line.startswith("full "):
            return float(line.partition("avg60=")[2].split()[0])
    return 0.0


def _act(root: Root, generation: store.Generation, move: Move, record: Record, health: dict[str, Health]) -> None:
    if move.action == "restart":
        farewell.tell(f"{move.service} does not answer: {move.why}", warning=True)
        _restart(root, generation, move.service)
        record.restarts[move.service] = record.restarts.get(move.service, 0) + 1
        return
    row = next(row for row in generation.manifest["alternatives"] if row["service"] == move.service)
    instead = " and ".join(row["instead"])
    farewell.tell(f"moving to {instead} instead of {move.service}, because {move.why}", warning=True)
    sick = tuple(name for name, verdict in health.items() if not verdict.healthy)
    node = files.read_json(root.state("node.json"), {})
    try:
        request = Request(
            generation.id, node=node, alternative=move.service, because=move.why, sick=sick, over=generation.id
        )
        transaction.deploy(root, request)
    except Busy:
        # Another run on the node comes first; the next look decides anew.
        return
    except (NodeError, OSError) as error:
        said = files.spoken(error) if isinstance(error, OSError) else str(error)
        record.refused[move.service] = said
        farewell.tell(f"{instead} cannot take the place of {move.service}: {said}", warning=True)
        return
    record.fallbacks += 1
    record.patients, record.short = {}, 0
    farewell.tell(f"{instead} runs instead of {move.service}; kai deploy goes back to {move.service}", warning=True)


def _restart(root: Root, generation: store.Generation, name: str) -> None:
    """Restart the units of a service, unless a change of the node began meanwhile."""
    rows = [row for row in generation.manifest["units"] if row["service"] == name and row["starts"] == "now"]
    rows = [row for row in rows if row["name"].endswith(".service")]
    # A firewall that is started anew would open the node for a moment.
    reloaded = [row["name"] for row in rows if row["oneshot"] and row["on_change"] == "reload"]
    with files.lock(root):
        if _being_changed(root):
            return
        system.systemctl("reset-failed", [row["name"] for row in rows])
        system.systemctl("reload-or-restart", reloaded, "--no-block")
        system.systemctl("restart", [row["name"] for row in rows if row["name"] not in reloaded], "--no-block")


def _being_changed(root: Root) -> bool:
    journal = Journal(root)
    # One that only staged touches nothing any more once its controller has died.
    changing = journal.open and (journal.switched or journal.seconds_idle() < _STAGED)
    return changing or os.path.exists(root.state("uninstalling")) or os.path.exists(root.state("pending"))


def _of(generation: store.Generation) -> list[Any]:
    return [boot_id(), generation.number, generation.alternative, _committed(generation)]


def _committed(generation: store.Generation) -> float:
    """When the node was last pointed at the generation: a deploy begins a new count."""
    folder = os.path.dirname(os.path.dirname(generation.path))
    return os.lstat(os.path.join(folder, "current")).st_mtime


def load(root: Root, of: list[Any]) -> Record:
    """What earlier looks have seen; what they saw of another generation, boot or deploy counts no more."""
    record = _read(root)
    return record if record.of == of else Record(of, restarts=record.restarts, fallbacks=record.fallbacks)


def _read(root: Root) -> Record:
    data = files.read_json(root.state(RECORD), {})
    known = {entry.name for entry in fields(Record)}
    record = Record(**{key: value for key, value in data.items() if key in known})
    # Read from JSON, they are plain data.
    record.patients = {name: Patient(**row) for name, row in data.get("patients", {}).items()}
    return record


def save(root: Root, record: Record) -> None:
    """Keep `record` for the next look."""
    data = {**vars(record), "patients": {name: vars(row) for name, row in record.patients.items()}}
    if files.read_json(root.state(RECORD), None) != data:
        files.write_json(root.state(RECORD), data)


def summary(root: Root) -> dict[str, Any]:
    """What the last look saw, for status: services being restarted, memory, refused fallbacks."""
    record = _read(root)
    return {
        "restarts": record.restarts,
        "restarting": {name: row.restarts for name, row in record.patients.items() if row.restarts},
        "short_of_memory": record.short >= _SHORT_LOOKS,
        "refused": record.refused,
    }


def _write_metrics(root: Root, health: dict[str, Health], record: Record, rules: Rules) -> None:
    """For Prometheus, through the node exporter's text files."""
    active = fallback.in_force(root)
    rows = [
        "# HELP kos_service_healthy Whether the service answered at the last look.",
        "# TYPE kos_service_healthy gauge",
        *(f'kos_service_healthy{{service="{name}"}} {int(row.healthy)}' for name, row in sorted(health.items())),
        "# HELP kos_service_restarts_total Restarts because it did not answer; those by systemd are not counted.",
        "# TYPE kos_service_restarts_total counter",
        *(
            f'kos_service_restarts_total{{service="{name}"}} {record.restarts.get(name, 0)}'
            for name in sorted({*health, *record.restarts})
        ),
        "# HELP kos_fallback_active Whether what the profile names was left for its fallback.",
        "# TYPE kos_fallback_active gauge",
        *([_active_line(active)] if active else []),
        "# HELP kos_fallbacks_total Moves to a fallback.",
        "# TYPE kos_fallbacks_total counter",
        f"kos_fallbacks_total {record.fallbacks}",
        "# HELP kos_memory_short Whether the node is short of memory.",
        "# TYPE kos_memory_short gauge",
        f"kos_memory_short {int(record.short >= _SHORT_LOOKS)}",
        "# HELP kos_watch_interval_seconds Seconds between two looks.",
        "# TYPE kos_watch_interval_seconds gauge",
        f"kos_watch_interval_seconds {rules.interval}",
        *bans.figures(),
        *trail.figures(),
    ]
    files.write(root.state("metrics", METRICS), ("\n".join(rows) + "\n").encode())


def _active_line(row: dict[str, Any]) -> str:
    return f'kos_fallback_active{{service="{row["service"]}",instead="{" ".join(row["instead"])}"}} 1'
