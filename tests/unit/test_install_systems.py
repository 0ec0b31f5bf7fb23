# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a node decides about its own systems: numbers, what failed and why, what may go, what the gate complains of."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from ansible_collections.kind.kos.plugins.module_utils.node import files, main, status, system
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.node.machine import (
    bootloader,
    candidate,
    enrol,
    kernels,
    layout,
    secureboot,
    slots,
    system_update,
    systems,
    trial,
    uki,
)
from ansible_collections.kind.kos.plugins.module_utils.node.machine.slots import Slot
from ansible_collections.kind.kos.plugins.module_utils.node.machine.systems import Known, Record

MOUNTS = "22 1 0:21 /@root.3 / rw,relatime shared:1 - btrfs /dev/mapper/kos-root rw,subvol=/@root.3\n"
CMDLINE = (
    "BOOT_IMAGE=/kos/4/linux initrd=\\kos\\4\\initrd rd.luks.name=u=kos-root root=/dev/mapper/kos-root "
    "rootflags=subvol=@root.3 rw panic=30 kos.slot=4\n"
)


@pytest.fixture
def root(tmp_path):
    made = Root(str(tmp_path))
    for name, text in ((layout.CMDLINE, CMDLINE), (layout.MOUNTS, MOUNTS)):
        files.write(made.join(name), text.encode())
    return made


def entry(number, left=None, done=0, staged=False):
    return Slot(number, "entries", f"kos-{number}.conf", left, done, staged)


def test_it_knows_entry_root_and_disk_of_what_runs(root):
    assert layout.find(root) == layout.Layout(
        4, 3, "/dev/mapper/kos-root",
        ["rd.luks.name=u=kos-root", "root=/dev/mapper/kos-root", "rootflags=subvol=@root.3", "rw", "panic=30"],
    )  # fmt: skip


def test_the_arguments_that_were_installed_come_before_those_that_run(root):
    files.write(root.join(layout.ARGUMENTS), b"rw rootflags=subvol=@root.3 quiet\n")
    found = layout.require(root).arguments
    always = ["panic=30", "rd.shell=0", "rd.emergency=reboot"]
    assert layout.arguments_for(found, 7) == ["rw", "rootflags=subvol=@root.7", "quiet", *always]
    assert layout.arguments_for(["panic=5", "rw"], 7)[:2] == ["panic=5", "rw"]
    assert "panic=30" not in layout.arguments_for(["panic=5", "rw"], 7)


def test_a_machine_of_another_layout_says_what_to_do(root):
    files.write(root.join(layout.CMDLINE), b"root=/dev/vda1 ro\n")
    assert layout.find(root) is None
    assert system_update.status(root) is None
    with pytest.raises(layout.OtherLayout, match="update its packages with apt"):
        layout.require(root)


def test_a_number_is_never_used_twice_even_when_nothing_is_left_of_its_system():
    record = Record({1: Known(1, state="good")}, last=6)
    assert systems.next_number(record, [entry(1), entry(4)], [1, 5]) == 7
    assert systems.next_number(record, [entry(9, staged=True)], [1]) == 10
    assert systems.next_number(record, [], [11]) == 12
    assert Record().put(3, Known(3)).without([3]).last == 3


def test_a_candidate_without_tries_left_failed_and_the_gate_said_why(root):
    systems.note_trial(root, 2, "first")
    systems.note_trial(root, 2, "valkey does not answer")
    record = Record({1: Known(1, state="good"), 2: Known(2, state="published")})
    found = systems.settled(root, record, 1, 1, [entry(1), entry(2, 0, 3)])
    assert found.known[2].state == "failed"
    assert found.known[2].reason == "valkey does not answer"


def test_a_candidate_that_left_no_word_never_reached_its_gate(root):
    record = Record({1: Known(1, state="good"), 2: Known(2, state="published")})
    found = systems.settled(root, record, 1, 1, [entry(1), entry(2, 0, 3)])
    assert "never reached its gate" in found.known[2].reason


