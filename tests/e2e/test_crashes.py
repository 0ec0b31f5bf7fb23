# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever dies, wherever: one more run, and the node is what a node is that nobody disturbed.

A seeded sample by default; `make e2e-crashes` takes every record of the journal. The table is printed at the end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import crashtable
import pytest
from breakpoints import Breakpoint, spoken
from comparison import assert_same, differences, observe
from crashtable import FULL, sample
from labnodes import BIN, INVENTORY, ROOT, wait_for

from ansible_collections.kind.kos.lab.identity import identify

# No words that stand in some file of Debian's: a node's own name is not compared.
BARE, WORK = "crash-bare", "crash-work"
# The cheapest deployment with a package, a secret, a sealed file, a reloaded unit, a masked one and a firewall.
OLD = "services: {cache: redis, vector_db: null}\n"
# Another port, a service more (a package, two files, a unit); back again, a service less.
NEW = "services: {cache: redis, vector_db: null, monitoring: [node_exporter]}\nnetworking: {ports: {frontend: 8443}}\n"
# The gateway cannot bind sshd's port: valid configuration that never becomes healthy.
BAD = "services: {cache: redis, vector_db: null}\nnetworking: {ports: {frontend: 22}}\n"


class World:
    """The layers, and what undisturbed runs of them wrote in their journals, took and led to."""

    def __init__(self, lab, folder):
        self.lab = lab
        self.identity = identify(lab.environment)
        self.layers = {}
        for name, text in (("old", OLD), ("new", NEW), ("bad", BAD)):
            path = folder / f"{name}.yaml"
            path.write_text(text)
            self.layers[name] = ("--profile", "development", "--site", str(path))
        self.expected, self.records, self.steps, self.seconds = {}, {}, {}, {}
        self.turn = "old"

    def undisturbed(self, node, layer, key):
        """Deploy with nothing in the way; remember the journal, the time and the outcome."""
        began = time.monotonic()
        with self.breakpoint(node) as seen:
            self.deploy(node, layer, check=layer != "bad")
        self.seconds[key] = time.monotonic() - began
        self.records[key], self.steps[key] = seen.records, seen.steps
        self.expected[key] = observe(self.lab, node)

    def breakpoint(self, node, *where, **how):
        return Breakpoint(self.identity, node, *where, **how)

    def deploy(self, node, layer, check=True, retries=0):
        """`kai deploy`. Ansible takes a killed module for a lost connection: with `retries` it calls it again."""
        argv = ["deploy", "-i", INVENTORY, "--limit", node, *self.layers[layer]]
        return self.lab.kai(*argv, check=check, env={"ANSIBLE_SSH_RETRIES": str(retries)})

    def abandon(self, layer, deadline):
        """Leave a transaction open, switched in part, its module and its controller dead."""
        variables = f"kos_profile=development kos_site_layer={self.layers[layer][-1]} kos_deadline={deadline}"
        with self.breakpoint(WORK, "switched") as point:
            self.lab.playbook(WORK, "-e", variables, check=False, env={"ANSIBLE_SSH_RETRIES": "0"})
        assert point.hit

    def begin(self, node, layer, *words):
        """A deploy in the background, with whatever it forks in a session of its own."""
        argv = [str(BIN / "kai"), "deploy", "-i", INVENTORY, "--limit", node, *self.layers[layer], *words]
        return subprocess.Popen(
            argv, cwd=ROOT, env=self.lab.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            # A shell that put the tests into its background made them deaf to Ctrl-C, and what they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    def kill(self, node):
        self.lab.kai("lab", "kill", node)

    def up(self, node):
        self.lab.kai("lab", "up", node)

    def again(self, node, layer, expected=None):
        """The one re-run, and the proof. Returns what the re-run did."""
        done = self.deploy(node, layer)
        assert_same(self.lab, node, self.expected[expected or layer], *self.layers[layer])
        if "took back" in done.stderr:
            return "re-run: took back, " + ("nothing else to do" if "nothing to do" in done.stderr else "deployed")
        return "re-run: nothing to do" if "nothing to do" in done.stderr else "re-run: deployed"

    @property
    def next(self):
        return "new" if self.turn == "old" else "old"

    def ahead(self):
        """The layers to disturb the change to: both in a full run, else the one that is next anyway."""
        return ("new", "old") if FULL else (self.next,)

    def strike(self, what, queues, blow):
        """Change the node to and fro; at each place of the layer's queue `blow` disturbs the change and repairs it."""
        queues = {layer: list(queue) for layer, queue in queues.items()}
        while any(queues.values()):
            layer = self.next
            repaired = False
            if queues[layer]:
                place, words = queues[layer].pop(0)
                with crashtable.row(f"{what} {layer}", words) as line:
                    line["by"] = blow(layer, place)
                    repaired = True
            if not repaired:
                self.deploy(WORK, layer)
            self.turn = layer


@pytest.fixture(scope="module")
def world(lab, tmp_path_factory):
    """What an undisturbed node was after each run; then that node, to be disturbed, and a bare one.

    The packages of the bare one are fetched and its disk is saved, so that a round of it takes seconds.
    """
    made = World(lab, tmp_path_factory.mktemp("layers"))
    nodes = (BARE, WORK)
    lab.kai("lab", "up", *nodes)
    made.undisturbed(WORK, "old", "first")
    for layer in ("new", "old", "bad"):
        made.undisturbed(WORK, layer, layer)
    assert differences(made.expected["old"], made.expected["bad"]) == []
    packages = " ".join(made.expected["new"]["ledger"]["packages"])
    fetch = f"apt-get -qq update && apt-get -qq -y --no-install-recommends --download-only install {packages}"
    lab.ssh(BARE, f"{fetch} && sync")
    lab.kai("lab", "kill", BARE)
    lab.kai("lab", "save", BARE)
    yield made
    lab.kai("lab", "down", *nodes)


def after_records(world, key, number):
    """(place, words) for a sample of the records that an undisturbed run wrote."""
    return sample(
        [(index, f"{index} {spoken(record)}") for index, record in enumerate(world.records[key], 1)], number, key
    )


def at_steps(world, key, number, purpose):
    """(place, words) for a sample of what was written after the last record of an undisturbed run."""
    steps = [(index, f"{index} {path}") for index, path in enumerate(world.steps[key], 1)]
    return sample(steps, number, f"{purpose} {key}")


def test_module_killed_after_each_record_of_a_first_deploy(world):
    for index, words in after_records(world, "first", 1):
        with crashtable.row("module, first deploy", words) as line:
            world.lab.kai("lab", "reset", BARE)
            with world.breakpoint(BARE, index) as point:
                done = world.deploy(BARE, "old", check=False)
            assert point.hit and done.returncode == 1, done.stderr
            line["by"] = world.again(BARE, "old", "first")


def test_module_killed_after_each_record_of_a_change(world):
    def blow(layer, index):
        with world.breakpoint(WORK, index) as point:
            done = world.deploy(WORK, layer, check=False)
        assert point.hit and done.returncode == 1, done.stderr
        return world.again(WORK, layer)

    world.strike("module, change to", {layer: after_records(world, layer, 1) for layer in world.ahead()}, blow)


def test_module_killed_and_called_again_by_the_same_run(world):
    def blow(layer, index):
        with world.breakpoint(WORK, index) as point:
            done = world.deploy(WORK, layer, retries=3)
        assert point.hit and "committed" in done.stderr, done.stderr
        assert_same(world.lab, WORK, world.expected[layer], *world.layers[layer])
        return "the same run: called again"

    layer = world.next
    inside = [place for place in after_records(world, layer, 99) if "packages" in place[1] or " file " in place[1]]
    world.strike("module, change to", {layer: sample(inside, 4 if FULL else 1, "again")}, blow)


def test_module_killed_at_each_write_of_the_commit(world):
    def blow(layer, step):
        with world.breakpoint(WORK, len(world.records[layer]), steps=step) as point:
            world.deploy(WORK, layer, check=False)
        assert point.hit
        return world.again(WORK, layer)

    world.strike("module, commit of", {layer: at_steps(world, layer, 1, "commit") for layer in world.ahead()}, blow)


def test_module_killed_at_each_write_of_going_back(world):
    for step, words in at_steps(world, "bad", 1, "revert"):
        with crashtable.row("module, going back", words) as line:
            with world.breakpoint(WORK, "reverting", steps=step) as point:
                done = world.deploy(WORK, "bad", check=False)
            assert point.hit and done.returncode == 1, done.stderr
            line["by"] = world.again(WORK, world.turn)


@pytest.mark.long
def test_the_node_itself_goes_back_where_its_going_back_was_killed(world):
    """Nobody runs anything again: the deadline's own process is killed, and tried anew by systemd."""
    for step, words in at_steps(world, "bad", 1, "deadline"):
        with crashtable.row("deadline, going back", words) as line:
            world.abandon("bad", 10)
            with world.breakpoint(WORK, "reverting", steps=step) as point:
                wait_for(lambda: point.hit, 150)
            wait_for(lambda: world.lab.status(WORK)["generation"]["state"] == "committed", 150)
            wait_for(lambda: world.lab.healthy(WORK), 150)
            assert_same(world.lab, WORK, world.expected[world.turn], *world.layers[world.turn])
            line["by"] = "deadline, tried again"


@pytest.mark.long
def test_power_cut_after_a_record_and_again_while_the_boot_goes_back(world):
    cut = [(index, f"{index} {spoken(record)}") for index, record in enumerate(world.records["bad"], 1)
           if record["op"] not in ("begin", "reverting")]  # fmt: skip
    for index, words in sample(cut, 1, "power cut"):
        for second in sample(("kos-boot killed", "power cut again"), 1, f"boot {index}"):
            with crashtable.row("node, going back at boot", f"{words}; then {second}") as line:
                with world.breakpoint(WORK, index, stop=lambda _group: world.kill(WORK)) as point:
                    world.deploy(WORK, "bad", check=False)
                assert point.hit
                stop = (lambda _group: world.kill(WORK)) if second == "power cut again" else None
                rising = subprocess.Popen(
                    [str(BIN / "kai"), "lab", "up", WORK],
                    cwd=ROOT,
                    env=world.lab.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                with world.breakpoint(WORK, "reverting", steps=2, stop=stop) as point:
                    wait_for(lambda: point.hit, 150)
                rising.wait(200)
                world.up(WORK)
                booted(world)
                assert_same(world.lab, WORK, world.expected[world.turn], *world.layers[world.turn])
                line["by"] = "kos-boot"


def booted(world):
    """The node has taken back by itself what it was interrupted in, and is well."""
    wait_for(lambda: world.lab.ssh(WORK, "systemctl is-active kos-boot", check=False) == "active", 150)
    wait_for(lambda: world.lab.healthy(WORK), 150)
    assert world.lab.status(WORK)["generation"]["state"] == "committed"


@pytest.mark.long
def test_power_cut_at_random_moments(world):
    def blow(layer, share):
        run = world.begin(WORK, layer)
        time.sleep(share * world.seconds[layer])
        world.kill(WORK)
        output = run.communicate(timeout=120)[0]
        assert run.returncode in (0, 1), output
        world.up(WORK)
        return world.again(WORK, layer)

    world.strike("node, change to", random_moments(world, 10 if FULL else 1, "node"), blow)


@pytest.mark.long
def test_controller_killed_at_random_moments(world):
    def blow(layer, share):
        run = world.begin(WORK, layer)
        time.sleep(share * world.seconds[layer])
        kill_with_children(run.pid)
        run.communicate(timeout=60)
        return world.again(WORK, layer)

    world.strike("controller, change to", random_moments(world, 10 if FULL else 1, "controller"), blow)


def random_moments(world, number, purpose):
    """(share of the run's time, words) by layer."""
    found = {"new": [], "old": []}
    for index, share in enumerate(crashtable.moments(number, purpose)):
        layer = ("new", "old")[index % 2] if FULL else world.next
        found[layer].append((share, f"{share * world.seconds[layer]:.1f} s"))
    return found


def kill_with_children(pid):
    """Ansible's workers lead sessions of their own: the whole tree dies at once, its root first."""
    children = [int(path.name) for path in Path("/proc").glob("[0-9]*") if parent(path) == pid]
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    for child in children:
        kill_with_children(child)


def parent(path):
    try:
        return int((path / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@pytest.mark.long
@pytest.mark.parametrize("number", sample([signal.SIGINT, signal.SIGTERM], 1, "signal"))
def test_kai_that_is_told_to_stop_says_what_the_node_will_do(world, number):
    def blow(layer, index):
        def stop(_group):
            os.kill(run.pid, number)

        with world.breakpoint(WORK, index, stop=stop) as point:
            run = world.begin(WORK, layer)
            output = run.communicate(timeout=120)[0]
        assert point.hit
        assert run.returncode == 1, output
        assert "Stopped." in output and "back by itself" in " ".join(output.split()), output
        assert not children_left(world), output
        return world.again(WORK, layer)

    layer = world.next
    places = [place for place in after_records(world, layer, 99) if " file " in place[1]]
    world.strike(f"kai, {number.name}, change to", {layer: sample(places, 1, number.name)}, blow)


def children_left(world):
    """Playbooks of this lab that still run."""
    layer = world.layers["new"][-1].encode()
    return [path.name for path in Path("/proc").glob("[0-9]*") if layer in command_line(path)]


def command_line(path):
    try:
        return (path / "cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.long
def test_two_controllers_at_once(world):
    for index in range(4 if FULL else 1):
        with crashtable.row("two controllers", f"both at once, {index + 1}") as line:
            runs = [world.begin(WORK, layer) for layer in ("new", "old")]
            outputs = [run.communicate(timeout=300)[0] for run in runs]
            codes = [run.returncode for run in runs]
            assert 0 in codes, outputs
            for code, output in zip(codes, outputs, strict=True):
                assert code in (0, 5) or "overtaken by another one" in " ".join(output.split()), outputs
            line["by"] = world.again(WORK, world.turn)


@pytest.mark.long
def test_a_deploy_a_rollback_and_the_deadline_at_once(world):
    for index in range(4 if FULL else 1):
        with crashtable.row("deploy, rollback, deadline", f"all at once, {index + 1}") as line:
            layer = world.next
            world.abandon(layer, 8)
            time.sleep(6)
            run = world.begin(WORK, layer)
            back = world.lab.kai("rollback", "-i", INVENTORY, "--limit", WORK, check=False)
            output = run.communicate(timeout=300)[0]
            assert run.returncode in (0, 5) and back.returncode in (0, 1, 5), (output, back.stderr)
            line["by"] = world.again(WORK, world.turn)
