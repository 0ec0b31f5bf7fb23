# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The move of a node's data into an encrypted volume: stopped anywhere, refused where it must be, and back again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from encryptednode import CACHE, DATABASE, PASSPHRASE, UNITS, Node

from ansible_collections.kind.kos.plugins.module_utils.node import files, system
from ansible_collections.kind.kos.plugins.module_utils.node.encryption import (
    copying,
    holding,
    keys,
    move,
    opening,
    record,
    state,
    target,
    units,
)
from ansible_collections.kind.kos.plugins.module_utils.node.files import Busy, NodeError
from ansible_collections.kind.kos.plugins.module_utils.node.machine import cryptsetup, luks

pytestmark = pytest.mark.skipif(not shutil.which("cryptsetup"), reason="no cryptsetup here")

NEW = "copper window thistle harbour"


class Cut(BaseException):
    """The power went: nobody catches that."""


@pytest.fixture
def node(tmp_path, monkeypatch):
    return Node(tmp_path, monkeypatch)


def cut_at(node, monkeypatch, steps, action):
    """Run `action` with the power gone at its step number `steps`; whether it came to its end before."""
    left = [steps]

    def counted(function):
        def step(*arguments, **options):
            left[0] -= 1
            if left[0] < 0:
                raise Cut
            return function(*arguments, **options)

        return step

    with monkeypatch.context() as patch:
        for name in ("write", "link", "remove"):
            patch.setattr(files, name, counted(getattr(files, name)))
        patch.setattr(system, "run", counted(system.run))
        try:
            action()
        except Cut:
            return False
    return True


def in_force(node):
    """What services have after the machine was started again, by whoever has its passphrase."""
    node.reboot()
    if record.in_use(node.root):
        assert not node.running & {"kos-postgresql.service", "kos-valkey.service"}, "a service runs without its data"
        opening.unlock(node.root, PASSPHRASE)
    return node.read()


def test_the_data_are_encrypted_and_the_services_run_on_them(node):
    before = node.read()
    report = node.apply()
    assert report.changed and report.directories == [DATABASE, CACHE]
    assert node.bound and node.running == set(UNITS) and node.read() == before
    assert in_force(node) == before
    assert state.state(node.root)["keys"] == ["passphrase"]
    assert not node.apply().changed


@pytest.mark.parametrize("ending", ["cut", "killed"])
def test_stopped_at_its_first_second_third_step_nothing_is_lost(tmp_path, monkeypatch, ending):
    """After each: all data are there in what is in use; one more run ends the move."""
    finished = False
    for steps in range(200):
        folder = tmp_path / str(steps)
        folder.mkdir()
        with monkeypatch.context() as patch:
            node = Node(folder, patch)
            before = node.read()
            finished = cut_at(node, patch, steps, node.apply)
            if ending == "cut":
                assert in_force(node) == before, f"after step {steps}"
            else:
                # What systemd runs when the process has gone, whatever ended it.
                move.settle(node.root)
                assert node.read() == before, f"after step {steps}"
                assert node.running == set(UNITS), f"after step {steps}"
            node.write({f"{CACHE}/dump.rdb": b"written since"})
            node.apply(wipe="/dev/spare")
            expected = {**before, f"{CACHE}/dump.rdb": b"written since"}
            assert node.read() == expected, f"after step {steps}"
            assert record.in_clear(node.root) == [] and not record.require(node.root).stopped
            assert in_force(node) == expected, f"after step {steps}"
            shutil.rmtree(folder)
        if finished:
            break
    assert finished and steps > 25


def test_the_same_command_on_a_node_that_waits_locked_starts_its_services_and_goes_on(node):
    node.apply()
    node.manifest["volumes"].append({"path": "/var/lib/kos-nats", "service": "nats", "user": "kos-nats", "unit": "x"})
    node.write({"/var/lib/kos-nats/stream": b"messages"})
    before = node.read()
    for moved in (True, False):
        node.reboot()
        assert "kos-valkey.service" not in node.running
        assert node.apply().changed == moved
        assert node.running == set(UNITS) and node.read() == before