@pytest.mark.parametrize(("left", "state"), [(3, "published"), (1, "published"), (None, "good")])
def test_a_candidate_that_may_still_be_tried_waits(root, left, state):
    record = Record({1: Known(1, state="good"), 2: Known(2, state="published")})
    running = 2 if left is None else 1
    assert systems.settled(root, record, running, running, [entry(1), entry(2, left)]).known[2].state == state


@pytest.mark.parametrize("state", ["making", "staged"])
def test_what_was_interrupted_failed(root, state):
    record = Record({1: Known(1, state="good"), 2: Known(2, state=state)})
    found = systems.settled(root, record, 1, 1, [entry(1), entry(2, 3, staged=True)])
    assert found.known[2].state == "failed"
    assert "interrupted" in found.known[2].reason


def test_one_that_was_interrupted_while_it_was_published_is_dropped(root):
    # The record says published, the entry is not: whoever was to publish it is gone.
    record = Record({1: Known(1, state="good"), 2: Known(2, state="published")})
    entries = [entry(1), entry(2, 3, staged=True)]
    assert systems.superfluous(record, 1, entries) == [2]
    assert systems.settled(root, record, 1, 1, [entry(1)]).known[2].state == "failed"


def test_what_the_installer_made_is_known_from_the_first_look(root):
    found = systems.settled(root, Record(), 1, 1, [entry(1)])
    assert (found.known[1].why, found.known[1].state, found.last) == ("install", "good", 1)


def test_the_one_before_pinned_ones_and_one_that_waits_are_kept():
    entries = [entry(1), entry(2), entry(3), entry(4, 0, 3), entry(5), entry(6, 3)]
    assert systems.superfluous(Record(pinned=(1,)), 5, entries) == [2, 4]
    # Who went back finds the newer one, to go forward again.
    assert systems.superfluous(Record(), 3, entries) == [1, 2, 4]


def test_only_the_last_failures_stay_known():
    record = Record({n: Known(n, state="failed", reason=str(n)) for n in range(2, 8)}).put(1, Known(1, state="good"))
    assert sorted(record.without([]).known) == [1, 5, 6, 7]


def test_the_record_survives(root):
    record = Record({1: Known(1, state="good"), 2: Known(2, state="failed", reason="x")}, 2, (1,))
    systems.save(root, record)
    assert systems.load(root) == record


def test_status_tells_a_failure_until_a_newer_system_runs(root):
    record = Record({3: Known(3, state="good"), 4: Known(3, state="good"), 5: Known(5, state="failed", reason="why")})
    systems.save(root, record)
    row = system_update.status(root)
    assert (row["slot"], row["slots"], row["failed"]) == (4, [3, 4], {"slot": 5, "reason": "why"})
    document = {"system": row, "enrolment": {}, "watch": {"short_of_memory": False, "restarting": {}, "refused": {}},
                "fallback": None, "integrity": None}  # fmt: skip
    assert status.concerns(document) == ["The update to system 5 went back by itself: why"]
    systems.save(root, record.put(6, Known(6, state="good")))
    assert systems.summary(root, 6)["failed"] is None


@pytest.mark.parametrize(
    ("running", "state", "code"), [(1, "published", 1), (2, "published", 1), (1, "failed", 0), (2, "good", 0)]
)
def test_it_is_decided_only_when_nothing_waits_and_what_runs_is_proved(root, running, state, code):
    cmdline = f"rootflags=subvol=@root.{running} kos.slot={running}\n"
    files.write(root.join(layout.CMDLINE), cmdline.encode())
    systems.save(root, Record({1: Known(1, state="good"), 2: Known(2, state=state)}))
    assert main.main(["--root", root.path, "system", "decided"]) == code


# The gate


