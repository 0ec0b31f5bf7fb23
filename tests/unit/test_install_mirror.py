# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A mirror of two disks: what its kernel is told, when it is mounted with one, what status says, how it is mended."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import kos_image
from ansible_collections.kind.kos.plugins.module_utils.node import files, status, system
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.node.machine import mirror
from kos_image import definition, installing
from kos_install.actions import mounts
from kos_install.storage.actions import Btrfs, Luks, Mount, Plan

MODULE = Path(kos_image.__file__).parent / "dracut/90kos-mirror"
FILESYSTEM = "a4cc1489-e536-53b9-b249-e4763411aa16"
CMDLINE = (
    "rd.luks.name=aaaa=kos-root rd.luks.name=bbbb=kos-root-2 rd.luks.options=discard,tries=0,nofail "
    f"root=UUID={FILESYSTEM} rootflags=subvol=@root.1 rw kos.mirror=3\n"
)


def plan(*names):
    opened = [
        Luks(id=f"luks-{name}", device=f"/dev/disk/by-partuuid/{name}", name=name, uuid=f"of-{name}", memory_kib=65536,
             iterations=4, threads=1, recovery_key=False)
        for name in names
    ]  # fmt: skip
    devices = [f"/dev/mapper/{name}" for name in names if name != "kos-data"]
    made = Btrfs(id="btrfs", devices=devices, label="kos-root", uuid=FILESYSTEM, subvolumes=[])
    rows = [(devices[0], "/", "subvol=@root.1"), (devices[0], "/var", "subvol=@var")]
    return Plan(actions=[*opened, made, Mount(id="mount", mounts=rows)])


def test_neither_half_is_waited_for_by_name():
    told = mounts.arguments(plan("kos-root", "kos-root-2"))
    assert f"root=UUID={FILESYSTEM}" in told and "kos.mirror=30" in told
    assert "rd.luks.options=discard,tries=0,nofail" in told
    assert not [word for word in told if word.startswith("root=/dev")]


@pytest.mark.parametrize("names", [("kos-root",), ("kos-root", "kos-data")])
def test_one_disk_is_waited_for_as_long_as_it_takes(names):
    told = mounts.arguments(plan(*names))
    assert "root=/dev/mapper/kos-root" in told
    assert not [word for word in told if "nofail" in word or word.startswith("kos.mirror")]


# In the initrd


@pytest.fixture
def starting(tmp_path):
    """Runs the initrd's script where these halves are open; `steps` says what the programs answer, second by second.

    What it called, its code, and what it wrote below /run.
    """
    for name in ("proc", "dev/mapper", "bin", "run"):
        (tmp_path / name).mkdir(parents=True)
    calls, clock = tmp_path / "calls", tmp_path / "clock"
    clock.write_text("0")
    programs = {
        # Time goes by as it is waited for, and brings what the test says.
        "sleep": 'now=$(($(cat $T/clock) + 1)); echo $now >$T/clock; [ $now -lt 50 ] || kill $PPID; '
        'for f in $T/at-$now-*; do [ ! -e "$f" ] || mv "$f" "$T/${f##*/at-$now-}"; done; '
        "[ ! -e $T/second ] || mv $T/second $T/dev/mapper/kos-root-2; "
        "[ ! -e $T/first ] || mv $T/first $T/dev/mapper/kos-root",
        "btrfs": "[ -e $T/dev/mapper/kos-root ] && [ -e $T/dev/mapper/kos-root-2 ]",
        "systemctl": 'case $1 in list-units) [ ! -e $T/asked ] || [ -e $T/answered ] || echo unit;; '
        'show) echo subvol=@root.1;; *) echo "systemctl $*" >>$T/calls;; esac',
        "udevadm": 'echo "udevadm $*" >>$T/calls',
    }  # fmt: skip
    for name, text in programs.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\nT={tmp_path}\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)

    def run(*happens, cmdline=CMDLINE):
        (tmp_path / "proc/cmdline").write_text(cmdline)
        for name in happens:
            (tmp_path / name).touch()
        environment = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "KOS_MIRROR_SYSTEM": str(tmp_path)}
        argv = ["sh", MODULE / "kos-mirror.sh"]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)
        written = {
            path.relative_to(tmp_path).as_posix(): path.read_text()
            for path in (tmp_path / "run").rglob("*") if path.is_file()
        }  # fmt: skip
        return done, int(clock.read_text()), written, calls.read_text().splitlines() if calls.exists() else []

    return run


def test_a_whole_mirror_is_left_to_systemd(starting):
    done, _seconds, written, calls = starting("at-2-first", "at-4-second")
    assert (done.returncode, done.stderr, written, calls) == (0, "", {}, [])


