# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place that starts programs: what it tells, what it keeps to itself, what it leaves behind (nothing)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kos_install.actions import runner
from kos_install.errors import ApplyFailed

SECRET = "correct horse battery"


def test_a_program_that_fails_is_a_sentence_with_what_it_said():
    with pytest.raises(ApplyFailed, match=r"^sh failed \(3\): it is broken / really$"):
        runner.run(["sh", "-c", "echo fine; echo it is broken >&2; echo really >&2; exit 3"])


def test_a_program_that_is_not_there_is_a_sentence():
    with pytest.raises(ApplyFailed, match=r"no-such-program failed \(127\)"):
        runner.run(["no-such-program"])


def test_secrets_go_in_unseen_and_are_not_logged():
    lines = []
    seen = runner.run(["sh", "-c", "cat; tr '\\0' ' ' </proc/self/cmdline; env"], stdin=SECRET, log=lines.append)
    assert seen.startswith(SECRET)
    assert seen.count(SECRET) == 1
    assert SECRET not in "".join(lines)


def test_a_second_secret_goes_in_by_a_descriptor():
    with runner.secret_file(SECRET) as descriptor:
        assert runner.run(["cat", f"/dev/fd/{descriptor}"], files=[descriptor]) == SECRET


def test_nothing_of_the_callers_environment_gets_in(monkeypatch):
    monkeypatch.setenv("PASSWORD", SECRET)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/tmp")
    names = {line.partition("=")[0] for line in runner.run(["env"]).splitlines()}
    assert names <= {"PATH", "LC_ALL", "HOME", "PWD", "SHLVL", "_"}


def test_much_output_does_not_hang_it():
    assert len(runner.run(["sh", "-c", "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2"])) == 3000000


def test_whoever_watches_can_stop_it_and_nothing_of_it_is_left(tmp_path):
    mark = tmp_path / "pid"

    def stop(_pid):
        if mark.exists() and mark.read_text().strip():
            raise ApplyFailed("stopped as you asked")

    with pytest.raises(ApplyFailed, match="as you asked"):
        runner.run(["sh", "-c", f"sleep 300 & echo $! >{mark}; wait"], watch=stop)
    assert _gone(int(mark.read_text()))


def test_it_ends_with_us_though_we_are_killed(tmp_path):
    mark = tmp_path / "pid"
    code = f"from kos_install.actions import runner; runner.run(['sh', '-c', 'echo $$ >{mark}; exec sleep 300'])"
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": ":".join(sys.path)})
    deadline = time.monotonic() + 60
    while not (mark.exists() and mark.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert _gone(int(mark.read_text()))


def _gone(pid):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False
