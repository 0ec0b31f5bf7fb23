# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables for people. Everything shown here is also there as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..plugins.module_utils.node.encryption.state import concerns as encryption_concerns

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

_TIERS = ("kernel extension", "base service", "agent", "adapter")


def table_of(*columns: str, title: str | None = None) -> Table:
    """An empty table as all of kOS has them."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def size(number: int) -> str:
    """Bytes for people: ``12.3 MB``."""
    if number < 1000:
        return f"{number} B"
    power = min(4, (len(str(number)) - 1) // 3)
    return f"{number / 1000**power:.1f} {' kMGT'[power]}B"


def counted(number: int, noun: str) -> str:
    """``1 change``, ``2 changes``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def plan_view(plan: dict[str, Any], why: bool = True) -> RenderableType:
    """A plan: services in start order, what is not available, ports, totals, preflight."""
    columns = ["service", "for", "runs on", *(["why"] if why else [])]
    table = table_of(*columns, title=f"Plan of {plan['profile']}, in start order")
    for row in plan["services"]:
        cells = [Text(row["name"], style="bold"), ", ".join(row["capabilities"]), row["substrate"]]
        table.add_row(*cells, *([Text(row["why"], style="dim")] if why else []))
    parts: list[RenderableType] = [table, Text()]
    if plan["unavailable"]:
        parts += [_unavailable(plan["unavailable"]), Text()]
    if plan["answers"]:
        parts += [_answers(plan["answers"]), Text()]
    if plan["not_acted_on"]:
        keys = ", ".join(plan["not_acted_on"])
        parts += [Text(f"Set, but not acted on by this release: {keys}", style="dim"), Text()]
    parts.append(_ports(plan["ports"]))
    parts += [_moves(row) for row in plan.get("alternatives", [])]
    if plan.get("cluster"):
        parts.append(_membership(plan))
    needs = plan["requires"]
    parts.append(
        Text(
            f"Needs {needs['cpu']} cores, {needs['memory_mb']} MB of memory, {needs['disk_mb']} MB of disk;"
            f" {len(plan['packages'])} Debian packages, {len(plan['units'])} systemd units",
            style="dim",
        )
    )
    parts.append(preflight_view(plan["preflight"]))
    return Group(*parts)