def answers(monkeypatch, **said):
    """Make `system.run` answer by the program's name, or by its first two words."""
    calls = []

    def run(argv, stdin=None, check=True, timeout=None, environment=None):
        calls.append((argv, stdin, environment))
        text = said.get(f"{argv[0]}_{argv[1]}".replace("-", "_"), said.get(argv[0].replace("-", "_"), ""))
        return SimpleNamespace(stdout=text.encode() if isinstance(text, str) else text, returncode=0)

    monkeypatch.setattr(system, "run", run)
    return calls


@pytest.fixture
def gate(root, monkeypatch):
    answers(monkeypatch, systemctl_is_active="active\n", ip="default via 192.0.2.1\n")
    monkeypatch.setattr(system, "unit_states", lambda names, _properties: {name: {} for name in names})
    return root


def test_a_system_that_came_up_well_has_no_complaint(gate):
    files.write_json(gate.join(system_update.BASELINE), {"running": ["ssh.service"], "routed": True})
    assert trial.first_complaint(gate) == ""


def test_what_ran_before_and_fails_now_is_a_complaint(gate, monkeypatch):
    files.write_json(gate.join(system_update.BASELINE), {"running": ["ssh.service", "cron.service"], "routed": False})
    states = {"ssh.service": {"ActiveState": "failed"}, "cron.service": {"ActiveState": "inactive"}}
    monkeypatch.setattr(system, "unit_states", lambda _names, _properties: states)
    assert trial.first_complaint(gate) == "ssh.service ran before the update and failed after it"


def test_a_network_that_was_lost_is_a_complaint(gate, monkeypatch):
    files.write_json(gate.join(system_update.BASELINE), {"running": [], "routed": True})
    answers(monkeypatch, ip="")
    assert "a way out" in trial.first_complaint(gate)


def test_a_persons_own_check_decides_too(gate):
    path = gate.join(f"{trial.CHECKS}/10-door")
    files.write(path, b"#!/bin/sh\necho the door is open >&2\nexit 3\n", 0o755)
    assert trial.first_complaint(gate) == "10-door: the door is open"
    files.write(path, b"#!/bin/sh\nexit 0\n", 0o755)
    assert trial.first_complaint(gate) == ""


def test_a_check_that_others_may_write_is_not_run(gate):
    path = gate.join(f"{trial.CHECKS}/check")
    files.write(path, b"#!/bin/sh\ntouch /tmp/ran\n", 0o777)
    os.chmod(path, 0o777)
    assert "others than root may write it" in trial.first_complaint(gate)


def test_a_generation_that_is_not_in_force_is_a_complaint(gate):
    files.write_json(gate.state("pending"), {"generation": 1})
    assert "not in force" in trial.first_complaint(gate)


def test_what_cannot_be_looked_at_is_a_complaint(gate):
    files.write(gate.join(system_update.BASELINE), b"{")
    assert "cannot be told" in trial.first_complaint(gate)


@pytest.fixture
def esp(gate, tmp_path, monkeypatch):
    folder = tmp_path / "efi"
    (folder / "loader/entries").mkdir(parents=True)
    monkeypatch.setattr(layout, "apart", lambda: None)
    monkeypatch.setattr(layout, "esps", lambda: [str(folder)])
    monkeypatch.setattr(trial, "_BETWEEN", 0.01)
    return folder


def test_one_on_trial_that_is_not_well_fails_and_says_why(gate, esp):
    (esp / "loader/entries/kos-4+2-1.conf").write_text(" linux /kos/4/linux\n")
    files.write_json(gate.state("pending"), {})
    assert not trial.judge(gate, 0, 0)
    assert "not in force" in systems.reason(gate, 4)


def test_one_that_has_proved_itself_is_never_restarted(gate, esp):
    (esp / "loader/entries/kos-4.conf").write_text(" linux /kos/4/linux\n")
    files.write_json(gate.state("pending"), {})
    assert trial.judge(gate, 0, 0)