@pytest.mark.parametrize(("half", "path"), [("first", "kos-root"), ("second", "kos-root-2")])
def test_with_one_half_it_goes_on_after_its_seconds(starting, half, path, tmp_path):
    done, seconds, written, calls = starting(f"at-5-{half}")
    assert (done.returncode, seconds) == (0, 7)
    assert "one disk of this machine's mirror is missing" in done.stderr
    assert written == {
        "run/systemd/system/sysroot.mount.d/kos-mirror.conf": "[Mount]\nOptions=subvol=@root.1,degraded\n",
        "run/udev/rules.d/65-kos-mirror.rules": 'SUBSYSTEM=="block", ENV{ID_FS_TYPE}=="btrfs", '
        f'ENV{{ID_FS_UUID}}=="{FILESYSTEM}", ENV{{SYSTEMD_READY}}="1"\n',
    }
    device = f"{tmp_path}/dev/mapper/{path}"
    # systemd must know how to mount it before it learns that it may.
    assert calls == ["udevadm control --reload", "systemctl daemon-reload", f"udevadm trigger --action=change {device}"]


def test_it_waits_while_somebody_is_asked_for_the_other_half(starting):
    done, seconds, written, _calls = starting("asked", "at-2-first", "at-20-second")
    assert (done.returncode, seconds, written) == (0, 20, {})


def test_it_waits_for_as_long_as_nobody_opens_any(starting):
    _done, seconds, written, _calls = starting()
    assert seconds == 50 and written == {}


def test_it_has_nothing_to_do_on_one_disk(starting):
    done, seconds, written, _calls = starting(cmdline="root=/dev/mapper/kos-root kos.mirror=3\n")
    assert (done.returncode, seconds, written) == (0, 0, {})


def test_every_initrd_of_a_node_has_it():
    assert "kos-mirror" in definition.define("usb", "amd64").installed.initrd.add
    assert "90kos-mirror" in installing._SHARED_MODULES
    for name in ("kos-mirror.sh", "kos-mirror.service"):
        assert name in (MODULE / "module-setup.sh").read_text()


# On the node


@pytest.fixture
def node(tmp_path, monkeypatch):
    """Makes what the kernel says of its mirror; the programs that were run."""
    root, ran = Root(str(tmp_path)), []
    monkeypatch.setattr(system, "run", lambda argv, *_more, **_how: ran.append(argv))

    def says(missing=0, single=0, profile="raid1"):
        folder = f"/sys/fs/btrfs/{FILESYSTEM}"
        rows = {f"allocation/metadata/{profile}/total_bytes": 1 << 30, "allocation/data/single/total_bytes": single,
                "devinfo/1/missing": 0, "devinfo/2/missing": missing}  # fmt: skip
        for name, value in rows.items():
            files.write(root.join(f"{folder}/{name}"), f"{value}\n".encode())
        files.write(root.join("/sys/fs/btrfs/features/raid1c34"), b"0\n")
        return mirror.found(root)

    return root, says, ran


def test_a_file_system_on_one_disk_is_no_mirror(node):
    _root, says, _ran = node
    assert says(profile="single") == []


def test_a_missing_disk_is_said_and_remembered_until_all_is_on_both(node):
    root, says, ran = node
    row = {"uuid": FILESYSTEM, "missing": 1, "alone": 5 << 20}
    assert says(missing=1, single=5 << 20) == [row]
    assert "One disk of the mirror is missing" in mirror.concerns(root, [row])[0]
    assert mirror.mend(root) == "one disk is missing" and ran == []
    # It is back, and the kernel does not say that it is older than the other.
    back = says()
    assert "was away" in mirror.concerns(root, back)[0]
    mirror.mend(root)
    assert [argv[:3] for argv in ran] == [["btrfs", "scrub", "start"], ["btrfs", "balance", "start"]]
    assert mirror.concerns(root, back) == [] and mirror.mend(root) == "nothing to do" and len(ran) == 2


def test_what_failed_to_be_mended_is_still_said(node, monkeypatch):
    root, says, _ran = node
    says(missing=1)
    mirror.mend(root)
    back = says()

    def fails(*_argv):
        raise system.CommandFailed("btrfs", "scrub")

    monkeypatch.setattr(system, "run", fails)
    with pytest.raises(system.CommandFailed):
        mirror.mend(root)
    assert "was away" in mirror.concerns(root, back)[0]


def test_what_lies_on_one_disk_alone_is_said(node):
    root, says, ran = node
    assert mirror.concerns(root, says(single=5_000_001))[0].startswith("6 MB are on one disk of the mirror alone")
    mirror.mend(root)
    assert len(ran) == 2


def test_status_has_it(node, monkeypatch):
    _root, says, _ran = node
    found = says(missing=1)
    monkeypatch.setattr(mirror, "found", lambda _root: found)
    document = status.status(Root("/nonexistent"))
    assert document["mirrors"] == found
    assert any("One disk of the mirror is missing" in line for line in document["concerns"])
