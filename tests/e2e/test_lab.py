# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab itself, for real: nodes are booted, cut off, killed and removed, in labs of these tests' own."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.kind.kos.lab import cgroup, nspawn
from ansible_collections.kind.kos.lab.identity import CACHE, Lab, identify

ROOT = Path(__file__).resolve().parents[2]
IMPORTS = str(ROOT / "collections")
KAI = [sys.executable, "-m", "ansible_collections.kind.kos.cli.main", "lab"]

pytestmark = [pytest.mark.lab, pytest.mark.skipif(os.geteuid() != 0, reason="a lab needs root")]


class OwnLab:
    """A lab that only this run knows, driven through `kai lab`."""

    def __init__(self, purpose: str):
        self.environ = {**os.environ, "PYTHONPATH": IMPORTS, "KOS_LAB_ID": f"{purpose}-{secrets.token_hex(3)}"}
        self.lab: Lab = identify(self.environ)

    def kai(self, *arguments: str, ok: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
        command = [*KAI, *arguments]
        env = {**self.environ, **environ}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=ROOT, timeout=240)
        assert not ok or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def on(self, name: str, line: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        return self.kai("ssh", name, line, ok=ok)

    def said(self, name: str, line: str) -> str:
        return self.on(name, line).stdout.strip()

    def show(self) -> dict:
        return json.loads(self.kai("list", "--json").stdout)

    def within(self, *command: str) -> str:
        line = ["nsenter", f"--net={self.lab.netns_path}", *command]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout

    def traces(self) -> set[str]:
        """Everything of this machine that bears the lab's name: what `down` has to bring to nothing."""
        namespaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
        found = {f"netns {line}" for line in namespaces.splitlines() if self.lab.id in line}
        folders = [*Path("/sys/fs/cgroup").glob(f"*/{self.lab.cgroup}"), cgroup.path(self.lab.cgroup)]
        folders += [self.lab.run, self.lab.var, *CACHE.glob("building-*")]
        found |= {f"folder {folder}" for folder in folders if folder.exists()}
        for process in Path("/proc").glob("[0-9]*"):
            found |= {f"process {process.name} {kind}" for kind in self._kinds(process)}
        return found

    def _kinds(self, process: Path) -> list[str]:
        """Why a process belongs to the lab: its group, its arguments, or a mount that only it may see."""
        kinds = []
        signs = {"cgroup": self.lab.cgroup, "cmdline": self.lab.id, "mountinfo": str(self.lab.var)}
        for kind, sign in signs.items():
            try:
                text = (process / kind).read_text(errors="replace")
            except OSError:
                continue
            if sign in text:
                kinds.append(kind)
        return kinds

    def traces_gone(self) -> set[str]:
        """The traces, once a dying process's file in /proc has had a moment to go."""
        deadline = time.monotonic() + 3
        while (left := self.traces()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left


def host_fingerprint() -> dict[str, str]:
    """What a lab must leave alone: rules, links, addresses, routes and switches of this machine's own network."""
    commands = {
        "rules": ["nft", "list", "ruleset"],
        "links": ["ip", "-brief", "link"],
        "routes": ["ip", "route"],
        "switches": ["sysctl", "net.ipv4.ip_forward", "net.ipv4.tcp_timestamps", "net.ipv4.icmp_ratelimit"],
    }
    run = {"capture_output": True, "text": True, "check": True}
    return {name: subprocess.run(command, **run).stdout for name, command in commands.items()}


@pytest.fixture(scope="module")
def own() -> Iterator[OwnLab]:
    """One lab with the nodes `one` and `two`, for the tests that leave it as they found it."""
    own = OwnLab("e2e")
    try:
        own.kai("up", "one", "two")
        yield own
    finally:
        own.kai("down")


@pytest.fixture
def scratch() -> Iterator[OwnLab]:
    """A lab for a test that breaks it."""
    own = OwnLab("e2e-x")
    try:
        yield own
    finally:
        own.kai("down")


# --- nodes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["-4", "-6"])
@pytest.mark.parametrize(("here", "there"), [("one", "two"), ("two", "one")])
def test_nodes_reach_each_other_by_name(own: OwnLab, here: str, there: str, family: str):
    own.on(here, f"ping {family} -c 1 -W 2 {there}")


@pytest.mark.parametrize("family", ["address", "address6"])
def test_this_machine_reaches_nodes_by_both_families(own: OwnLab, family: str):
    own.within("nc", "-z", "-w", "2", own.show()["nodes"]["two"][family], "22")


@pytest.mark.parametrize("name", ["one", "two"])
def test_fresh_node_has_no_failed_unit(own: OwnLab, name: str):
    assert own.said(name, "systemctl is-system-running") == "running"


def test_node_is_a_plain_debian_13(own: OwnLab):
    assert own.said("one", "cut -d. -f1 /etc/debian_version") == "13"
    assert own.said("one", "hostname; python3 -c 'print(2 + 2)'").split() == ["one", "4"]
    assert own.said("one", "apt-config dump | grep 'Install-Recommends'") == 'APT::Install-Recommends "1";'


def test_nodes_share_no_identity(own: OwnLab):
    for line in ("cat /etc/machine-id", "cat /etc/ssh/ssh_host_ed25519_key.pub"):
        assert own.said("one", line) != own.said("two", line)


def test_each_node_has_a_control_group_of_its_own(own: OwnLab):
    group = cgroup.path(own.lab.node_cgroup("one"))
    processes = [int(pid) for file in group.rglob("cgroup.procs") for pid in file.read_text().split()]
    assert nspawn.leader(own.lab, "one") in processes
    assert nspawn.leader(own.lab, "two") not in processes


def test_sysctl_of_a_node_stays_in_the_node(own: OwnLab):
    before = host_fingerprint()["switches"]
    own.on("one", "sysctl -qw net.ipv4.tcp_timestamps=0")
    try:
        assert host_fingerprint()["switches"] == before
        assert own.said("two", "sysctl -n net.ipv4.tcp_timestamps") == "1"
    finally:
        own.on("one", "sysctl -qw net.ipv4.tcp_timestamps=1")


@pytest.mark.parametrize("line", ["date -s 2030-01-01", "dmesg", "sysctl -w kernel.panic=7"])
def test_node_cannot_touch_the_kernel_of_this_machine(own: OwnLab, line: str):
    assert own.on("one", line, ok=False).returncode != 0


def test_sealed_credentials_work_in_a_sandboxed_service(own: OwnLab):
    sandbox = ["PrivateUsers=yes", "ProtectSystem=strict", "PrivateDevices=yes", "PrivateTmp=yes", "DynamicUser=yes"]
    sandbox += ["NoNewPrivileges=yes", "SystemCallFilter=@system-service", "ProtectProc=invisible"]
    properties = " ".join(f"-p {setting}" for setting in [*sandbox, "LoadCredentialEncrypted=word:/root/word"])
    own.on("one", "printf tomate | systemd-creds encrypt --with-key=host --name=word - /root/word")
    said = own.said("one", f"systemd-run --quiet --wait --pipe {properties} sh -c 'cat $CREDENTIALS_DIRECTORY/word'")
    assert said == "tomate"


def test_up_again_changes_nothing(own: OwnLab):
    before = own.show()
    booted = own.said("one", "cat /proc/sys/kernel/random/boot_id")
    own.kai("up", "one", "two")
    assert own.show() == before
    assert own.said("one", "cat /proc/sys/kernel/random/boot_id") == booted


def test_node_reboots_and_keeps_its_disk(own: OwnLab):
    booted = own.said("two", "echo kept > /root/kept; cat /proc/sys/kernel/random/boot_id")
    own.on("two", "systemd-run --quiet --on-active=0.2 systemctl reboot")
    deadline = time.monotonic() + 30
    while own.on("two", "cat /proc/sys/kernel/random/boot_id", ok=False).stdout.strip() in ("", booted):
        assert time.monotonic() < deadline, "the node did not come back"
        time.sleep(0.2)
    assert own.said("two", "cat /root/kept") == "kept"


def test_saved_disk_comes_back_after_a_power_cut(own: OwnLab):
    own.kai("up", "kept")
    try:
        own.on("kept", "echo before > /etc/mark; rm /etc/motd; echo home > /home/mark")
        assert own.kai("save", "kept", ok=False).returncode == 2
        assert own.kai("reset", "kept", ok=False).returncode == 2
        own.kai("kill", "kept")
        assert own.show()["nodes"]["kept"]["power"] == "off"
        own.kai("save", "kept")
        own.kai("up", "kept")
        own.on("kept", "echo after > /etc/mark; echo new > /etc/motd; rm /home/mark; touch /etc/more")
        own.kai("reset", "kept")
        assert own.said("kept", "cat /etc/mark /home/mark; ls /etc/motd /etc/more 2>/dev/null; true") == "before\nhome"
        assert own.said("kept", "stat -c %a /home") == "755"
    finally:
        own.kai("down", "kept")


def test_disk_in_memory_is_bounded(own: OwnLab):
    own.kai("up", "small", "--memory-backed", "64M")
    try:
        full = own.on("small", "head -c 100M /dev/zero > /filler", ok=False)
        assert "No space left on device" in full.stderr
        assert own.kai("up", "small", "--memory-backed", "128M", ok=False).returncode == 2
    finally:
        own.kai("down", "small")
    assert set(own.show()["nodes"]) == {"one", "two"}
    assert "small" not in own.said("one", "cat /etc/hosts")


# --- network ---------------------------------------------------------------------------------------------------------


def reaches_packages(own: OwnLab, name: str) -> bool:
    said = own.on(name, "apt-get update -o Acquire::Retries=0 -o APT::Update::Error-Mode=any", ok=False)
    return said.returncode == 0


def test_cut_and_restore_the_lab(own: OwnLab):
    assert reaches_packages(own, "one")
    own.kai("network", "cut")
    try:
        assert own.show()["cut"]
        started = time.monotonic()
        assert not reaches_packages(own, "one")
        assert time.monotonic() - started < 10, "a node that is cut off is told at once"
        own.on("one", "ping -c 1 -W 2 two")
    finally:
        own.kai("network", "restore")
    assert reaches_packages(own, "one")


def test_cut_and_restore_one_node(own: OwnLab):
    own.kai("network", "cut", "two")
    try:
        assert not reaches_packages(own, "two")
        for family in ("-4", "-6"):
            assert own.on("two", f"ping {family} -c 1 -W 1 one", ok=False).returncode != 0
        assert reaches_packages(own, "one")
    finally:
        own.kai("network", "restore", "two")
    assert reaches_packages(own, "two")
    own.on("two", "ping -c 1 -W 2 one")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def banner(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        return connection.recv(8)


def test_forward_leads_to_a_node_until_it_is_removed(own: OwnLab):
    port = free_port()
    own.kai("forward", "two", f"{port}:22")
    own.kai("forward", "two", f"{port}:22")
    assert banner(port).startswith(b"SSH-2.0")
    assert own.kai("forward", "one", f"{port}:22", ok=False).returncode == 2
    own.kai("forward", "two", f"{port}:22", "--remove")
    with pytest.raises(ConnectionRefusedError):
        banner(port)


def test_forward_of_a_port_in_use_says_so(own: OwnLab):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = own.kai("forward", "one", f"{taken.getsockname()[1]}:22", ok=False)
    assert refused.returncode == 1
    assert "in use" in refused.stderr


# --- Ansible ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extra", [[], ["-e", "ansible_host={{ kos_lab_address6 }}"]], ids=["IPv4", "IPv6"])
def test_ansible_reaches_every_node(own: OwnLab, extra: list[str]):
    command = [str(Path(sys.executable).with_name("ansible")), "-i", "inventories/lab", "kos", "-m", "ping", *extra]
    environ = {**own.environ, "ANSIBLE_SSH_ARGS": "-o ControlMaster=no", "LC_ALL": "C.UTF-8"}
    # A descriptor of its own: Ansible refuses one that an earlier ssh has made non-blocking.
    quiet = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    done = subprocess.run(command, check=False, env=environ, cwd=ROOT, **quiet)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SUCCESS") == 2


# --- going away ------------------------------------------------------------------------------------------------------


def container_processes(own: OwnLab, name: str) -> list[int]:
    """The nspawn processes of a node: those in its supervisor group."""
    group = cgroup.path(f"{own.lab.node_cgroup(name)}/container/supervisor/cgroup.procs")
    return [int(pid) for pid in group.read_text().split()]


def test_killed_node_leaves_no_mount_and_no_process(scratch: OwnLab):
    scratch.kai("up", "one")
    scratch.on("one", "echo kept > /root/kept; sync")
    for pid in container_processes(scratch, "one"):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while cgroup.populated(scratch.lab.node_cgroup("one")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [trace for trace in scratch.traces() if trace.endswith("mountinfo")]
    assert scratch.show()["nodes"]["one"]["power"] == "off"
    assert scratch.kai("ssh", "one", "true", ok=False).returncode == 2
    scratch.kai("up", "one")
    assert scratch.said("one", "cat /root/kept") == "kept"


def test_down_leaves_nothing(scratch: OwnLab):
    before = host_fingerprint()
    scratch.kai("up", "one", "two")
    scratch.kai("forward", "one", f"{free_port()}:22")
    scratch.kai("network", "cut", "two")
    scratch.kai("network", "cut")
    assert {trace.split()[0] for trace in scratch.traces()} == {"netns", "folder", "process"}
    assert host_fingerprint() == before
    scratch.kai("down")
    assert scratch.traces_gone() == set()
    assert host_fingerprint() == before
    assert "nothing to remove" in scratch.kai("down").stderr
    assert scratch.traces() == set()


def begin(own: OwnLab, *arguments: str, **environ: str) -> subprocess.Popen[bytes]:
    devnull = subprocess.DEVNULL
    return subprocess.Popen(
        [*KAI, *arguments], env={**own.environ, **environ}, cwd=ROOT, stdout=devnull, stderr=devnull
    )


def reached(own: OwnLab, stage: str) -> bool:
    """Whether `up` has got as far as `stage`."""
    if stage == "network":
        return own.lab.netns_path.exists()
    if stage == "way out":
        return (own.lab.run / "slirp.sock").exists()
    return cgroup.populated(f"{own.lab.cgroup}/{stage}")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["SIGKILL", "Ctrl-C"])
@pytest.mark.parametrize("stage", ["network", "way out", "node-one", "node-one/container"])
def test_up_stopped_half_way_then_down_leaves_nothing(scratch: OwnLab, stage: str, how: signal.Signals):
    starting = begin(scratch, "up", "one", "two")
    while not reached(scratch, stage):
        assert starting.poll() is None, "it ended before it could be stopped"
        time.sleep(0.002)
    starting.send_signal(how)
    assert starting.wait() != 0
    scratch.kai("down")
    assert scratch.traces_gone() == set()


def test_up_after_an_up_stopped_half_way_makes_the_node_anew(scratch: OwnLab):
    starting = begin(scratch, "up", "one")
    while not reached(scratch, "node-one/container"):
        time.sleep(0.002)
    starting.kill()
    starting.wait()
    scratch.kai("up", "one")
    assert scratch.said("one", "systemctl is-system-running") == "running"


def test_killed_while_making_the_root_leaves_nothing(scratch: OwnLab):
    # Another security archive is another root: the cache that everybody uses stays as it is.
    starting = begin(scratch, "up", "one", KOS_APT_SECURITY_MIRROR="http://localhost/of-this-test")
    while not (reached(scratch, "build") and list(CACHE.glob("building-*/root/var"))):
        assert starting.poll() is None, "it ended before it could be stopped"
        time.sleep(0.02)
    starting.kill()
    starting.wait()
    scratch.kai("down")
    assert scratch.traces_gone() == set()


def test_second_command_at_a_time_is_refused_with_the_reason(scratch: OwnLab):
    starting = begin(scratch, "up", "one")
    while not reached(scratch, "network"):
        assert starting.poll() is None
        time.sleep(0.002)
    refused = scratch.kai("down", ok=False)
    assert starting.wait() == 0
    assert refused.returncode == 1
    assert re.search(rf"process {starting.pid}\b.*is changing this lab", " ".join(refused.stderr.split()))