@pytest.mark.parametrize(("state", "well"), [("published", False), ("good", True)])
def test_without_an_esp_it_is_remembered_who_is_on_trial(gate, esp, monkeypatch, state, well):
    def gone():
        raise layout.OtherLayout("no EFI system partition is mounted")

    monkeypatch.setattr(layout, "esps", gone)
    systems.save(gate, Record({4: Known(3, state=state)}))
    assert trial.judge(gate, 0, 0) is well


def test_a_boot_that_does_not_end_is_a_complaint(gate, esp, monkeypatch):
    (esp / "loader/entries/kos-4+2-1.conf").write_text(" linux /kos/4/linux\n")
    answers(monkeypatch, systemctl_is_active="activating\n")
    assert not trial.judge(gate, 0, 0)
    assert "did not come to its end" in systems.reason(gate, 4)


# The TPM


@pytest.fixture
def wished(root, monkeypatch, tmp_path):
    tpm = tmp_path / "tpmrm0"
    tpm.touch()
    monkeypatch.setattr(enrol, "TPM", str(tpm))
    monkeypatch.setattr(enrol, "MEMORY", str(tmp_path))
    monkeypatch.setattr(secureboot, "enforced", lambda: True)
    enrol.wish(root, ["aaaa"], pin=True)
    files.write(root.join(enrol.KEY), b"k" * 64, 0o600)
    files.write(root.join(enrol.PIN), b"sealed", 0o600)
    return root


def headers(monkeypatch, enrolled_after=1, given=None):
    """A header that has a TPM's key once systemd-cryptenroll ran; `given` has the credentials that it found."""
    calls = []

    def run(argv, stdin=None, check=True, timeout=None, environment=None):
        calls.append((argv, stdin, environment))
        if given is not None and environment:
            folder = Path(environment["CREDENTIALS_DIRECTORY"])
            given.extend((one.name, one.read_bytes(), one.stat().st_mode & 0o777) for one in folder.iterdir())
        done = sum(call[0][0] == "systemd-cryptenroll" for call in calls) >= enrolled_after
        tokens = {"0": {"type": enrol.TOKEN, "keyslots": ["1"]}}
        tokens |= {"1": {"type": "systemd-tpm2", "keyslots": ["2"]}} if done else {}
        text = {"cryptsetup": json.dumps({"tokens": tokens}), "systemd-creds": "1234"}.get(argv[0], "")
        return SimpleNamespace(stdout=text.encode(), returncode=0)

    monkeypatch.setattr(system, "run", run)
    return calls


def test_the_tpm_is_told_once_secure_boot_is_enforced_and_the_installers_key_goes(wished, monkeypatch):
    given = []
    calls = headers(monkeypatch, given=given)
    assert enrol.enrol(wished) == {"tpm2": "enrolled", "why": ""}
    (told,) = [call for call in calls if call[0][0] == "systemd-cryptenroll"]
    assert "--tpm2-pcrs=7" in told[0]
    assert "--tpm2-with-pin=yes" in told[0]
    assert given == [("cryptenroll.new-tpm2-pin", b"1234", 0o400)]
    assert list(told[2]) == ["CREDENTIALS_DIRECTORY"] and not os.path.exists(told[2]["CREDENTIALS_DIRECTORY"])
    # The key says itself which slot goes; no slot is named, so the passphrase's cannot be meant.
    (removed,) = [call for call in calls if "luksRemoveKey" in call[0]]
    assert removed[1] == b"k" * 64
    assert not any("--wipe-slot" in word for call in calls for word in call[0])
    assert not any("1234" in word for call in calls for word in call[0])
    assert ["cryptsetup", "token", "remove", "--token-id", "0", "/dev/disk/by-uuid/aaaa"] in [call[0] for call in calls]
    assert os.listdir(wished.join(enrol.FOLDER)) == []


