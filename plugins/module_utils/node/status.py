# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What runs here and whether it is well: one document for people, machines and the live page."""

from __future__ import annotations

import contextlib
import html
import json
import os
import shutil
import time
from typing import Any

from . import (
    backup,
    facts,
    fallback,
    files,
    gate,
    history,
    integrity,
    ledger,
    settings,
    spares,
    store,
    system,
    trust,
    watch,
)
from . import cluster as clusters
from .encryption import record
from .encryption import state as encryption
from .files import Root
from .gate import Health
from .journal import DIRECTORY, Journal, uptime
from .machine import enrol, mirror, system_update

PAGE_DIRECTORY = "/run/kos-status"
PAGE_SECONDS = 5


def status(root: Root) -> dict[str, Any]:
    """Generation, services with their health, what is not available, shortfalls, storage, resources."""
    generation = store.current(root)
    node = files.read_json(root.state("node.json"), {})
    document: dict[str, Any] = {
        "node": os.uname().nodename,
        "time": int(time.time()),
        "generation": None,
        "services": [],
        "clusters": [],
        "unavailable": [],
        "shortfalls": node.get("shortfalls", []),
        "resources": _resources(),
        "storage": _storage(root, None),
        "kept_volumes": _kept_volumes(root, generation.manifest if generation else None),
        "backup": backup.state(root),
        "fallback": fallback.in_force(root),
        "alternatives": [],
        "watch": watch.summary(root),
        "system": system_update.status(root),
        "enrolment": enrol.state(root),
        "mirrors": mirror.found(root),
        "encryption": encryption.state(root),
        "integrity": integrity.summary(root, generation.manifest if generation else None),
        "concerns": [],
    }
    document["concerns"] = [*concerns(document), *mirror.concerns(root, document["mirrors"])]
    document["concerns"] += encryption.concerns(document["encryption"])
    if generation is None:
        return document
    manifest = generation.manifest
    document["generation"] = {
        "number": generation.number,
        "id": generation.id,
        "profile": manifest["profile"],
        "signed_by": signed_by(root),
        "state": _state(root),
        "committed": _committed(root, generation.number),
        "seconds_left": _seconds_left(root),
    }
    health = {row.service: row for row in gate.check_once(manifest["services"])}
    states = system.unit_states(unit["name"] for unit in manifest["units"])
    pinned = {row["service"]: {"digest": row["digest"]} for row in manifest.get("images", [])}
    document["services"] = [
        {**_service(row, health[row["name"]], states), **pinned.get(row["name"], {})} for row in manifest["services"]
    ]
    document["unavailable"] = manifest["unavailable"]
    document["not_set_here"] = settings.not_here(root, manifest)
    document["alternatives"] = spares.readiness(root, manifest)
    document["storage"] = _storage(root, manifest["storage"])
    return document


def signed_by(root: Root) -> str | None:
    """The trusted signer of the current generation, or None where there is none."""
    generation = store.current(root)
    try:
        return trust.verify(root, generation.id, generation.signature) if generation else None
    except trust.Untrusted:
        return None


