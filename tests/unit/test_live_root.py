# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a portable stick does before anything starts, on a stand-in for its machine: programs that keep a journal."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

MODULES = Path(__file__).parents[2] / "image-builder/kos_image/dracut"
SCRIPT, ASKING = MODULES / "90kos-live/kos-root.sh", MODULES / "90kos-asking/kos-asking.sh"
LAST = 400_000  # sectors: where the system's partitions end
PASSPHRASE = "correct horse"

STUBS = {
    # Answers come from a file; when they are all given, the machine is switched off.
    "systemd-ask-password": r"""
        for last; do :; done
        echo "$last" >>"$S/asked"
        [ -s "$S/answers" ] || { kill -9 $(cat "$S/pid"); exit 1; }
        case " $* " in *" --no-output "*) exit 0 ;; esac
        head -n1 "$S/answers" | tr -d '\n'; sed -i 1d "$S/answers" """,
    "blkid": r"""
        case $3 in
        PART_ENTRY_NAME) cat "$S/labels/${6#/dev/}" 2>/dev/null ;;
        PART_ENTRY_UUID) cat "$S/uuids/${6#/dev/}" 2>/dev/null || echo "of ${6#/dev/}" ;;
        esac""",
    "systemd-repart": r"""
        mkdir "$S/sys/devices/sda/sda4"; echo 4 >"$S/sys/devices/sda/sda4/partition"
        echo 400000 >"$S/sys/devices/sda/sda4/start"; echo 9000 >"$S/sys/devices/sda/sda4/size"
        ln -s ../../devices/sda/sda4 "$S/sys/class/block/sda4"; echo kos-persist-new >"$S/labels/sda4" """,
    "cryptsetup": r"""
        case $1 in
        luksFormat) cat >"$S/key" ;;
        open)
            [ ! -e "$S/poor" ] || exit 3
            cat >"$S/tried"; cmp -s "$S/tried" "$S/key" || grep -qx "$(cat "$S/tried")" "$S/recovery" ;;
        isLuks) [ ! -e "$S/damaged" ] ;;
        esac""",
    "systemd-cryptenroll": r"""
        [ "$PASSWORD" = "$(cat "$S/key")" ] || exit 1
        echo recovery-key | tee "$S/recovery" """,
    "sfdisk": 'echo kos-persist >"$S/labels/sda4"',
    "mkfs.ext4": '[ ! -e "$S/cut" ] || kill -9 $(cat "$S/pid")',
    **dict.fromkeys(("mount", "udevadm", "e2fsck", "blockdev", "sync", "systemctl", "sleep"), ":"),
}


@pytest.fixture
def stick(tmp_path):
    """A disk of 2 GiB whose root is proved, and stand-ins for the programs of an initrd."""
    folders = ("bin", "labels", "run", "sysroot/var/lib/dpkg", "proc", "dev/mapper", "sys/class/block/dm-0/slaves/sda3")
    for folder in (*folders, "uuids", "sys/devices/sda/sda3", "sysroot/home"):
        (tmp_path / folder).mkdir(parents=True)
    files = {
        "proc/cmdline": "quiet kos.persist roothash=ab\n",
        "proc/consoles": "tty0 -WU (EC)\n",
        "proc/meminfo": "MemTotal: 8000000 kB\n",
        "proc/cpuinfo": "processor : 0\nprocessor : 1\n",
        "dev/tty0": "",
        "dev/dm-0": "",
        "labels/sda3": "kos-root\n",
        "sys/devices/sda/size": f"{LAST + 4_000_000}\n",
        "sys/devices/sda/sda3/partition": "3\n",
        "sys/devices/sda/sda3/start": "2048\n",
        "sys/devices/sda/sda3/size": f"{LAST - 2048}\n",
        "sysroot/var/lib/dpkg/status": "Package: kos\n",
        "recovery": "",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "dev/mapper/root").symlink_to("../dm-0")
    (tmp_path / "sys/class/block/sda").symlink_to("../../devices/sda")
    (tmp_path / "sys/class/block/sda3").symlink_to("../../devices/sda/sda3")
    for name, body in STUBS.items():
        path = tmp_path / "bin" / name
        path.write_text(f'#!/bin/sh\nS={tmp_path}\necho "{name} $*" >>"$S/journal"\n{body}\n')
        path.chmod(0o755)
    return tmp_path