def test_the_copy_of_a_header_is_of_the_header_as_it_is_then(wished, monkeypatch):
    """The installer's copy still opened with the installer's key, and knew no TPM."""
    for name in ("kos-root", "kos-data"):
        files.write(wished.join(f"{enrol.HEADERS}/{name}.luks-header"), name.encode(), 0o400)
    headers(monkeypatch)
    others = system.run

    def run(argv, *more, **named):
        if argv[1] == "luksUUID":
            return SimpleNamespace(stdout=b"aaaa\n" if "kos-root" in argv[2] else b"bbbb\n", returncode=0)
        if argv[1] == "luksHeaderBackup":
            assert argv[-1] == "/dev/disk/by-uuid/aaaa" and not os.path.exists(argv[-2])
            files.write(argv[-2], b"newer", 0o600)
        return others(argv, *more, **named)

    monkeypatch.setattr(system, "run", run)
    enrol.enrol(wished)
    folder = wished.join(enrol.HEADERS)
    assert sorted(os.listdir(folder)) == ["kos-data.luks-header", "kos-root.luks-header"]
    assert files.read(f"{folder}/kos-root.luks-header") == b"newer"
    assert files.read(f"{folder}/kos-data.luks-header") == b"kos-data"
    assert os.stat(f"{folder}/kos-root.luks-header").st_mode & 0o777 == 0o400


def test_it_waits_while_secure_boot_is_not_enforced(wished, monkeypatch):
    calls = headers(monkeypatch)
    monkeypatch.setattr(secureboot, "enforced", lambda: False)
    assert enrol.enrol(wished)["tpm2"] == "pending"
    assert calls == []
    assert os.path.exists(wished.join(enrol.KEY))
    assert "does not open its disk yet" in status._of_enrolment(enrol.state(wished))[0]


def test_a_run_that_was_cut_off_is_finished_by_the_next(wished, monkeypatch):
    headers(monkeypatch, enrolled_after=0)
    assert enrol.enrol(wished)["tpm2"] == "enrolled"


def test_a_chip_that_took_nothing_is_an_error_and_the_key_stays(wished, monkeypatch):
    headers(monkeypatch, enrolled_after=9)
    with pytest.raises(enrol.EnrolmentFailed, match="the passphrase still opens it"):
        enrol.enrol(wished)
    assert os.path.exists(wished.join(enrol.KEY))


def test_secrets_of_the_wish_are_for_root_alone(wished):
    assert os.stat(wished.join(enrol.FOLDER)).st_mode & 0o077 == 0
    assert os.stat(wished.join(enrol.WISH)).st_mode & 0o077 == 0


# The loader


@pytest.fixture
def programs(tmp_path, monkeypatch):
    name = uki.suffix()
    for path in (f"shim/shim{name}.efi.signed", f"shim/mm{name}.efi.signed", f"boot/systemd-boot{name}.efi.signed"):
        files.write(str(tmp_path / path), b"MZ" + path.encode())
    monkeypatch.setattr(bootloader, "_SHIM", str(tmp_path / "shim"))
    monkeypatch.setattr(uki, "STUBS", str(tmp_path / "boot"))
    esp = tmp_path / "esp"
    esp.mkdir()
    return esp


@pytest.mark.parametrize("shared", [False, True])
def test_firmware_starts_the_loader_only_once_it_is_published(programs, shared):
    bootloader.install_loader(str(programs), shared=shared)
    program = programs / bootloader.first(shared)
    assert not program.read_bytes().startswith(b"MZ")
    bootloader.publish_loader(str(programs), shared=shared)
    assert program.read_bytes().startswith(b"MZshim/shim")
    # shim looks for the next one beside itself, by this name.
    assert (program.parent / f"grub{uki.suffix()}.efi").read_bytes().startswith(b"MZboot/systemd-boot")
    assert (programs / "EFI/BOOT").exists() is not shared