def test_what_is_written_while_it_is_copied_comes_too(node):
    """Also what keeps its size and its time: a second write within one tick of the clock."""
    path = Path(node.root.join(f"{DATABASE}/17/base/1"))
    first = []

    def writing(argv):
        if argv[0] == "rsync" and not first:
            os.utime(path)
            first.append(path.stat().st_mtime_ns)
        if argv[:2] == ["systemctl", "show"]:
            path.write_bytes(b"ROWS " * 2000)
            os.utime(path, ns=(first[0], first[0]))

    node.during = writing
    node.apply()
    assert first and node.read()[f"{DATABASE}/17/base/1"] == b"ROWS " * 2000


def test_services_stop_only_for_the_last_copy(node):
    running = []
    node.during = lambda argv: running.append("kos-valkey.service" in node.running) if argv[0] == "rsync" else None
    report = node.apply()
    # Two directories: once while services run, once while they do not, and what proves that both are the same.
    assert running == [True, True, False, False, False, False]
    assert len(report.copies) == 2 and report.copies[0]["bytes"] > 0
    # systemd reads its units once while they stand still: that takes a second where there are many.
    stopped = next(number for number, argv in enumerate(node.ran) if argv[:2] == ["systemctl", "stop"])
    assert node.ran[stopped:].count(["systemctl", "daemon-reload"]) == 1
    assert list(report.stop) == ["stopping", "copying", "comparing", "switching", "starting"]
    assert sum(report.stop.values()) <= report.stopped_seconds


def test_a_copy_that_is_not_the_same_changes_nothing(node, monkeypatch):
    monkeypatch.setattr(copying, "differences", lambda _pairs: ["/var/lib/kos-valkey: >f dump.rdb"])
    before = node.read()
    with pytest.raises(NodeError, match="not the same as the data, which stay in use"):
        node.apply()
    assert not record.in_use(node.root) and node.running == set(UNITS) and node.read() == before


def test_sick_on_the_encrypted_data_the_plain_ones_are_used_again_with_what_was_written_since(node):
    node.sick = ["valkey"]
    done = []

    def write(argv):
        if record.in_use(node.root) and "kos-valkey.service" in node.running and not done:
            node.write({f"{CACHE}/appended": b"since"})
            done.append(argv)

    node.during = write
    with pytest.raises(move.NotWell, match="valkey"):
        node.apply()
    assert not node.bound and not record.in_use(node.root) and node.running == set(UNITS)
    assert done and node.read()[f"{CACHE}/appended"] == b"since"


def test_a_disk_that_holds_anything_is_refused_unless_it_is_named(node):
    node.holds = ["ext4 on /dev/spare (photos)"]
    with pytest.raises(target.Refused, match=r"holds ext4 on /dev/spare \(photos\).*--wipe /dev/spare"):
        node.apply()
    with pytest.raises(target.Refused, match="holds"):
        node.apply(wipe="/dev/other")
    assert record.load(node.root) is None and not any(argv[0] in ("wipefs", "mkfs.ext4") for argv in node.ran)
    assert node.apply(wipe="/dev/spare").changed


def test_a_disk_that_is_too_small_is_refused_with_the_figures(node, monkeypatch):
    monkeypatch.setattr(copying, "amount", lambda _paths: 10**9)
    with pytest.raises(target.TooSmall, match="it has 26 MB, and 1125 MB are needed for 1000 MB of data"):
        node.apply()
    assert record.load(node.root) is None


def test_another_disk_in_its_place_is_not_written_to(node, monkeypatch):
    assert not cut_at(node, monkeypatch, 3, node.apply)
    with node.disk.open("ab") as stream:
        stream.truncate(25 << 20)
    ran = len(node.ran)
    with pytest.raises(target.Refused, match="another disk than the one that was chosen"):
        node.apply()
    assert not [argv for argv in node.ran[ran:] if argv[0] in ("wipefs", "cryptsetup")]