def boot(stick, *answers, credential=None):
    """Run the script; the exit code, the programs it called, what was asked, and what the console shows."""
    (stick / "answers").write_text("".join(f"{answer}\n" for answer in answers))
    for name in ("journal", "asked"):
        (stick / name).write_text("")
    environ = {"PATH": f"{stick / 'bin'}:{os.environ['PATH']}", "KOS_LIVE_SYSTEM": str(stick)}
    environ["KOS_ASKING"] = str(ASKING)
    if credential:
        (stick / "credentials").mkdir(exist_ok=True)
        (stick / "credentials/kos.passphrase").write_text(credential)
        environ["CREDENTIALS_DIRECTORY"] = str(stick / "credentials")
    start = f'echo $$ >"{stick}/pid"; exec sh "{SCRIPT}"'
    done = subprocess.run(["sh", "-c", start], env=environ, capture_output=True, text=True, timeout=60, check=False)
    said = [(stick / name).read_text() for name in ("journal", "asked", "dev/tty0")]
    return done.returncode, *said


def label(stick):
    return (stick / "labels/sda4").read_text().strip()


def test_a_first_boot_asks_for_a_passphrase_and_finishes_last(stick):
    code, journal, asked, console = boot(stick, PASSPHRASE, PASSPHRASE, "")
    assert code == 0, journal
    assert label(stick) == "kos-persist" and (stick / "key").read_text() == PASSPHRASE
    calls = [line.split()[0] for line in journal.splitlines()]
    for earlier, later in [("systemd-repart", "cryptsetup"), ("cryptsetup", "mkfs.ext4"), ("mkfs.ext4", "sfdisk")]:
        assert calls.index(earlier) < calls.index(later)
    # A quarter of the memory, all processors, and never what a busy machine measures.
    assert "--pbkdf argon2id --pbkdf-memory 1048576 --pbkdf-parallel 2 --pbkdf-force-iterations 4" in journal
    assert "recovery-key" in console and "Write the recovery key down" in asked
    assert PASSPHRASE not in journal and "recovery-key" not in journal.replace("--recovery-key", "")
    assert (stick / "run/kos/persist/var/lib/dpkg/status").exists()
    assert f"upperdir={stick}/run/kos/persist/upper" in journal
    assert f"mount --bind {stick}/run/kos/persist/var {stick}/sysroot/var" in journal


def test_a_small_machine_keeps_three_quarters_of_its_memory(stick):
    (stick / "proc/meminfo").write_text("MemTotal: 2000000 kB\n")
    assert "--pbkdf-memory 500000 " in boot(stick, PASSPHRASE, PASSPHRASE, "")[1]


@pytest.mark.parametrize("first", [("",), ("short",), (PASSPHRASE, "another one")])
def test_no_empty_short_or_mistyped_passphrase_is_taken(stick, first):
    code, _journal, asked, _console = boot(stick, *first, PASSPHRASE, PASSPHRASE, "")
    assert code == 0 and (stick / "key").read_text() == PASSPHRASE
    assert "shorter than 8 characters" in asked or "not the same" in asked


def test_nothing_is_made_before_a_passphrase_is_chosen(stick):
    code, journal, _asked, _console = boot(stick, "short")
    assert code != 0 and "luksFormat" not in journal and "mount" not in journal


def test_an_interrupted_first_boot_starts_over(stick):
    (stick / "cut").touch()
    code, journal, _asked, _console = boot(stick, PASSPHRASE, PASSPHRASE, "")
    assert code == -9 and "luksFormat" in journal and label(stick) == "kos-persist-new"
    (stick / "cut").unlink()
    code, journal, asked, _console = boot(stick, "another passphrase", "another passphrase", "")
    assert code == 0 and label(stick) == "kos-persist" and (stick / "key").read_text() == "another passphrase"
    assert "systemd-repart" not in journal and "Choose a passphrase" in asked


