# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From a stick to an encrypted node, with nobody there and no network: one boot that installs, one that is the node."""

from __future__ import annotations

import os
import re
import secrets
import shutil

import mediums
import pytest
from benches import Bench
from mediabuilds import PROFILE, Builder

pytestmark = pytest.mark.skipif(bool(mediums.unavailable()), reason=f"no media here: {mediums.unavailable()}")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A machine with a blank disk, and a stick for it."""
    builder = Builder(tmp_path_factory.mktemp("own"))
    builder.run("lock")
    folder = tmp_path_factory.mktemp("bench")
    builder.build("usb", folder / "stick.raw")
    made = Bench(
        mediums.Media(f"install{os.getpid()}"), builder, folder / "stick.raw", folder, f"canary-{secrets.token_hex(12)}"
    )
    made.fresh()
    yield made
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def installed(bench):
    """What the machine said while it was installed; it is off."""
    return bench.install()


@pytest.fixture(scope="module")
def node(bench, installed):
    """The installed machine, started from its disk, and a shell on it."""
    with bench.started() as (machine, shell):
        shell.wait(machine)
        print(f"in after {machine.seconds():.0f} s")
        yield machine, shell


def test_nobody_is_asked_and_every_step_is_told(installed):
    steps = re.findall(r"\[(\d+)/(\d+)\] (\S+): done", installed)
    assert steps and len(steps) == int(steps[-1][1])
    assert [name for _number, _total, name in steps][-2:] == ["verify", "finish"]


def test_the_passphrase_is_nowhere(bench, installed):
    assert bench.canary not in installed
    # The disk is encrypted, and its journal knows no secret; what lies in clear is found.
    assert bench.holds(bench.canary, "PRIVATE KEY", "KOS-ESP") == {"KOS-ESP"}


def test_the_node_is_the_one_whose_fingerprint_was_shown(installed, node):
    _machine, shell = node
    assert shell.fingerprint() in installed


def test_its_first_start_makes_it_whole(node):
    _machine, shell = node
    said = shell.healthy()
    shell.run("systemctl is-system-running --wait", False, 900)
    assert PROFILE in said and "signed by this-machine" in said
    assert "pending" not in said


def test_it_lies_on_an_encrypted_disk_as_its_plan_says(node):
    _machine, shell = node
    assert shell.run("findmnt --noheadings --nofsroot --output SOURCE /") == "/dev/mapper/kos-root"
    mounted = shell.run("findmnt --noheadings --list --output TARGET").split()
    assert {"/", "/var", "/var/log", "/home", "/var/lib/dpkg", "/var/lib/kos", "/efi"} <= set(mounted)
    assert "crypt" in shell.run("lsblk --noheadings --inverse --list --output TYPE /dev/mapper/kos-root")
    assert shell.run("sudo systemctl --failed --plain --no-legend") == ""


def test_the_acceptance_suite_of_every_door_passes(node):
    _machine, shell = node
    # A restart takes minutes where emulated, and `make doors` has one.
    again = ["--restart"] if os.environ.get("KOS_E2E") == "full" else []
    said = shell.accepted("--profile", PROFILE, *again)
    assert re.search(r"\d+ passed", said)


def test_it_can_be_deployed_again_by_itself(node):
    _machine, shell = node
    said = shell.run("sudo -i kai deploy --bundle /var/lib/kos-media/bundle.kos 2>&1", timeout=900)
    # It has a network card now, which it had not when it was installed.
    assert "nothing to do" in said or "committed" in said


def test_the_canary_is_in_nothing_that_the_node_remembers(bench, node):
    _machine, shell = node
    places = "/etc /root /home /var/log /var/lib/kos /var/lib/kos-media /efi"

    def found(word):
        """Whether it is in a file, the systemd journal, or what a process was started with. 1 is grep's *nothing*."""
        # The command that looks is not to find itself.
        hidden = f"{word[:4]}[{word[4]}]{word[5:]}"
        looks = [
            f"sudo grep --recursive --quiet -- '{hidden}' {places}",
            f"sudo journalctl --no-pager | grep --quiet -- '{hidden}'",
            f"sudo sh -c 'cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null' | grep -a --quiet -- '{hidden}'",
        ]
        codes = [shell.run(f"{look}; echo $?", timeout=600) for look in looks]
        assert set(codes) <= {"0", "1"}, codes
        return [code == "0" for code in codes]

    assert found("systemd") == [True, True, True]
    assert found(bench.canary) == [False, False, False]