@pytest.mark.parametrize(("passphrase", "why"), [("", "shorter"), ("password1", "too easy"), ("a\nb" * 9, "control")])
def test_a_passphrase_that_protects_nothing_is_refused(node, passphrase, why):
    with pytest.raises(NodeError, match=why):
        node.apply(passphrase)
    assert record.load(node.root) is None


def test_a_wrong_passphrase_changes_nothing(node):
    node.apply()
    before = node.read()
    for verb in (lambda: node.apply(NEW), lambda: opening.unlock(node.root, NEW)):
        with pytest.raises(opening.WrongKey):
            verb()
    node.reboot()
    with pytest.raises(opening.WrongKey, match="stays locked"):
        opening.unlock(node.root, NEW)
    assert record.locked(node.root)
    opening.unlock(node.root, PASSPHRASE)
    assert node.read() == before


def test_no_secret_is_in_the_arguments_of_a_program_or_in_a_file(node):
    node.apply()
    keys.rotate(node.root, PASSPHRASE, NEW)
    arguments = [word for argv in node.ran for word in (argv[: argv.index("<")] if "<" in argv else argv)]
    assert not [word for word in arguments if PASSPHRASE in word or NEW in word]
    for place, _folders, names in os.walk(node.root.path):
        for name in names:
            content = Path(place, name).read_bytes() if not Path(place, name).is_symlink() else b""
            assert PASSPHRASE.encode() not in content and NEW.encode() not in content


def test_two_at_once_the_second_says_so(node):
    with record.alone(node.root), pytest.raises(Busy, match="another run works on this node's encrypted volume"):
        node.apply()


def test_a_data_directory_that_lies_elsewhere_is_left_to_its_owner(node):
    elsewhere = Path(node.root.path).parent / "elsewhere"
    Path(node.root.join(CACHE)).rename(elsewhere)
    Path(node.root.join(CACHE)).symlink_to(elsewhere)
    with pytest.raises(target.Refused, match=f"--skip {CACHE}"):
        node.apply()
    assert node.apply(skip=(CACHE,)).directories == [DATABASE]
    assert record.in_clear(node.root) == []


def test_what_comes_later_in_clear_is_told_and_moved_by_one_more_run(node):
    node.apply()
    node.manifest["volumes"].append({"path": "/var/lib/kos-nats", "service": "nats", "user": "kos-nats", "unit": "x"})
    node.write({"/var/lib/kos-nats/stream": b"messages"})
    before = node.read()
    assert [text for text, _command in state.findings(state.state(node.root)) if "kos-nats" in text]
    assert node.apply().directories == ["/var/lib/kos-nats", DATABASE, CACHE]
    assert in_force(node) == before


def test_a_deploy_has_new_data_encrypted_from_the_first_byte_and_gives_up_old_ones(node):
    node.apply()
    node.manifest["volumes"].append({"path": "/var/lib/kos-nats", "service": "nats", "user": "kos-nats", "unit": "x"})
    assert holding.adopt(node.root, node.manifest) == ["/var/lib/kos-nats"]
    node.write({"/var/lib/kos-nats/stream": b"messages"})
    assert record.in_clear(node.root) == [] and in_force(node)["/var/lib/kos-nats/stream"] == b"messages"
    assert holding.release(node.root, "/var/lib/kos-nats")
    assert "/var/lib/kos-nats" not in record.moved(node.root)
    assert not os.path.exists(node.root.join(record.inside("/var/lib/kos-nats")))
    assert os.listdir(node.root.join("/var/lib/kos-nats")) == []


def test_plain_copies_go_only_after_the_passphrase_was_needed_once(node):
    node.apply()
    assert record.require(node.root).plain == [DATABASE, CACHE]
    with pytest.raises(NodeError, match="restart the machine"):
        move.discard(node.root)
    before = in_force(node)
    move.discard(node.root)
    assert node.read() == before
    assert [path for path in (node.covered / "var/lib").rglob("*") if path.is_file()] == []
    assert state.state(node.root)["plain_copies"] == []