def test_the_menu_has_the_other_systems_of_a_shared_partition(programs):
    name = uki.suffix()
    theirs = {
        "debian": [f"shim{name}.efi", f"grub{name}.efi"], "Arch": [f"GRUB{name}.EFI"], "HP": ["tool.efi"],
        "Microsoft": ["Boot/bootmgfw.efi"], "BOOT": [f"grub{name}.efi"],
    }  # fmt: skip
    for folder, loaders in theirs.items():
        for loader in loaders:
            files.write(str(programs / "EFI" / folder / loader), b"MZ")
    files.write(str(programs / f"EFI/grub{name}.efi"), b"MZ")
    bootloader.install_loader(str(programs), shared=True)
    entries = {path.name: path.read_text() for path in (programs / "loader/entries").iterdir()}
    # Windows, and what is in EFI/BOOT, systemd-boot finds by itself.
    assert entries == {
        "other-kos-debian.conf": f"efi /EFI/debian/shim{name}.efi\ntitle debian\nsort-key other-debian\n",
        "other-kos-arch.conf": f"efi /EFI/Arch/GRUB{name}.EFI\ntitle Arch\nsort-key other-Arch\n",
    }
    assert "default kos-*" in (programs / bootloader.LOADER_CONF).read_text()


def test_another_systems_loader_on_a_shared_partition_is_left_alone(programs):
    files.write(str(programs / bootloader.LOADER_CONF), b"default windows\n")
    with pytest.raises(bootloader.fatfiles.NotOnFat, match="belongs to another system"):
        bootloader.install_loader(str(programs), shared=True)
    assert (programs / bootloader.LOADER_CONF).read_bytes() == b"default windows\n"


def test_own_keys_are_enrolled_from_the_partition(programs, tmp_path, monkeypatch):
    monkeypatch.setattr(uki, "sign", lambda _program, _key, target: files.write(target, b"MZsigned"))
    paths = {kind: str(tmp_path / f"{kind}.auth") for kind in secureboot.KINDS}
    for path in paths.values():
        files.write(path, b"auth")
    bootloader.install_loader(str(programs), uki.Key("k", "c"), paths)
    assert "secure-boot-enroll force" in (programs / bootloader.LOADER_CONF).read_text()
    assert sorted(path.name for path in (programs / "loader/keys/auto").iterdir()) == ["KEK.auth", "PK.auth", "db.auth"]


def test_the_vendors_certificates_stay_where_a_card_needs_them(tmp_path, monkeypatch):
    monkeypatch.setattr(secureboot, "EFIVARS", str(tmp_path))
    files.write(str(tmp_path / f"dbDefault-{secureboot._GLOBAL}"), b"\x07\0\0\0certificates")
    monkeypatch.setattr(secureboot, "_OPTION_ROMS", str(tmp_path / "nothing*"))
    assert secureboot.vendors() == b""
    monkeypatch.setattr(secureboot, "_OPTION_ROMS", str(tmp_path / "dbDefault*"))
    assert secureboot.vendors() == b"certificates"


def test_secure_boot_is_enforced_only_outside_of_setup_mode(tmp_path, monkeypatch):
    monkeypatch.setattr(secureboot, "EFIVARS", str(tmp_path))
    assert not secureboot.enforced()
    for name, value in (("SecureBoot", 1), ("SetupMode", 1)):
        files.write(str(tmp_path / f"{name}-{secureboot._GLOBAL}"), b"\x06\0\0\0" + bytes([value]))
    assert not secureboot.enforced()
    files.write(str(tmp_path / f"SetupMode-{secureboot._GLOBAL}"), b"\x06\0\0\0\0")
    assert secureboot.enforced()


# The candidate


def test_its_own_files_name_its_own_subvolume(tmp_path, monkeypatch):
    monkeypatch.setattr(candidate, "CANDIDATE", str(tmp_path))
    files.write(str(tmp_path / "etc/fstab"), b"UUID=x / btrfs subvol=@root.1 0 0\nUUID=x /var btrfs subvol=@var 0 0\n")
    files.write(str(tmp_path / "etc/kernel/cmdline"), b"rw rootflags=subvol=@root.1\n", 0o600)
    candidate._renumber(12)
    assert b"subvol=@root.12 0 0\nUUID=x /var btrfs subvol=@var" in (tmp_path / "etc/fstab").read_bytes()
    assert (tmp_path / "etc/kernel/cmdline").read_bytes() == b"rw rootflags=subvol=@root.12\n"
    assert os.stat(tmp_path / "etc/kernel/cmdline").st_mode & 0o777 == 0o600


