# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What needs a kernel of its own: enforced limits, kernel.* settings, reboots, power cuts and a clock that jumps.

One node for all of it, in this order, because booting one takes long. Every run shows that limits hold and that
a reboot and a power cut are survived; KOS_E2E=full shows the rest.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import accepting
import pytest
from labnodes import INVENTORY, wait_for
from vmnodes import VmLab, unavailable

REASON = unavailable()
pytestmark = [pytest.mark.vm, pytest.mark.skipif(bool(REASON), reason=f"no virtual node: {REASON}")]
long = pytest.mark.skipif(os.environ.get("KOS_E2E") != "full", reason="takes minutes: KOS_E2E=full runs it")

# The smallest profile and nothing that this file does not look at.
PROFILE = "development"
LAYER = "services: {vector_db: null}\n"
CHANGED = LAYER + "networking: {ports: {frontend: 8443}}\n"
UNIT = "kos-valkey.service"
HALVED = "kos-valkey-exporter.service"  # CPUQuota=50%
FULL = "python3 -c \"x = b'x' * (1 << 30)\""
CROWD = "for i in $(seq 200); do sleep 300 >/dev/null 2>&1 & done; true"
BUSY = "timeout 4 sh -c 'while :; do :; done'; true"


@pytest.fixture(scope="module")
def vm():
    """The lab of these tests."""
    made = VmLab(f"vm{os.getpid()}")
    yield made
    made.kai("lab", "down")


@pytest.fixture(scope="module")
def layer(tmp_path_factory):
    path = tmp_path_factory.mktemp("layers") / "site.yaml"
    path.write_text(LAYER)
    return str(path)


@pytest.fixture(scope="module")
def deploy(vm, layer):
    """Deploys onto the node."""
    return lambda *argv, **options: vm.deploy("metal", "--profile", PROFILE, "--site", layer, *argv, **options)


@pytest.fixture(scope="module")
def node(vm, deploy):
    """The node, deployed."""
    vm.up("metal")
    deploy()
    return "metal"


@pytest.fixture
def cut_short(vm, node, tmp_path):
    """Begins a change and kills its controller; gives the generation before it."""

    def begin(deadline):
        before = vm.status(node)["generation"]["id"]
        changed = tmp_path / "site.yaml"
        changed.write_text(CHANGED)
        vm.killed_deploy(node, str(changed), tmp_path, deadline, kos_profile=PROFILE)
        assert state(vm, node) == "switching"
        return before

    return begin


def state(vm, node):
    return vm.status(node)["generation"]["state"]


def settled(vm, node):
    return state(vm, node) == "committed" and vm.healthy(node)


def boots(vm, node):
    return vm.ssh(node, "cat /proc/sys/kernel/random/boot_id")


def test_a_fresh_machine_becomes_a_healthy_node(vm, node):
    assert settled(vm, node)
    assert vm.ssh(node, "systemctl is-system-running") == "running"


def test_its_kernel_is_its_own(vm, node):
    here = Path("/proc/sys/kernel/core_pattern")
    before = here.read_text()
    vm.ssh(node, "sysctl --quiet kernel.core_pattern=core.of-the-node")
    assert vm.ssh(node, "sysctl --values kernel.core_pattern") == "core.of-the-node"
    assert here.read_text() == before
    assert vm.ssh(node, "uname -r") != os.uname().release


def test_a_service_that_takes_too_much_memory_is_killed_and_comes_back(vm, node):
    limit = int(vm.ssh(node, f"systemctl show --value --property MemoryMax {UNIT}"))
    assert limit < 1 << 30
    vm.within(node, UNIT, FULL, check=False)
    assert "Memory cgroup out of memory" in vm.ssh(node, "journalctl --dmesg --no-pager --boot")
    assert UNIT in vm.ssh(node, "journalctl --no-pager --boot --grep 'oom-kill'")
    wait_for(lambda: vm.healthy(node), 120)


@long
def test_a_service_that_memory_does_not_suffice_for_is_named_by_doctor(vm, node):
    vm.ssh(node, f"systemctl set-property --runtime {UNIT} MemoryMax=1M; systemctl restart --no-block {UNIT}")
    try:
        done = vm.kai("doctor", "-i", INVENTORY, "--limit", node, "--json", check=False)
        assert done.returncode == 1
        assert "valkey" in json.dumps(json.loads(done.stdout)[node])
    finally:
        undo = f"rm -r /run/systemd/system.control/{UNIT}.d; systemctl daemon-reload; systemctl reset-failed {UNIT}"
        vm.ssh(node, f"{undo}; systemctl restart {UNIT}")
    wait_for(lambda: vm.healthy(node), 120)


@long
def test_a_service_cannot_have_more_tasks_than_its_limit(vm, node):
    limit = int(vm.ssh(node, f"systemctl show --value --property TasksMax {UNIT}"))
    assert limit < 200
    vm.within(node, UNIT, CROWD, check=False)
    assert vm.counter(node, UNIT, "pids.events", "max") > 0
    vm.ssh(node, "pkill --exact sleep; true")
    assert vm.healthy(node)


def test_a_service_cannot_have_more_of_a_processor_than_its_quota(vm, node):
    before = vm.counter(node, HALVED, "cpu.stat", "nr_throttled")
    vm.within(node, HALVED, BUSY)
    assert vm.counter(node, HALVED, "cpu.stat", "nr_throttled") > before


def test_it_is_what_every_node_is_and_comes_back_so_from_a_reboot_without_a_controller(vm, node):
    before, generation = boots(vm, node), vm.status(node)["generation"]["id"]
    asked = ["--profile", PROFILE, "--without", "vector_db", "--restart"]
    accepting.accept(f"{INVENTORY}/hosts.py", node, "playbook", *asked, environment=vm.environment)
    accepting.keep(INVENTORY, node, "playbook", "vm", vm.environment)
    assert boots(vm, node) != before
    assert vm.status(node)["generation"]["id"] == generation


def test_a_power_cut_between_switch_and_commit_is_taken_back(vm, node, cut_short):
    before = cut_short(deadline=3600)
    vm.cut_power(node)
    vm.up(node)
    wait_for(lambda: settled(vm, node), 300)
    assert vm.status(node)["generation"]["id"] == before


@long
def test_a_clock_that_jumps_neither_hastens_nor_stays_the_deadline(vm, node, cut_short, deploy):
    began = time.monotonic()
    state(vm, node)
    one_question = time.monotonic() - began  # how long anything takes here, today
    deadline = 60 + 8 * int(one_question)
    before = cut_short(deadline)
    vm.move_clock(node, "+3d")
    vm.ssh(node, "sleep 2")
    assert state(vm, node) == "switching"
    vm.move_clock(node, "-6d")
    wait_for(lambda: settled(vm, node), 4 * deadline)
    assert vm.status(node)["generation"]["id"] == before
    assert "nothing to do" in deploy().stderr
    vm.move_clock(node, "+3d")