def test_undo_brings_all_of_it_back(node):
    node.apply()
    in_force(node)
    move.discard(node.root)
    node.write({f"{CACHE}/dump.rdb": b"newer"})
    before = node.read()
    move.undo(node.root)
    assert node.read() == before and not node.bound and node.running == set(UNITS)
    assert record.load(node.root) is None
    assert in_force(node) == before


def test_lock_and_unlock(node):
    node.apply()
    opening.lock(node.root)
    assert record.locked(node.root) and not opening.is_open(node.root)
    assert not node.running & {"kos-postgresql.service", "kos-valkey.service"}
    with pytest.raises(record.Locked, match="kai encryption unlock"):
        record.require_open(node.root)
    assert opening.unlock(node.root, PASSPHRASE)["opened"]
    assert node.running >= {"kos-postgresql.service", "kos-valkey.service"}


def test_at_boot_without_a_key_of_its_own_it_waits(node):
    node.apply()
    node.reboot()
    assert "kai encryption unlock" in opening.at_boot(node.root)
    assert state.concerns(state.state(node.root)) == ["The data of this node are locked: kai encryption unlock"]


def test_another_passphrase_in_its_place(node):
    node.apply()
    with pytest.raises(opening.WrongKey):
        keys.rotate(node.root, NEW, f"{NEW} two")
    assert keys.rotate(node.root, PASSPHRASE, NEW)
    device = str(node.disk)
    assert cryptsetup.opens(device, NEW) and not cryptsetup.opens(device, PASSPHRASE)
    assert luks.costs(cryptsetup.dump(device)) == [("argon2id", 32, 4, 1)]
    assert (
        cryptsetup.dump(node.root.join(record.HEADER))["keyslots"].keys() == cryptsetup.dump(device)["keyslots"].keys()
    )
    assert not keys.rotate(node.root, PASSPHRASE, NEW)


def test_stopped_between_the_passphrases_the_same_again_ends_it(node, monkeypatch):
    node.apply()
    for steps in range(40):
        if cut_at(node, monkeypatch, steps, lambda: keys.rotate(node.root, PASSPHRASE, NEW)):
            break
        device = str(node.disk)
        assert cryptsetup.opens(device, PASSPHRASE) or cryptsetup.opens(device, NEW), f"after step {steps}"
    keys.rotate(node.root, PASSPHRASE, NEW)
    assert cryptsetup.opens(device, NEW) and not cryptsetup.opens(device, PASSPHRASE)


def test_a_recovery_key_opens_it_and_a_new_one_takes_its_place(node):
    node.apply()
    first = keys.add(node.root, "recovery", PASSPHRASE)
    second = keys.add(node.root, "recovery", PASSPHRASE)
    assert keys.listing(node.root) == ["passphrase", "recovery"]
    node.reboot()
    with pytest.raises(opening.WrongKey):
        opening.unlock(node.root, first)
    assert opening.unlock(node.root, second)["opened"]
    keys.remove(node.root, "recovery")
    assert keys.listing(node.root) == ["passphrase"]
    with pytest.raises(keys.NoKey, match="nothing was removed"):
        keys.remove(node.root, "recovery")


def test_a_tpm_is_only_told_where_its_measurements_mean_something(node, monkeypatch):
    node.apply()
    monkeypatch.setattr(keys.enrol, "obstacle", lambda: "Secure Boot is not enforced")
    with pytest.raises(keys.NoKey, match="Secure Boot"):
        keys.add(node.root, "tpm2", PASSPHRASE)


@pytest.mark.parametrize("path", ["/var/lib/kos-postgresql", "/srv/a b/ü.d", "/.hidden"])
def test_names_of_mount_units_are_those_of_systemd(path):
    expected = {
        "/var/lib/kos-postgresql": r"var-lib-kos\x2dpostgresql.mount",
        "/srv/a b/ü.d": r"srv-a\x20b-\xc3\xbc.d.mount",
        "/.hidden": r"\x2ehidden.mount",
    }
    assert units.mount_of(path) == expected[path]