LISTING = "-rw-r--r-- 1 root root 10 Jan 1 1970 usr/lib/x.so.1\nlrwxrwxrwx 1 root root 7 Jan 1 1970 lib -> usr/lib\n"


@pytest.mark.parametrize(
    ("owned", "touched"), [("/lib/x.so.1\n", True), ("/usr/lib/x.so.1\n", True), ("/usr/share/doc/x\n", False)]
)
def test_the_initrd_is_made_anew_only_where_a_package_is_part_of_it(tmp_path, monkeypatch, owned, touched):
    monkeypatch.setattr(candidate, "CANDIDATE", str(tmp_path))
    monkeypatch.setattr(candidate, "inside", lambda argv: LISTING if argv[0] == "lsinitrd" else owned)
    assert candidate._touched("/boot/initrd.img-1", ["x"]) is touched
    assert candidate._touched("/boot/initrd.img-1", []) is False


def test_a_package_that_would_be_lost_stops_the_upgrade(tmp_path, monkeypatch):
    monkeypatch.setattr(candidate, "CANDIDATE", str(tmp_path))
    monkeypatch.setattr(
        candidate, "inside", lambda argv: "Inst b [1] (2 x)\nRemv a [1]\n" if "--simulate" in argv else ""
    )
    with pytest.raises(candidate.UpgradeRefused, match="would remove a"):
        candidate.upgrade(2, system.USUAL)
    assert not (tmp_path / "usr/sbin/policy-rc.d").exists()


def test_a_change_of_the_node_after_the_snapshot_is_not_lost(root, monkeypatch, tmp_path):
    monkeypatch.setattr(system_update, "begin", lambda _root: (None, [str(tmp_path)]))
    monkeypatch.setattr(layout, "LOCK", str(tmp_path / "lock"))
    files.write(root.join("/var/lib/dpkg/status"), b"Package: a\n")
    systems.save(root, Record({5: Known(5, state="staged", base=candidate.fingerprint(root))}))
    files.write(root.join("/var/lib/dpkg/status"), b"Package: a\nPackage: b\n")
    with pytest.raises(system_update.NothingStaged, match="would lose that: prepare it again"):
        system_update.publish(root)


@pytest.mark.parametrize(
    ("name", "lost"),
    [("/etc/shadow", True), ("/root/.ssh/authorized_keys", True), ("/usr/local/bin/x", True), ("/etc/adjtime", False),
     ("/root/.bash_history", False), ("/var/lib/app/data", False)],
)  # fmt: skip
def test_a_change_by_hand_is_not_lost_silently(root, name, lost):
    """A changed password, fstab, or key was undone by the next start without a word."""
    files.write(root.join("/etc/fstab"), b"x\n")
    before = candidate.fingerprint(root)
    assert candidate.fingerprint(root) == before
    files.write(root.join(name), b"new\n")
    assert (candidate.fingerprint(root) != before) is lost
    between = candidate.fingerprint(root)
    os.chmod(root.join("/etc/fstab"), 0o600)
    assert candidate.fingerprint(root) != between
    files.remove(root.join("/etc/fstab"))
    assert candidate.fingerprint(root) not in (before, between)


