# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The door with Debian's own sshd and the configuration as it is: its key, the engine behind it, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kos_install import remote
from kos_install.engine import client, door, replay, server
from kos_install.errors import UsageError
from kos_install.hardware.model import Machine


@pytest.fixture(scope="module")
def sshd(tmp_path_factory):
    """The host's own sshd, unpacked beside it: installing it would start one on this machine."""
    folder = tmp_path_factory.mktemp("sshd")
    subprocess.run(["apt-get", "-qq", "download", "openssh-server", "libwrap0"], cwd=folder, check=True)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", str(package), str(folder)], check=True)
    return folder / "usr/sbin/sshd"


@pytest.fixture
def engine(tmp_path):
    """An engine of a rehearsal that serves its socket in a process of its own."""
    path = tmp_path / "install.sock"
    world = replay.world(Machine(), [])
    pid = os.fork()
    if pid == 0:
        server.serve(world, path)
        os._exit(0)
    for _ in range(200):
        if path.exists():
            break
        threading.Event().wait(0.05)
    yield path
    os.kill(pid, signal.SIGTERM)
    os.waitpid(pid, 0)


@pytest.fixture
def opened(sshd, engine, tmp_path, monkeypatch):
    """The port of a door, which a key of this test opens; and the fingerprint that its screen would show."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        port = one.getsockname()[1]
    door.require_free(port)
    public = door.prepare(tmp_path / "door", port)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "own")], check=True)
    visit = f"{sys.executable} -m kos_install.main --visit --socket {engine}"
    places = ":".join(str(Path(__file__).resolve().parents[2] / name) for name in ("installer", "collections"))
    line = [
        str(sshd), "-D", "-e", "-f", str(tmp_path / "door/sshd_config"), "-o", "UsePAM=no", "-o", "StrictModes=no",
        "-o", f"AuthorizedKeysFile={tmp_path}/own.pub", "-o", f"ForceCommand=PYTHONPATH={places} {visit}",
    ]  # fmt: skip
    # What installing it would make: the user that it drops to, and a folder; both for its own eyes alone.
    people = Path("/etc/passwd").read_text().replace("sshd:", "sshd-of-host:")
    (tmp_path / "passwd").write_text(f"{people}sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n")
    (libraries,) = {path.parent for path in sshd.parents[2].rglob("libwrap.so.0")}
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    apart = f'mount --bind {tmp_path}/passwd /etc/passwd; mkdir -p /run/sshd; exec "$@"'
    process = subprocess.Popen(["unshare", "--mount", "sh", "-ec", apart, "sh", *line], env=environment)
    agent = subprocess.run(
        ["ssh-agent", "-s", "-a", str(tmp_path / "agent")], check=True, capture_output=True, text=True
    )
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
    subprocess.run(["ssh-add", "-q", str(tmp_path / "own")], check=True)
    try:
        door.await_server(public, port)
        yield port, remote.fingerprint_of(f"host ssh-ed25519 {public}")
    finally:
        process.terminate()
        process.wait()
        os.kill(int(agent.stdout.split("SSH_AGENT_PID=")[1].split(";")[0]), signal.SIGTERM)


def asked(port, *words, given="", options=()):
    """What ssh says when it is let in."""
    argv = ["ssh", "-F", "none", "-p", str(port), "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes"]
    argv += ["-o", "UserKnownHostsFile=/dev/null", "-o", "ConnectTimeout=10", *options, "root@127.0.0.1", *words]
    return subprocess.run(argv, input=given, capture_output=True, text=True, timeout=60, check=False)


def test_the_engine_answers_over_ssh_to_who_compared_the_key(opened, capfd):
    port, fingerprint = opened
    with remote.pinned(f"root@127.0.0.1:{port}", fingerprint) as argv, client.Command(argv) as link:
        link.send("format")
        for event in link.events():
            if event["event"] == "refused":
                break
        assert "format is not possible" in event["faults"][0]


def test_another_key_than_the_screens_is_refused(opened):
    port, _fingerprint = opened
    with (
        pytest.raises(UsageError, match="shows another key"),
        remote.pinned(f"root@127.0.0.1:{port}", "SHA256:" + "A" * 43),
    ):
        pass


def test_a_command_of_the_visitors_own_is_not_run(opened, tmp_path):
    port, _fingerprint = opened
    canary = tmp_path / "canary"
    for words in ([f"touch {canary}"], ["kos-install --attach; touch", str(canary)], ["bash"]):
        asked(port, *words, given=f"touch {canary}\n")
    asked(port, options=["-o", f"RemoteCommand=touch {canary}"])
    subprocess.run(
        ["sftp", "-F", "none", "-P", str(port), "-b", "-", "-o", "StrictHostKeyChecking=no", "root@127.0.0.1"],
        input=f"put /etc/hostname {canary}\n", capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert not canary.exists()


def test_nothing_is_passed_on_through_it(opened):
    port, _fingerprint = opened
    done = asked(port, options=["-W", f"127.0.0.1:{port}"])
    assert done.returncode and "SSH-2.0" not in done.stdout


def test_its_socket_is_for_its_own_user_alone_and_a_client_that_leaves_ends_nothing(engine):
    assert engine.stat().st_mode & 0o777 == 0o600
    for _ in range(2):
        with client.Socket(engine, timeout=20) as link:
            rows = link.events()
            while (event := next(rows))["event"] != "state" or event["state"] != "answering":
                pass
            link.send("confirm", digest="", typed="")
            while (event := next(rows))["event"] != "refused":
                pass
            assert "is not possible while" in event["faults"][0]
    with socket.socket(socket.AF_UNIX) as bad:
        bad.settimeout(20)
        bad.connect(str(engine))
        bad.sendall(b"no json\n")
        while bad.recv(1 << 16):
            pass  # let go
    with client.Socket(engine, timeout=20) as link:
        assert json.dumps(next(link.events()))
