# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai lab`: throw-away nodes on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.table import Table
from typer.core import TyperGroup

from ..lab import host, lifecycle, node, power, privilege, ssh, state, traffic
from ..lab.errors import LabError, UsageError
from ..lab.identity import identify
from ..plugins.plugin_utils import apt
from . import booting
from .options import AsJson
from .view import console, errors


class _LabGroup(TyperGroup):
    """A group whose commands fail with a sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Raises typer.Exit with the code of a LabError."""
        try:
            return super().invoke(ctx)
        except LabError as error:
            if "--json" in sys.argv:
                print(json.dumps({"error": str(error)}, indent=1))
            else:
                errors.print(str(error), style="red", markup=False)
            raise typer.Exit(error.exit_code) from error


app = typer.Typer(cls=_LabGroup, help="Throw-away Debian 13 nodes on this machine.", no_args_is_help=True)
network_app = typer.Typer(cls=_LabGroup, help="Cut the nodes off the network, and back on.", no_args_is_help=True)
app.add_typer(network_app, name="network")

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Nodes by name.", show_default=False)]


@app.command()
def up(
    names: Names = None,
    memory_backed: Annotated[
        str | None,
        typer.Option("--memory-backed", metavar="SIZE", help="Disk in memory of this size, such as 512M."),
    ] = None,
    driver: Annotated[
        str | None,
        typer.Option("--driver", metavar="DRIVER", help="nspawn (seconds), or vm: a kernel of its own, in QEMU."),
    ] = None,
    apt_mirror: Annotated[
        str | None,
        typer.Option("--apt-mirror", envvar=apt.MIRROR, help="Debian mirror; without it, this machine's own."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start nodes (without a name: node1), and whatever they need.

    The first time on a machine this makes a Debian 13 root, which takes half a minute; afterwards it takes seconds.
    Nodes that are on stay as they are; one that is off is switched on again, with its disk.

    Examples:

      kai lab up

      kai lab up node1 node2

      kai lab up small --memory-backed 512M

      kai lab up metal --driver vm
    """
    privilege.become_root()
    if apt_mirror:
        os.environ[apt.MIRROR] = apt_mirror
    try:
        lifecycle.up(identify(), names or ["node1"], memory_backed, driver, say=_say)
    except KeyboardInterrupt:
        _say("stopped half-way; `kai lab up` goes on from here, `kai lab down` removes what there is")
        raise
    _show(as_json)


@app.command()
def down(names: Names = None) -> None:
    """Remove nodes, or without a name the whole lab, and every trace of them.

    Examples:

      kai lab down

      kai lab down node2
    """
    privilege.become_root()
    found = lifecycle.down(identify(), names or [], say=_say)
    _say("removed" if found else "there was nothing to remove")


@app.command()
def kill(name: Annotated[str, typer.Argument(help="The node.")]) -> None:
    """Pull a node's plug: nothing is stopped or written back. Its disk stays, and `up` switches it on again.

    Example:

      kai lab kill node1
    """
    privilege.become_root()
    lifecycle.kill(identify(), name)


@app.command()
def save(name: Annotated[str, typer.Argument(help="The node, switched off.")]) -> None:
    """Keep a node's disk as it is now, so that `reset` brings it back as often as you like.

    Example:

      kai lab kill node1 && kai lab save node1
    """
    privilege.become_root()
    lifecycle.save(identify(), name)


@app.command()
def disk(
    name: Annotated[str, typer.Argument(help="The virtual node, switched off.")],
    size: Annotated[str, typer.Argument(help="Of the disk, such as 2G.")],
) -> None:
    """Give a virtual node an empty disk more: /dev/disk/by-id/virtio-spare.

    Example:

      kai lab kill metal && kai lab disk metal 2G && kai lab up metal
    """
    privilege.become_root()
    lifecycle.give_disk(identify(), name, size)


@app.command()
def reset(name: Annotated[str, typer.Argument(help="The node, on or off.")]) -> None:
    """Give a node the disk that `save` kept and switch it on: what happened to it since is gone.

    Example:

      kai lab reset node1
    """
    privilege.become_root()
    lifecycle.reset(identify(), name, say=_say)


@app.command("list")
def show(as_json: AsJson = False) -> None:
    """List the nodes of this checkout's lab and the ports that lead to them.

    Example:

      kai lab list
    """
    _show(as_json)


@app.command("ssh", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def login(
    name: Annotated[str, typer.Argument(help="The node.")],
    command: Annotated[list[str] | None, typer.Argument(help="What to run there; without it, a shell.")] = None,
) -> None:
    """Log in to a node as root, or run a command there.

    Examples:

      kai lab ssh node1

      kai lab ssh node1 systemctl --failed
    """
    privilege.become_root()
    lab = identify()
    target = state.require(lab).node(name)
    if not node.running(lab, name):
        raise UsageError(f"node {name} is off; `kai lab up {name}` switches it on")
    words = (command or [])[1:] if (command or [])[:1] == ["--"] else command or []
    raise typer.Exit(subprocess.run(ssh.argv(lab, target, words, "-q")).returncode)


@app.command()
def reboot(
    name: Annotated[str, typer.Argument(help="The node.")],
    hard: Annotated[bool, typer.Option("--hard", help="Without asking it, as the reset button does.")] = False,
) -> None:
    """Restart a node and wait until it is there again.

    Examples:

      kai lab reboot node1

      kai lab reboot node1 --hard
    """
    privilege.become_root()
    _say(f"{name} says it is {power.reboot(identify(), name, hard)}")


@app.command(context_settings={"ignore_unknown_options": True})
def clock(
    name: Annotated[str, typer.Argument(help="The node, of the driver vm.")],
    offset: Annotated[str, typer.Argument(help="Sign, number and s, m, h or d.")],
) -> None:
    """Move the clock of a node. A reboot brings this machine's time back.

    Examples:

      kai lab clock node1 +3d

      kai lab clock node1 -90s
    """
    privilege.become_root()
    console.print(f"{name} says it is {power.move_clock(identify(), name, offset)}")


@network_app.command()
def cut(name: Annotated[str | None, typer.Argument(help="Only this node.", show_default=False)] = None) -> None:
    """Take the lab off the world; with a name, that node off the world and off its peers.

    `kai lab ssh` and Ansible still reach the nodes.

    Examples:

      kai lab network cut

      kai lab network cut node2
    """
    privilege.become_root()
    traffic.cut(identify(), name)


@network_app.command()
def restore(name: Annotated[str | None, typer.Argument(help="Only this node.", show_default=False)] = None) -> None:
    """Undo `cut` of the same.

    Example:

      kai lab network restore
    """
    privilege.become_root()
    traffic.restore(identify(), name)


@app.command()
def forward(
    name: Annotated[str, typer.Argument(help="The node.")],
    ports: Annotated[
        str,
        typer.Argument(metavar="[HERE:]THERE", help="Port here (default: a free one), port of the node."),
    ],
    listen: Annotated[str, typer.Option("--listen", help="Address of this machine to listen on.")] = traffic.LOOPBACK,
    remove: Annotated[bool, typer.Option("--remove", help="Close it again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Lead a TCP port of this machine to a port of a node, for a browser.

    Examples:

      kai lab forward node1 443

      kai lab forward node1 8080:80

      kai lab forward node1 8080:80 --remove
    """
    privilege.become_root()
    here, there = _ports(ports)
    lab = identify()
    if remove:
        if here is None:
            raise UsageError("name the port of this machine too, as in 8443:443")
        traffic.unforward(lab, here)
        return
    if here is None:
        made = traffic.forward_to_free_port(lab, name, there)
    else:
        made = traffic.forward(lab, name, here, there, listen)
    if as_json:
        print(json.dumps(asdict(made), indent=1))
    else:
        scheme = {80: "http://", 443: "https://"}.get(there, "")
        console.print(
            f"{scheme}{'localhost' if listen == traffic.LOOPBACK else listen}:{made.host_port} leads to {name}:{there}"
        )


app.command("boot")(booting.boot)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what the lab finds on this machine, what that means and how to mend what is missing.

    Exit code 4 when the lab cannot work here.

    Example:

      kai lab doctor
    """
    facts = host.facts(host.survey())
    if as_json:
        print(json.dumps([asdict(fact) for fact in facts], indent=1))
    else:
        console.print(_facts_table(facts))
    if any(fact.ok is False for fact in facts):
        raise typer.Exit(4)


def _say(text: str) -> None:
    errors.print(text, style="dim", markup=False)


def _ports(text: str) -> tuple[int | None, int]:
    ports = text.split(":")
    if len(ports) > 2 or not all(port.isdecimal() and 0 < int(port) < 65536 for port in ports):
        raise UsageError(f"'{text}': write HERE:THERE, as in 8443:443, or THERE for any free port here")
    return (int(ports[0]) if len(ports) == 2 else None), int(ports[-1])


def _show(as_json: bool) -> None:
    lab = identify()
    current = state.load(lab)
    if as_json:
        print(json.dumps(_description(lab.netns, current), indent=1))
    elif current is None or not current.nodes:
        console.print("No node is up. `kai lab up` starts one.")
    else:
        console.print(_nodes_table(current))
        for line in current.forwards:
            console.print(f"{line.listen}:{line.host_port} leads to {line.node}:{line.node_port}")
        if current.cut:
            console.print("The lab is off the network; `kai lab network restore` puts it back.", style="yellow")


def _description(netns: str, current: state.State | None) -> dict[str, Any]:
    """The lab for programs; `power` is observed, the rest is what was asked for."""
    if current is None:
        return {"up": False, "nodes": {}, "forwards": []}
    nodes = {name: {**asdict(known), "power": _power(known)} for name, known in current.nodes.items()}
    return {"up": True, "network_namespace": netns, **asdict(current), "nodes": nodes}


def _power(known: state.Node) -> str:
    if not node.running(identify(), known.name):
        return "off"
    return "on" if known.ready else "booting"


def _nodes_table(current: state.State) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("node", "driver", "power", "IPv4", "IPv6", "disk", "network"):
        table.add_column(column)
    for known in current.nodes.values():
        shown = _power(known)
        style = {"on": "green", "off": "red"}.get(shown, "yellow")
        disk = f"{known.memory_backed} in memory" if known.memory_backed else "overlay"
        network = "cut" if known.cut or current.cut else "yes"
        table.add_row(known.name, known.driver, f"[{style}]{shown}[/]", known.address, known.address6, disk, network)
    return table


def _facts_table(facts: list[host.Fact]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("", "fact", "found", "what it means", "fix"):
        table.add_column(column, overflow="fold")
    marks = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[dim]·[/]"}
    for fact in facts:
        table.add_row(marks[fact.ok], fact.name, fact.value, fact.means, fact.fix)
    return table