def _kept_volumes(root: Root, manifest: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Data of services that are no longer asked for; sizes only for root, who alone may look."""
    command = "kai deploy --purge" if manifest else "kai uninstall --purge"
    return [
        {**row, "size_mb": _size_mb(root.join(row["path"])), "remove": command}
        for row in ledger.kept_volumes(root, ledger.load(root), manifest)
    ]


def _size_mb(path: str) -> int | None:
    if os.geteuid() != 0:
        return None
    total = 0
    for folder, _folders, names in os.walk(path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512
    return round(total / 10**6)


def _service(row: dict[str, Any], health: Health, states: dict[str, dict[str, str]]) -> dict[str, Any]:
    return {
        "name": row["name"],
        "summary": row["summary"],
        "capabilities": row["capabilities"],
        "tier": row["tier"],
        "substrate": row["substrate"],
        "user": row["user"],
        "reasons": row["reasons"],
        "healthy": health.healthy,
        "detail": health.detail,
        "memory_mb": _memory_mb(row["units"], states),
        "units": row["units"],
    }


def _clusters(services: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What each service that is a member of a cluster says of it, and one sentence about that."""
    found = []
    for row in services:
        # A generation from before clusters has no such key.
        if command := row.get("cluster"):
            try:
                said = gate.answer(command)
                if said.strip():
                    told = json.loads(said)
                    found.append({"service": row["name"], **told, "text": clusters.sentence(told)})
            except (gate.ProbeFailed, ValueError, KeyError) as error:
                found.append({"service": row["name"], "size": None, "text": f"cannot be asked: {error}"})
    return found


def _memory_mb(units: list[str], states: dict[str, dict[str, str]]) -> int | None:
    used = [amount for unit in units if (amount := system.memory_of(states.get(unit, {}))) is not None]
    return round(sum(used) / 2**20) if used else None


def _state(root: Root) -> str:
    if os.path.exists(root.state("pending")):
        return "pending"
    if os.geteuid() != 0:
        # The status page's own user may see that a transaction is open, not what is in it.
        return "switching" if os.path.exists(root.state(DIRECTORY)) else "committed"
    journal = Journal(root)
    return "switching" if journal.open and journal.switched else "committed"


def _seconds_left(root: Root) -> int | None:
    """Until an open transaction is taken back; None where none is armed."""
    deadline = files.read_json(root.state("deadline"), None)
    return None if deadline is None else max(0, round(deadline - uptime()))


def _committed(root: Root, number: int) -> int | None:
    times = [row["time"] for row in history.read(root) if row["generation"] == number and row["result"] == "committed"]
    return times[-1] if times else None


def _storage(root: Root, requested: str | None) -> dict[str, Any]:
    if facts.facts()["disk_encrypted"]:
        return {"requested": requested, "encrypted": True, "text": "this disk is encrypted"}
    volume = record.in_use(root) and not record.in_clear(root)
    text = "the data are encrypted, the system's own disk is not" if volume else "this disk is not encrypted"
    return {"requested": requested, "encrypted": volume, "text": text}


def _resources() -> dict[str, Any]:
    with open("/proc/meminfo", encoding="ascii") as stream:
        memory = {key: int(rest.split()[0]) // 1024 for key, rest in (line.split(":") for line in stream)}
    disk = shutil.disk_usage("/var/lib")
    return {
        "cpu": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "memory_mb": {"total": memory["MemTotal"], "used": memory["MemTotal"] - memory["MemAvailable"]},
        "disk_gb": {"total": disk.total // 10**9, "used": disk.used // 10**9},
    }


def serve(root: Root) -> None:
    """Write the live page and its JSON every few seconds, for ever."""
    while True:
        document = status(root)
        files.write_json(os.path.join(PAGE_DIRECTORY, "status.json"), document)
        files.write(os.path.join(PAGE_DIRECTORY, "index.html"), page(document).encode())
        time.sleep(PAGE_SECONDS)


_STYLE = """
:root{color-scheme:light dark;--ok:#1a7f37;--bad:#c0341d;--dim:#66707c;--line:#8884}
@media (prefers-color-scheme:dark){:root{--ok:#4ac26b;--bad:#ff8170;--dim:#9aa4b0}}
*{box-sizing:border-box}body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:46rem;padding:1.2rem}
h1{font-size:1.5rem;margin:.2rem 0}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}
p{margin:.2rem 0}.dim{color:var(--dim);font-size:.88rem}
ul{list-style:none;margin:0;padding:0}li{border-top:1px solid var(--line);padding:.55rem 0;display:flex;gap:.7rem}
li>div{flex:1;min-width:0;overflow-wrap:anywhere}.ok{color:var(--ok)}.bad{color:var(--bad);font-weight:600}
.state{flex:none;width:6.5rem}code{font-size:.9em}
"""


def page(document: dict[str, Any]) -> str:
    """The status document as one plain page that needs no script and fits a phone."""
    generation = document["generation"]
    sick = [row["name"] for row in document["services"] if not row["healthy"]]
    if generation is None:
        headline = '<p class="bad">No generation has been deployed</p>'
    elif sick:
        headline = f'<p class="bad">Not healthy: {_escape(", ".join(sick))}</p>'
    else:
        headline = f'<p class="ok">All {len(document["services"])} services are healthy</p>'
    body = [f"<h1>{_escape(document['node'])}</h1>", headline, _generation_line(generation, document["time"])]
    body += [f'<p class="bad">{_escape(line)}</p>' for line in document["concerns"]]
    body += ["<h2>Services</h2><ul>", *map(_service_line, document["services"]), "</ul>"]
    if document["clusters"]:
        rows = [f"<p>{_escape(row['service'])}: {_escape(row['text'])}</p>" for row in document["clusters"]]
        body += ["<h2>Clusters</h2>", *rows]
    body += ["<h2>This machine</h2>", *_machine_lines(document)]
    if document["unavailable"]:
        body += ["<h2>Not available yet</h2><ul>", *map(_unavailable_line, document["unavailable"]), "</ul>"]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="refresh" content="{PAGE_SECONDS}"><title>{_escape(document["node"])} · kOS</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"
    )


def concerns(document: dict[str, Any]) -> list[str]:
    """What the node has done about its services by itself and could not mend, a sentence each."""
    looks = document["watch"]
    lines = [*_of_system(document["system"]), *_of_enrolment(document["enrolment"])]
    lines += integrity.concerns(document["integrity"])
    if document["fallback"]:
        row = document["fallback"]
        lines.append(f"Fallback: {fallback.said(row)}. Data was not moved; kai deploy goes back to {row['service']}")
    if looks["short_of_memory"]:
        lines.append("This node is short of memory")
    lines += [
        f"{name} does not answer and was restarted {times} {'time' if times == 1 else 'times'}"
        for name, times in sorted(looks["restarting"].items())
    ]
    refused = sorted(looks["refused"].items())
    return [*lines, *(f"The fallback of {name} was tried and refused: {said}" for name, said in refused)]


def _of_system(row: dict[str, Any] | None) -> list[str]:
    lines = []
    if row and row["failed"]:
        lines.append(f"The update to system {row['failed']['slot']} went back by itself: {row['failed']['reason']}")
    if row and row["waiting"]:
        lines.append(f"System {row['waiting']} is tried at the next start of this machine")
    return lines


def _of_enrolment(row: dict[str, Any]) -> list[str]:
    waits = row.get("tpm2") == "pending"
    return [f"This machine's TPM does not open its disk yet: {row['why']}"] if waits else []


def _generation_line(generation: dict[str, Any] | None, now: int) -> str:
    if generation is None:
        return ""
    clock = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    text = (
        f"generation {generation['number']} · <code>{generation['id'][:12]}</code> · {_escape(generation['profile'])}"
    )
    return (
        f'<p class="dim">{text} · {_escape(generation["state"])}<br>as of {clock}, refreshed every {PAGE_SECONDS} s</p>'
    )


def _service_line(row: dict[str, Any]) -> str:
    mark = '<span class="state ok">healthy</span>' if row["healthy"] else '<span class="state bad">unhealthy</span>'
    memory = f" · {row['memory_mb']} MB" if row["memory_mb"] is not None else ""
    trouble = "" if row["healthy"] else f"<br>{_escape(row['detail'])}"
    what = f'<span class="dim">{_escape(", ".join(row["capabilities"]))}{memory}{trouble}</span>'
    return f"<li>{mark}<div><b>{_escape(row['name'])}</b><br>{what}</div></li>"


def _unavailable_line(row: dict[str, str]) -> str:
    text = f"{_escape(row['capability'])}<br>{_escape(row['why'])}"
    return f'<li><div><b>{_escape(row["requested"])}</b> <span class="dim">{text}</span></div></li>'


def _machine_lines(document: dict[str, Any]) -> list[str]:
    resources = document["resources"]
    memory, disk = resources["memory_mb"], resources["disk_gb"]
    lines = [
        f"<p>Memory {memory['used']} of {memory['total']} MB · disk {disk['used']} of {disk['total']} GB"
        f" · load {resources['load']} on {resources['cpu']} cores</p>"
    ]
    storage = document["storage"]
    if storage["requested"] == "encrypted_local" and not storage["encrypted"]:
        lines.append('<p class="bad">Encrypted storage was asked for, but this disk is not encrypted</p>')
    for row in document["shortfalls"]:
        text = f"{row['what']}: needs {row['need']}, has {row['have']} (accepted)"
        lines.append(f'<p class="dim">{_escape(text)}</p>')
    return lines


def _escape(text: object) -> str:
    return html.escape(str(text))