def second_stick(stick, *partitions):
    for name, uuid in partitions:
        (stick / "sys/devices/sdb" / name).mkdir(parents=True)
        (stick / "sys/devices/sdb" / name / "partition").write_text(name[-1])
        (stick / "sys/class/block" / name).symlink_to(f"../../devices/sdb/{name}")
        (stick / "uuids" / name).write_text(uuid)


def refused(stick):
    code, journal, asked, _console = boot(stick, "")
    calls = {line.split()[0] for line in journal.splitlines()}
    assert code == 1 and "Two sticks with this same system are plugged in" in asked
    assert calls <= {"blkid", "systemd-ask-password", "systemctl", "sleep"} and "poweroff" in journal


def test_root_and_hashes_of_two_sticks_are_refused(stick):
    second_stick(stick, ("sdb4", "the hashes"))
    (stick / "sys/class/block/dm-0/slaves/sdb4").mkdir()
    refused(stick)


def test_a_second_stick_of_the_same_build_is_refused(stick):
    (stick / "uuids/sda3").write_text("the root")
    second_stick(stick, ("sdb2", "another"), ("sdb3", "the root"))
    refused(stick)


def test_any_other_disk_is_none_of_its_business(stick):
    second_stick(stick, ("sdb1", "another"), ("sdb2", ""))
    code, journal, _asked, _console = boot(stick, PASSPHRASE, PASSPHRASE, "")
    assert code == 0 and "sdb" not in journal.replace("/dev/sdb1", "").replace("/dev/sdb2", "")


@pytest.mark.parametrize("right", [PASSPHRASE, "recovery-key"])
def test_a_later_boot_asks_until_it_opens(stick, right):
    boot(stick, PASSPHRASE, PASSPHRASE, "")
    code, journal, asked, _console = boot(stick, "", "wrong", right)
    assert code == 0 and asked.count("Passphrase or recovery key") == 3
    assert "luksFormat" not in journal and "mkfs" not in journal
    assert journal.index("cryptsetup open") < journal.index("e2fsck") < journal.index("mount")


def test_a_machine_with_too_little_memory_is_told_so(stick):
    boot(stick, PASSPHRASE, PASSPHRASE, "")
    (stick / "poor").touch()
    _code, journal, asked, _console = boot(stick, PASSPHRASE)
    assert "too little memory" in asked and "does not open" not in asked and "mount" not in journal


def test_nothing_starts_without_the_passphrase(stick):
    boot(stick, PASSPHRASE, PASSPHRASE, "")
    code, journal, _asked, _console = boot(stick, "wrong", "", "wrong again")
    assert code != 0 and "mount" not in journal


def test_a_damaged_header_is_no_fresh_stick(stick):
    boot(stick, PASSPHRASE, PASSPHRASE, "")
    (stick / "damaged").touch()
    code, journal, asked, _console = boot(stick, "")
    assert code == 1 and "luksFormat" not in journal and "poweroff" in journal
    assert "damaged. Nothing was changed. Press Enter to power off:" in asked


def test_a_full_stick_says_so(stick):
    (stick / "sys/devices/sda/size").write_text(f"{LAST + 300 * 2048}\n")
    code, journal, asked, _console = boot(stick, "")
    assert code == 1 and "300 MiB are left behind the system, and 512 are needed" in asked
    assert "systemd-repart" not in journal and "poweroff" in journal


def test_nobody_needs_to_sit_there(stick):
    # The stand-in gives one answer a line; systemd's own program would read the credential.
    code, _journal, asked, _console = boot(stick, PASSPHRASE, PASSPHRASE, credential=PASSPHRASE)
    assert code == 0 and "Write the recovery key" not in asked


def test_a_stick_that_forgets_asks_nothing(stick):
    (stick / "proc/cmdline").write_text("quiet roothash=ab\n")
    code, journal, asked, _console = boot(stick)
    assert code == 0 and not asked
    assert f"mount -t tmpfs -o mode=0755 kos-memory {stick}/run/kos/memory" in journal
    assert f"upperdir={stick}/run/kos/memory/upper" in journal
