# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a desk: a machine that the stick started opens its door, and is installed over SSH, beside other systems.

Somebody at its serial line opens the door by keys, and reads the password and the fingerprint from the screen. Both go
to `kos-install --remote` on this side, where alone the answers and the passphrase of the disk lie.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess

import diskmachine
import mediums
import neighbours
import pytest
import seats
import sshed
import yaml
from benches import HOSTNAME, INSTALLS, SERIAL, Bench, unseen
from mediabuilds import BIN, Builder

from ansible_collections.kind.kos.lab.machines import Disk

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(mediums.unavailable()), reason=f"no media here: {mediums.unavailable()}"),
    pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux here"),
]

SIZE = 14 << 30
# An address of QEMU's own network (its documentation, "Using the user mode network stack").
SHOWN = r"ssh root@10\.0\.2\.15"


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A stick, and a machine whose disk others are on."""
    monkeypatch.chdir(tmp_path)
    builder = Builder(tmp_path)
    media = mediums.Media(f"elsewhere{os.getpid()}")
    made = Bench(media, builder, builder.stick(tmp_path), tmp_path, f"canary-{secrets.token_hex(12)}")
    neighbours.move_in(diskmachine.ensure(media.lab, media.apt), made.disk, SIZE)
    yield made
    shutil.rmtree(tmp_path)


def opened(seat):
    """The door is open: its password and its fingerprint, as the screen has them."""
    seat.until("Language")
    seat.press("F9")
    seat.until("Let somebody install over the network")
    seat.press("4")
    seat.until(SHOWN)
    seat.until(r"fingerprint:")
    rows = seat.text().splitlines()
    (at,) = [number for number, row in enumerate(rows) if "SHA256:" in row]
    fingerprint = "".join(re.search(r"[A-Za-z0-9+/:]{2,}", row)[0] for row in rows[at : at + 2])
    return re.search(r"\b[a-z0-9]{4}-[a-z0-9]{4}-[a-z0-9]{4}\b", seat.text())[0], fingerprint


def install(bench, port, password, fingerprint, answers):
    """`kos-install --remote`, with the password that SSH asks for; its exit code and its words."""
    folder = bench.folder / "desk"
    folder.mkdir(exist_ok=True)
    (folder / "answers.yaml").write_text(yaml.safe_dump(answers))
    (folder / "passphrase").write_text(bench.canary)
    types = folder / "types"
    types.write_text('#!/bin/sh\necho "$DOOR"\n')
    types.chmod(0o700)
    typing = {"SSH_ASKPASS": str(types), "SSH_ASKPASS_REQUIRE": "force", "DOOR": password}
    line = [str(BIN / "kos-install"), "--remote", f"root@127.0.0.1:{port}"]
    line += ["--fingerprint", fingerprint, "--answers", str(folder / "answers.yaml")]
    done = subprocess.run(
        line, env={**os.environ, **typing}, capture_output=True, text=True, check=False, timeout=INSTALLS,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_a_machine_is_installed_from_another_one_beside_another_system(bench):
    made = diskmachine.ensure(bench.media.lab, bench.media.apt)
    before, theirs = neighbours.partitions(bench.disk), neighbours.files(made, bench.disk)
    content = neighbours.content(bench.disk, before)
    storage = {"layout": "free_space", "disk": {"serial": SERIAL}}
    answers = bench.answers(storage=storage, confirm={}, encryption={"passphrase": {"file": "passphrase"}})
    port = sshed.free_port()
    with (
        bench.media.booted(
            bench.stick, disks=(Disk(bench.disk, SERIAL),), memory=2560, restart=False, ssh=port,
            credentials=unseen("getty@tty1", "kos-verify"), state=bench.folder / "machine",
        ) as machine,
        seats.seated(machine, bench.folder) as seat,
    ):  # fmt: skip
        password, fingerprint = opened(seat)
        print(f"the door is open after {machine.seconds():.0f} s")
        code, said = install(bench, port, password, f"SHA256:{'A' * 43}", answers)
        assert code == 2 and "shows another key" in said and fingerprint in said
        code, said = install(bench, port, "abcd-efgh-jkmn", fingerprint, answers)
        assert code == 2 and "did not let us in" in said
        code, said = install(bench, port, password, fingerprint, answers)
        assert code == 0, said[-5000:]
        print(f"installed after {machine.seconds():.0f} s")
        assert "finish: done" in said and f"Installed: {HOSTNAME}" in said and bench.canary not in said
        machine.running.process.wait(300)
        assert bench.canary not in machine.said
    # Nothing of the others has changed, and nothing that was sent lies there in clear.
    after, now = neighbours.partitions(bench.disk), neighbours.files(made, bench.disk)
    assert set(before) <= set(after) and neighbours.content(bench.disk, before) == content
    assert {path: now.get(path) for path in theirs} == theirs
    assert not bench.holds(bench.canary, password, "PRIVATE KEY")
    with bench.started() as (machine, shell):
        shell.wait(machine)
        print(f"in after {machine.seconds():.0f} s")
        assert shell.fingerprint() in said
        shell.healthy()
        menu = shell.run("sudo bootctl list --no-pager", check=False)
        assert {"Windows Boot Manager", "debian"} <= {
            row.split(maxsplit=1)[1].strip() for row in menu.splitlines() if "title:" in row
        }