def test_a_candidate_that_waits_is_withdrawn_when_this_machine_was_changed_since(root, kernel, monkeypatch):
    esp = str(kernel)
    made = slots.Entry(5, "kOS", root.join("/boot/vmlinuz-6.13"), root.join("/boot/initrd.img-6.13"), ["rw"], 3)
    slots.stage(esp, made, "entries")
    slots.publish(esp, 5)
    rows = {4: Known(3, state="good"), 5: Known(5, state="published", base=candidate.fingerprint(root))}
    systems.save(root, Record(rows))
    assert system_update.recheck(root) == {"withdrawn": []}
    assert [slot.number for slot in slots.listing(esp)] == [4, 5]
    files.write(root.join("/etc/hostname"), b"other\n")
    assert system_update.recheck(root) == {"withdrawn": [5]}
    assert [slot.number for slot in slots.listing(esp)] == [4]
    assert systems.load(root).known[5].state == "failed" and "prepare it again" in systems.load(root).known[5].reason


def test_going_back_to_what_was_installed_is_meant_to_lose_what_is_here(root, kernel):
    rows = {4: Known(3, state="good"), 5: Known(5, why="reset", state="published")}
    systems.save(root, Record(rows))
    assert system_update.recheck(root) == {"withdrawn": []}


def test_a_deploy_that_the_next_start_would_lose_is_refused(root):
    systems.save(root, Record({4: Known(3, state="good"), 5: Known(5, state="published")}))
    with pytest.raises(system_update.WaitsForStart, match="restart this machine first"):
        system_update.require_none_waiting(root)
    systems.save(root, Record({4: Known(3, state="good"), 5: Known(5, state="failed")}))
    system_update.require_none_waiting(root)


@pytest.fixture
def kernel(root, monkeypatch, tmp_path):
    """A system 4 that runs on root 3, with its files of kernel 6.13."""
    esp = tmp_path / "esp"
    for name in ("vmlinuz-6.13", "initrd.img-6.13"):
        files.write(root.join(f"/boot/{name}"), name.encode())
    made = slots.Entry(4, "kOS", root.join("/boot/vmlinuz-6.13"), root.join("/boot/initrd.img-6.13"), ["rw"])
    esp.mkdir()
    slots.stage(str(esp), made, "entries")
    slots.publish(str(esp), 4)
    monkeypatch.setattr(system_update, "begin", lambda _root: (layout.require(root), [str(esp)]))
    monkeypatch.setattr(systems, "subvolumes", lambda _top: [3])
    monkeypatch.setattr(layout, "LOCK", str(tmp_path / "lock"))
    return esp


def test_a_kernel_of_apt_is_tried_on_the_root_that_runs_and_the_old_one_stays(root, kernel):
    assert kernels.renew(root, "6.13") == {"slot": 5, "kernel": "6.13"}
    assert [(row.number, row.left) for row in slots.listing(str(kernel))] == [(4, None), (5, 3)]
    assert "rootflags=subvol=@root.3" in (kernel / "loader/entries/kos-5+3.conf").read_text()
    assert systems.load(root).known[5].root == 3
    # A second one before the next start takes the place of the first.
    assert kernels.renew(root, "6.13")["slot"] == 6
    assert [row.number for row in slots.listing(str(kernel))] == [4, 6]


def test_a_kernel_that_is_removed_takes_its_entry_along_but_not_the_one_that_runs(root, kernel):
    kernels.renew(root, "6.13")
    assert kernels.forget(root, "6.13") == {"slots": [5]}
    assert [row.number for row in slots.listing(str(kernel))] == [4]


def test_going_back_leaves_the_newer_ones_and_can_be_undone(root, monkeypatch, tmp_path):
    esp = tmp_path / "esp"
    for number in (1, 2, 4):
        files.write(str(esp / f"loader/entries/kos-{number}.conf"), b" linux /kos/linux\n")
    monkeypatch.setattr(system_update, "begin", lambda _root: (layout.require(root), [str(esp)]))
    monkeypatch.setattr(layout, "LOCK", str(tmp_path / "lock"))
    assert system_update.back(root, None) == {"from": 4, "to": 2}
    assert [row.left for row in slots.listing(str(esp))] == [None, None, 0]
    with pytest.raises(slots.NoSuchSlot, match="it keeps 1, 2"):
        system_update.back(root, 9)