def _membership(plan: dict[str, Any]) -> Text:
    cluster = plan["cluster"]
    size = len(cluster["members"])
    away = size - (size // 2 + 1)
    spare = f"{away} of them may be away" if away else "none of them may be away; three or more would bear a loss"
    opened = [f"{row['port']}/{row['protocol']} ({row['name']})" for row in plan["ports"] if row["exposure"] == "peers"]
    text = f"Cluster {cluster['name']}: {', '.join(cluster['members'])}; {spare}"
    return Text(f"{text}. Open to its members alone: {', '.join(opened) or 'nothing'}")


def _unavailable(rows: list[dict[str, str]]) -> Table:
    table = table_of("not available yet", "for", "why")
    for row in rows:
        table.add_row(Text(row["requested"], style="yellow"), row["capability"], Text(row["why"], style="dim"))
    return table


def _answers(rows: list[dict[str, str]]) -> Table:
    table = table_of("setting", "", "answer")
    states = {"met": Text("✓", style="green"), "elsewhere": Text("→"), "unavailable": Text("–", style="yellow")}
    for row in rows:
        table.add_row(f"{row['key']}: {row['value']}", states[row["state"]], Text(row["says"], style="dim"))
    return table


def _moves(row: dict[str, Any]) -> Text:
    packages = f", with {', '.join(row['packages'])}" if row["packages"] else ""
    text = f"Should {row['service']} stay sick, {' and '.join(row['instead'])} takes its place{packages}; data stays"
    return Text(text, style="dim")


def _ports(ports: list[dict[str, Any]]) -> Text:
    opened = [f"{row['port']}/{row['protocol']} ({row['name']})" for row in ports if row["exposure"] == "network"]
    return Text(f"Open to the network: {', '.join(_plain_port(text) for text in opened) or 'nothing'}", style="dim")


def _plain_port(text: str) -> str:
    return text.replace("@kos:ssh_port@", "sshd's own port")


def preflight_view(preflight: dict[str, Any]) -> RenderableType:
    """Whether this machine suffices, each shortfall named."""
    lines = [Text(f"✗ {preflight['unsupported']}", style="red")] if preflight["unsupported"] else []
    if not preflight["shortfalls"]:
        lines.append(Text("✓ this machine meets the minimum", style="green"))
    for row in preflight["shortfalls"]:
        style, note = (
            ("yellow", "accepted") if row["accepted"] else ("red", f"not accepted: --accept-shortfall {row['what']}")
        )
        lines.append(Text(f"! {row['what']}: needs {row['need']}, has {row['have']} ({note})", style=style))
    return Group(*lines)


def changes_view(host: str, changes: list[dict[str, str]], download_bytes: int) -> RenderableType:
    """What a deploy would do on one host."""
    if not changes:
        return Text(f"{host}: nothing to do", style="green")
    table = table_of("does", "what", "for", "why", title=f"Changes on {host}")
    kinds = ("user", "package", "image", "secret", "file", "unit", "generation", "volume", "group")
    for row in sorted(changes, key=lambda row: (kinds.index(row["kind"]), row["name"])):
        style = {"remove": "red", "stop": "red", "restart": "yellow"}.get(row["action"], "green")
        table.add_row(
            Text(row["action"], style=style),
            f"{row['kind']} {row['name']}",
            Text(row["service"], style="dim"),
            Text(row["why"], style="dim"),
        )
    restarts = sum(row["action"] == "restart" for row in changes)
    summary = (
        f"{counted(len(changes), 'change')}, {counted(restarts, 'restart')}, {download_bytes / 1e6:.1f} MB to fetch"
    )
    return Group(table, Text(summary, style="dim"))


def status_view(status: dict[str, Any]) -> RenderableType:
    """One node: headline, services, machine."""
    generation = status["generation"]
    if generation is None:
        nothing = Text(f"{status['node']}: nothing has been deployed here (kai deploy)", style="yellow")
        return Group(nothing, *map(_kept_volume, status["kept_volumes"]))
    headline = Text.assemble((status["node"], "bold"), " ", _verdict(status), (_generation_text(generation), "dim"))
    table = table_of("service", "for", "state", "memory", "runs on")
    for row in status["services"]:
        state = Text("● healthy", style="green") if row["healthy"] else Text(f"✗ {row['detail']}", style="red")
        memory = f"{row['memory_mb']} MB" if row["memory_mb"] is not None else "–"
        table.add_row(Text(row["name"], style="bold"), ", ".join(row["capabilities"]), state, memory, _runs_on(row))
    parts: list[RenderableType] = [headline, Text(), table, Text()]
    parts += [_cluster_line(row) for row in status.get("clusters", [])]
    if status["unavailable"]:
        names = ", ".join(row["requested"] for row in status["unavailable"])
        parts.append(Text(f"Not available yet: {names}  (kai plan says why)", style="dim"))
    parts.append(_machine(status))
    if status.get("system"):
        parts.append(_system(status["system"]))
    parts += [Text(f"! {line}", style="yellow") for line in status.get("concerns", [])]
    parts += [_alternative(row) for row in status.get("alternatives", [])]
    if status.get("backup"):
        parts.append(_backup_line(status["backup"]))
    for row in status["shortfalls"]:
        parts.append(Text(f"! {row['what']}: needs {row['need']}, has {row['have']} (accepted)", style="yellow"))
    parts += [_kept_volume(row) for row in status["kept_volumes"]]
    storage = status["storage"]
    if storage["requested"] == "encrypted_local" and not storage["encrypted"]:
        parts.append(Text("! storage: encrypted_local was asked for, this disk is not encrypted", style="yellow"))
    return Group(*parts)


def _runs_on(row: dict[str, Any]) -> str:
    """Substrate, image and user; a service's own user is called after it, and only another one is told."""
    usual = f"kos-{row['name'].replace('_', '-')}"
    user = f" as {row['user']}" if row.get("user") not in (None, usual) else ""
    if not row.get("digest"):
        return f"{row['substrate']}{user}"
    image = row["digest"].removeprefix("sha256:")[:8]
    return f"{row['substrate']} {image}{user}"


def _alternative(row: dict[str, Any]) -> Text:
    ready = f"NOT ready: {row['lacks']}" if row["lacks"] else "ready"
    text = f"Should {row['service']} stay sick, {' and '.join(row['instead'])} takes its place ({ready})"
    return Text(text, style="yellow" if row["lacks"] else "dim")


def _kept_volume(row: dict[str, Any]) -> Text:
    size = f"{row['size_mb']} MB, " if row["size_mb"] is not None else ""
    return Text(f"Kept: {row['path']} ({size}of {row['service']}, which nothing asks for; {row['remove']} removes it)")


def _cluster_line(row: dict[str, Any]) -> Text:
    whole = row["size"] is not None and row["healthy"] == row["size"]
    return Text(f"{'' if whole else '! '}Cluster of {row['service']}: {row['text']}", style="" if whole else "yellow")


def _backup_line(backup: dict[str, Any]) -> Text:
    last, success = backup["last"], backup["last_success"]
    if last is None:
        text = Text("! Backup: none has been made yet (kai backup)", style="yellow")
    elif not last["ok"]:
        good = f"; the last complete one is from {_ago(success)}" if success else ""
        text = Text(f"! Backup failed {_ago(last['time'])}: {last['error']}{good}", style="red")
    else:
        text = Text(f"Backup {_ago(last['time'])} · snapshot {last['snapshot']}", style="dim")
    if backup["key_exported"] is None:
        text.append("\n! Its key is on this node only: kai backup key export", style="yellow")
    return text


def _verdict(status: dict[str, Any]) -> Text:
    sick = sum(not row["healthy"] for row in status["services"])
    generation = status["generation"]
    if generation["state"] == "switching":
        left = generation.get("seconds_left")
        when = f"in {left} s" if left is not None else "at its deadline"
        return Text(
            f"is being changed: goes back by itself {when} unless that run commits (kai deploy repairs)", "yellow"
        )
    if sick:
        return Text(f"has {counted(sick, 'service')} that {'is' if sick == 1 else 'are'} not healthy", "bold red")
    return Text("is healthy", "bold green")


def _generation_text(generation: dict[str, Any]) -> str:
    ago = f", {_ago(generation['committed'])}" if generation["committed"] else ""
    number = f"generation {generation['number']} ({generation['id'][:12]})"
    signed = f" · signed by {generation['signed_by']}" if generation["signed_by"] else " · NOT signed by anyone trusted"
    return f"   {generation['profile']} · {number} · {generation['state']}{ago}{signed}"


def _ago(moment: int) -> str:
    seconds = max(0, int(time.time()) - moment)
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            number = seconds // size
            return f"{number} {unit}{'s' if number > 1 else ''} ago"
    return "just now"


def _machine(status: dict[str, Any]) -> Text:
    resources = status["resources"]
    memory, disk = resources["memory_mb"], resources["disk_gb"]
    text = (
        f"Memory {memory['used']} of {memory['total']} MB · disk {disk['used']} of {disk['total']} GB"
        f" · load {resources['load']} on {resources['cpu']} cores"
    )
    return Text(text, style="dim")


def _system(row: dict[str, Any]) -> Text:
    others = ", ".join(str(number) for number in row["slots"] if number != row["slot"])
    kept = f"; kept to go back to: {others} (kai update --back)" if others else ""
    return Text(f"System {row['slot']}{kept}", style="dim")


def doctor_view(host: str, findings: list[dict[str, str]]) -> RenderableType:
    """Each finding with the command that mends it."""
    if not findings:
        return Text(f"{host}: nothing to mend", style="green")
    table = table_of("what", "is wrong", "mend it with", title=f"{host}: {len(findings)} to mend")
    for row in findings:
        table.add_row(Text(row["what"], style="bold"), row["problem"], Text(row["fix"], style="cyan"))
    return table


def generations_view(host: str, rows: list[dict[str, Any]]) -> RenderableType:
    """The generations a node keeps."""
    table = table_of("", "number", "id", "profile", "last", "services", title=f"Generations on {host}")
    for row in rows:
        mark = Text("●", style="green") if row["current"] else Text("")
        last = Text(row["result"], style="red" if row["result"] == "reverted" else "")
        table.add_row(mark, str(row["number"]), row["id"][:12], row["profile"], last, str(len(row["services"])))
    return table if rows else Text(f"{host}: no generation yet", style="yellow")


def comparison_view(row: dict[str, Any]) -> RenderableType:
    """Two nodes side by side: what makes them unequal, then what may differ between any two."""
    one, other = row["one"], row["other"]
    named, rest = row["packages"]["named"], row["packages"]["base"]
    generations = [found[:12] or "none" for found in row["generations"].values()]
    if row["equal"]:
        said = f"generation {generations[0]}, {counted(named, 'package')} that it names in the same versions"
        head: RenderableType = Text(f"{one} and {other} are equal: {said}", style="green")
    else:
        title = f"{one} and {other} are not equal: {counted(len(row['differences']), 'difference')}"
        head = _differences(title, one, other, row["differences"])
    parts = [head]
    if row["base"]:
        title = f"The rest of the system ({len(row['base'])} of {counted(rest, 'package')} not alike)"
        parts += [Text(), _differences(title, one, other, row["base"])]
    if row["machine"]:
        parts += [Text(), _differences("The machines", one, other, row["machine"])]
    return Group(*parts, Text())


def _differences(title: str, one: str, other: str, rows: list[dict[str, str]]) -> Table:
    table = table_of("what", "which", one, other, title=title)
    for row in rows:
        table.add_row(row["kind"], Text(row["name"], style="bold"), row["one"], row["other"])
    return table


def trust_view(host: str, rows: list[dict[str, Any]]) -> RenderableType:
    """The keys whose signature a node accepts."""
    if not rows:
        return Text(f"{host}: trusts nobody yet; the first deploy enrols its controller", style="yellow")
    table = table_of("", "name", "key", title=f"Trusted signers on {host}  (● signed what runs)")
    for row in rows:
        table.add_row(Text("●" if row["current"] else "", style="green"), row["name"], row["fingerprint"])
    return table


def models_view(host: str, rows: list[dict[str, Any]]) -> RenderableType:
    """The language models of a node."""
    if not rows:
        return Text(f"{host}: no model: kai model add FILE|URL --sha256 HEX", style="yellow")
    table = table_of("", "name", "size", "SHA-256", title=f"Language models on {host}  (● answers to `default`)")
    for row in rows:
        mark = Text("●" if row["default"] else "", style="green")
        table.add_row(mark, Text(row["name"], style="bold"), size(row["size"]), row["sha256"])
    return table


def bundle_view(bundle: dict[str, Any]) -> RenderableType:
    """A bundle: what it was made for, by whom, and how much of what is in it."""
    head = Text(f"Bundle {bundle['id'][:12]}…, {bundle['architecture']}, {size(bundle['size'])}", style="bold")
    made = Text(f"made {bundle['made']} by {bundle['by']}", style="dim")
    table = table_of("generation", "profile", "environment", "services", "packages", "images", title="Made for")
    for row in bundle["generations"]:
        counts = [str(len(row[key])) for key in ("services", "packages", "images")]
        table.add_row(f"{row['id'][:12]}…", row["profile"], row["environment"] or "-", *counts)
    parts: list[RenderableType] = [head, made, Text(), table, Text(), _bundle_contents(bundle["content"])]
    if bundle["images"]:
        images = table_of("image or wheels", "size")
        for row in bundle["images"]:
            images.add_row(f"{row['repository']}@{row['digest'][:19]}…", size(row["size"]))
        parts += [Text(), images]
    return Group(*parts)


_BUNDLED = {
    "apt/pool/": "Debian packages",
    "apt/": "their index and its key",
    "blobs/": "parts of container images, wheels",
    "models/": "language models",
}


def _bundle_contents(rows: list[dict[str, Any]]) -> Table:
    sums: dict[str, list[int]] = {}
    for row in rows:
        what = next((name for prefix, name in _BUNDLED.items() if row["path"].startswith(prefix)), "other files")
        sums.setdefault(what, []).append(row["size"])
    table = table_of("content", "files", "size")
    for what, sizes in sorted(sums.items()):
        table.add_row(what, str(len(sizes)), size(sum(sizes)))
    return table


def backup_view(host: str, record: dict[str, Any]) -> RenderableType:
    """What one backup stored."""
    rows = table_of("service", "files", "size", "took", title=f"{host}: snapshot {record['snapshot']}")
    for name, row in record["services"].items():
        rows.add_row(Text(name, style="bold"), str(row["files"]), size(row["bytes"]), f"{row['seconds']} s")
    places = ", ".join(record["repositories"])
    closing = (
        f"{size(record['added'])} added to {places} in {record['seconds']} s;"
        f" all copies are of the same {record['window_seconds']} s"
    )
    return Group(rows, Text(closing, style="dim"))


def snapshots_view(host: str, rows: list[dict[str, Any]]) -> RenderableType:
    """The snapshots in a node's first repository."""
    if not rows:
        return Text(f"{host}: no snapshot yet (kai backup)", style="yellow")
    listed = table_of("snapshot", "made (UTC)", "node", "size", "added", "", title=f"Snapshots that {host} sees")
    for row in rows:
        made = row["time"].replace("T", " ").rstrip("Z")
        marks = Text(", ".join(row["tags"]), style="yellow")
        listed.add_row(Text(row["id"], style="bold"), made, row["host"], size(row["bytes"]), size(row["added"]), marks)
    return listed


def restore_view(host: str, report: dict[str, Any]) -> RenderableType:
    """What a restore brought back, and whether it runs."""
    snapshot, came = report["snapshot"], report["manifest"]
    rows = table_of("restored", "files", "size", "took", title=f"{host}: snapshot {snapshot['id']} of {came['node']}")
    for name, row in report["services"].items():
        rows.add_row(Text(name, style="bold"), str(row["files"]), size(row["bytes"]), f"{row['seconds']} s")
    sick = [row for row in report["health"] if not row["healthy"]]
    lines = [Text(f"✗ {row['service']}: {row['detail']}", style="red") for row in sick]
    lines += [] if sick else [Text(f"✓ all services are healthy, after {report['seconds']} s", style="green")]
    if report["safety"]:
        lines.append(Text(f"What was there before is snapshot {report['safety']}", style="dim"))
    return Group(rows, *lines)


def encryption_view(host: str, found: dict[str, Any]) -> RenderableType:
    """How the data of a node are, and what opens them."""
    if found["state"] == "none":
        return Text(f"{host}: no encrypted volume: kai encryption apply --target DISK makes one", style="yellow")
    style = {"open": "green", "locked": "red"}.get(found["state"], "yellow")
    lines = [
        Text(f"{host}: {found['state']}, on {found['target']}; opened by: {', '.join(found['keys'])}", style=style),
        *(Text(f"  encrypted  {path}") for path in found["directories"]),
        *(Text(f"  IN CLEAR   {path}", style="yellow") for path in found["in_clear"]),
        *(Text(f"  left out   {path}", style="dim") for path in found["skipped"]),
    ]
    lines += [Text(f"! {line}", style="yellow") for line in encryption_concerns(found)]
    return Group(*lines)


def moved_view(host: str, report: dict[str, Any]) -> RenderableType:
    """How a move went: each copy, the stop, and what the kernel says."""
    lines = [
        Text(f"{host}: copy {number} took {row['seconds']:.1f} s for {size(round(row['bytes']))}")
        for number, row in enumerate(report["copies"], 1)
    ]
    if report["changed"]:
        parts = ", ".join(f"{part} {seconds:.1f}" for part, seconds in report.get("stop", {}).items())
        told = f"{host}: services were stopped for {report['stopped_seconds']:.1f} s"
        lines.append(Text(f"{told}: {parts}" if parts else told, style="bold"))
    for row in report["findings"]:
        found = f" ({row['found']})" if row["found"] else ""
        mark, style = ("✓", "green") if row["good"] else ("✗", "red")
        lines.append(Text(f"{mark} {row['what']}{found}", style=style))
    if report["plain"]:
        told = "the plain copies stay until kai encryption discard, which wants one restart and unlock before"
        lines.append(Text(f"! {told}", style="yellow"))
    return Group(*lines)


def unlocked_view(host: str, answer: dict[str, Any]) -> RenderableType:
    """What runs again."""
    if not answer["opened"]:
        return Text(f"{host}: was not locked", style="dim")
    sick = [row for row in answer["services"] if not row["healthy"]]
    lines = [Text(f"✗ {row['service']}: {row['detail']}", style="red") for row in sick]
    return Group(*lines, Text(f"{host}: unlocked", style="yellow" if sick else "green"))


def said_view(sentence: str) -> Callable[[str, Any], RenderableType]:
    """A view that says one sentence of each host."""
    return lambda host, _answer: Text(f"{host}: {sentence}", style="green")


def verify_view(host: str, report: dict[str, Any]) -> RenderableType:
    """What a check of the repositories and of one snapshot found."""
    rows = table_of("checked", "", "size", title=f"{host}: {'all is well' if report['ok'] else 'NOT all is well'}")
    for row in report["repositories"]:
        rows.add_row(Text(row["place"], style="bold"), _intact(row), "")
    for name, row in report["services"].items():
        rows.add_row(Text(name, style="bold"), _intact(row), size(row["bytes"]))
    problem = [Text(f"✗ {report['problem']}", style="red")] if "problem" in report else []
    return Group(rows, *problem)


def _intact(row: dict[str, Any]) -> Text:
    return Text("✓ intact", style="green") if row["ok"] else Text(f"✗ {row['problem']}", style="red")


def faults_view(faults: list[dict[str, Any]]) -> RenderableType:
    """Every fault with its place and its fix."""
    blocks = []
    for row in faults:
        where = f"{row['file'] or ''}{':' + str(row['line']) if row['line'] else ''}"
        fix = f"\n    {row['fix']}" if row["fix"] else ""
        heading = [part for part in ((where, "dim"), (row["key"] or "", "bold")) if part[0]]
        spaced = [heading[0], "  ", heading[1]] if len(heading) == 2 else heading
        message = ("\n    " if heading else "    ") + row["message"]
        blocks.append(Text.assemble(*spaced, (message, "red"), (fix, "cyan")))
    return Group(*blocks)


def stopped_view(events: list[dict[str, Any]]) -> str:
    """What becomes of each node of a run that was told to stop, from the run's events; plain text."""
    last = {row["host"]: row for row in events if row["event"].startswith(("switch.", "commit.", "rollback."))}
    if not last:
        return "Stopped. Nothing was changed."
    return "\n".join(["Stopped.", *(f"{host} {_fate(row)}" for host, row in last.items())])


def _fate(event: dict[str, Any]) -> str:
    if event["event"] in ("commit.end", "rollback.end"):
        return "was finished before: its generation is committed"
    if event.get("reverted"):
        return "had failed before and runs what it ran"
    if event["event"] in ("commit.begin", "rollback.begin"):
        return "was about to finish: kai status says whether it has; if not, it takes the change back by itself"
    return (
        "had begun to change and takes it back by itself (180 s after its last sign of life, or kos_deadline);"
        " running the same command again mends it sooner"
    )
