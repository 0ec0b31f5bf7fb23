# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the first start of a card does, on a stand-in for its machine: programs that keep a journal, and a power cut
after each of them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

MODULES = Path(__file__).parents[2] / "image-builder/kos_image/dracut"
SCRIPT, ASKING = MODULES / "90kos-card/kos-card.sh", MODULES / "90kos-asking/kos-asking.sh"
PASSPHRASE, PARTUUID, LUKS = (
    "correct horse",
    "0b7c8d7e-0000-4000-8000-000000000001",
    "99999999-0000-4000-8000-000000000002",
)
NEW, AGAIN, SAME, WRITE_DOWN = (
    "Choose a passphrase",
    "The same passphrase again",
    "Its passphrase:",
    "Write the recovery",
)

# The partition is a file that begins with what its header says: LUKS, begun or done, its label.
STUBS = {
    "systemd-ask-password": r"""
        for last; do :; done
        echo "$last" >>"$S/asked"
        [ -s "$S/answers" ] || { kill -9 $(cat "$S/pid"); exit 1; }
        case " $* " in *" --no-output "*) ;; *) head -n1 "$S/answers" | tr -d '\n' ;; esac
        sed -i 1d "$S/answers" """,
    "blkid": r"""
        case "$*" in
        *" -O 16777216 "*TYPE*) [ -e "$S/damaged" ] || echo ext4 ;;
        *LABEL*) head -n1 "$S/part" | cut -s -d' ' -f3 ;;
        esac""",
    "cryptsetup": r"""
        at=$(head -n1 "$S/part" | tr -d '\0')
        case "$*" in
        isLuks*) case $at in LUKS*) ;; *) exit 1 ;; esac ;;
        luksDump*) case $at in *begun*) echo "Requirements:	online-reencrypt-v2" ;; *) echo "Flags:" ;; esac ;;
        *--init-only*)
            while [ "$1" != --header ]; do shift; done
            [ ! -e "$2" ] || exit 1
            cat >"$S/key"
            { echo "LUKS begun kos-root-new"; head -c 65536 /dev/zero | tr '\0' k; } >"$2" ;;
        repair*) cmp -s - "$S/key" ;;
        *--resume-only*)
            cmp -s - "$S/key" || exit 2
            echo '{"device":"p","device_bytes":"500","device_size":"1000","speed":"1"}'
            sed -i '1s/begun/done/' "$S/part" ;;
        *--test-passphrase*) cmp -s - "$S/key" ;;
        open*) cmp -s - "$S/key" && touch "$S/open" ;;
        config*) sed -i '1s/kos-root-new/kos-root/' "$S/part" ;;
        esac""",
    "systemd-cryptenroll": r"""
        case $1 in --wipe-slot=recovery) rm -f "$S/recovery"; exit ;; esac
        [ ! -e "$S/recovery" ] && [ "$PASSWORD" = "$(cat "$S/key")" ] || exit 1
        echo recovery-key | tee "$S/recovery" """,
    # What is mounted is a link; a directory has to make room for it.
    "mount": 'for last; do :; done; [ -d "$S/fat" ] && rmdir "$last" && ln -s "$S/fat" "$last"',
    "umount": 'rm "$1" && mkdir "$1"',
    "dd": r"""
        if [ -e "$S/torn" ]; then
            for word; do case $word in count=1) exit 0 ;; bs=32K) set -- "$@" count=1 ;; esac; done
        fi
        exec /usr/bin/dd "$@" """,
    **dict.fromkeys(("udevadm", "systemd-repart", "fstrim", "blockdev", "sync", "systemctl", "sleep"), ":"),
}
# The machine loses its power at the call with the number in $S/cut, when that is done.
STUB = """#!/bin/sh
S={folder}
echo "{name} $*" >>"$S/journal"
({body})
ended=$?
[ "$(cat "$S/cut" 2>/dev/null)" != "$(wc -l <"$S/journal")" ] || kill -9 $(cat "$S/pid")
exit $ended
"""


@pytest.fixture
def card(tmp_path):
    """A card as it was written, and stand-ins for the programs of an initrd."""
    for folder in ("bin", "dev/disk/by-partuuid", "fat", "proc", "run", "sys/class/block"):
        (tmp_path / folder).mkdir(parents=True)
    part = tmp_path / "part"
    part.write_bytes(bytes(1 << 17))
    (tmp_path / "dev/disk/by-partuuid" / PARTUUID).symlink_to(part)
    (tmp_path / "sys/devices/mmcblk0/part").mkdir(parents=True)
    (tmp_path / "sys/class/block/part").symlink_to("../../devices/mmcblk0/part")
    options = "rd.luks.options=discard,tries=0"
    files = {
        "proc/cmdline": f"console=tty0 kos.card={PARTUUID} rd.luks.name={LUKS}=kos-root {options}\n",
        "proc/consoles": "tty0 -WU (EC)\n",
        "proc/meminfo": "MemTotal: 1000000 kB\n",
        "proc/cpuinfo": "processor : 0\n" * 4,
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "dev/tty0").symlink_to("/proc/self/fd/2")
    for name, body in STUBS.items():
        path = tmp_path / "bin" / name
        path.write_text(STUB.format(folder=tmp_path, name=name, body=body))
        path.chmod(0o755)
    return tmp_path


def boot(card, *answers):
    """Run the script; the exit code, the programs it called, what was asked, and what the console shows."""
    (card / "answers").write_text("".join(f"{answer}\n" for answer in answers))
    for name in ("journal", "asked"):
        (card / name).write_text("")
    (card / "open").unlink(missing_ok=True)
    # What is in memory and what is mounted goes with the power.
    subprocess.run(["rm", "-rf", card / "run"], check=True)
    (card / "run").mkdir()
    environ = {"PATH": f"{card / 'bin'}:{os.environ['PATH']}", "KOS_CARD_SYSTEM": str(card), "KOS_ASKING": str(ASKING)}
    start = f'echo $$ >"{card}/pid"; exec sh "{SCRIPT}"'
    done = subprocess.run(["sh", "-c", start], env=environ, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, *((card / name).read_text() for name in ("journal", "asked")), done.stderr


def state(card):
    return (card / "part").read_bytes().partition(b"\n")[0].decode()


def put_file(card, content, name="passphrase"):
    (card / "fat" / name).write_bytes(content)


def test_a_first_start_asks_encrypts_and_opens(card):
    code, journal, asked, console = boot(card, PASSPHRASE, PASSPHRASE, "")
    assert code == 0, journal
    assert state(card) == "LUKS done kos-root" and (card / "open").exists()
    assert (card / "key").read_text() == PASSPHRASE
    assert NEW in asked and "US keyboard" in asked and WRITE_DOWN in asked
    assert "50 % is encrypted" in console and "recovery-key" in console
    # A quarter of the memory, and never what a busy machine measures.
    assert "--pbkdf argon2id --pbkdf-memory 250000 --pbkdf-parallel 4 --pbkdf-force-iterations 4" in journal
    assert f"--uuid {LUKS} " in journal and "--offset 32768 " in journal and "--resilience journal" in journal
    assert PASSPHRASE not in journal


def test_what_makes_the_header_valid_is_written_last(card):
    _code, journal, _asked, _console = boot(card, PASSPHRASE, PASSPHRASE, "")
    written = [line for line in journal.splitlines() if line.startswith("dd ") and "of=" in line and "header" in line]
    assert "skip=1 seek=1" in written[0] and "count=1" in written[1] and all("fsync" in line for line in written)
    assert not list((card / "run/kos").glob("header*"))


def test_the_partition_grows_before_it_is_open(card):
    _code, journal, _asked, _console = boot(card, PASSPHRASE, PASSPHRASE, "")
    calls = [" ".join(line.split()[:2]) for line in journal.splitlines()]
    assert calls.index("systemd-repart --definitions=/usr/share/kos-card/repart.d") < calls.index("cryptsetup open")
    assert calls.index("cryptsetup config") == len(calls) - 2, "what says that all is done comes last"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("passphrase", b"correct horse"),
        ("passphrase", b"correct horse\nand what else\n"),
        ("passphrase.txt", b"\xef\xbb\xbfcorrect horse\r\n"),
    ],
)
def test_a_file_on_the_card_is_as_good_and_is_gone_afterwards(card, name, content):
    put_file(card, content, name)
    code, journal, asked, console = boot(card)
    assert code == 0 and not asked, asked
    assert (card / "key").read_bytes() == b"correct horse" and state(card) == "LUKS done kos-root"
    assert not list((card / "fat").iterdir())
    erased = journal.index("dd if=/dev/zero")
    assert journal.index("--resume-only") < erased, "it is needed until all is encrypted"
    assert f"bs={len(content)} " in journal[erased:] and "conv=notrunc,fsync" in journal[erased:]
    # Nobody is there to write one down.
    assert not (card / "recovery").exists() and "recovery" not in console


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"short\n", "is shorter than 8 characters"), ("correct horse\n".encode("utf-16"), "is not plain text")],
)
def test_a_file_that_could_not_be_typed_is_refused_and_somebody_asked(card, content, why):
    put_file(card, content)
    code, _journal, asked, _console = boot(card, PASSPHRASE, PASSPHRASE, "")
    assert code == 0 and why in asked and (card / "key").read_text() == PASSPHRASE
    assert not list((card / "fat").iterdir())


@pytest.mark.parametrize("first", [("",), ("short",), (PASSPHRASE, "another one")])
def test_no_empty_short_or_mistyped_passphrase_is_taken(card, first):
    code, _journal, asked, _console = boot(card, *first, PASSPHRASE, PASSPHRASE, "")
    assert code == 0 and (card / "key").read_text() == PASSPHRASE
    assert "shorter than 8 characters" in asked or "not the same" in asked


def test_nothing_is_written_before_a_passphrase_is_chosen(card):
    code, journal, _asked, _console = boot(card, "short")
    assert code == -9 and state(card).startswith("\0") and "reencrypt" not in journal


def test_a_later_start_leaves_all_to_systemd(card):
    boot(card, PASSPHRASE, PASSPHRASE, "")
    code, journal, asked, _console = boot(card)
    assert code == 0 and not asked and not (card / "open").exists()
    assert {line.split()[0] for line in journal.splitlines()} == {"udevadm", "cryptsetup", "blkid"}


def test_a_damaged_header_is_no_fresh_card(card):
    boot(card, PASSPHRASE, PASSPHRASE, "")
    (card / "part").write_bytes(bytes(1 << 17))
    (card / "damaged").touch()
    code, journal, asked, _console = boot(card, "")
    assert code == 1 and "damaged. Nothing was changed" in asked
    assert "reencrypt" not in journal and "dd " not in journal and "poweroff" in journal


def test_a_header_that_was_torn_is_made_anew(card):
    (card / "torn").touch()
    (card / "cut").write_text("9")
    boot(card, PASSPHRASE, PASSPHRASE, "")
    assert b"k" in (card / "part").read_bytes() and state(card).startswith("\0"), "its slots, and nothing that is valid"
    (card / "torn").unlink()
    (card / "cut").unlink()
    code, _journal, asked, _console = boot(card, "another passphrase", "another passphrase", "")
    assert code == 0 and NEW in asked and (card / "key").read_text() == "another passphrase"
    assert state(card) == "LUKS done kos-root"


def test_what_goes_on_wants_the_passphrase_that_was_chosen(card):
    cut_at(card, "cryptsetup repair")
    code, _journal, asked, _console = boot(card, "", "wrong", PASSPHRASE, "")
    assert code == 0 and NEW not in asked and asked.count(SAME) == 3 and "not the one that was chosen" in asked
    assert state(card) == "LUKS done kos-root"


def cut_at(card, call):
    """A first start that loses power after this call; a first one tells which number that has."""
    _code, journal, _asked, _console = boot(card, PASSPHRASE, PASSPHRASE, "")
    number = next(number for number, line in enumerate(journal.splitlines(), 1) if line.startswith(call))
    (card / "part").write_bytes(bytes(1 << 17))
    (card / "recovery").unlink(missing_ok=True)
    (card / "cut").write_text(str(number))
    assert boot(card, PASSPHRASE, PASSPHRASE, "")[0] == -9
    (card / "cut").unlink()


@pytest.mark.parametrize("by", ["typed", "file"])
def test_wherever_power_fails_the_next_start_ends_it(card, by):
    """After each program that is called, which is before the next one."""
    whole = (card / "part").read_bytes()
    answers = (PASSPHRASE, PASSPHRASE, "") if by == "typed" else ()

    def fresh():
        (card / "part").write_bytes(whole)
        (card / "recovery").unlink(missing_ok=True)
        (card / "cut").unlink(missing_ok=True)
        if by == "file":
            put_file(card, PASSPHRASE.encode())

    fresh()
    calls = len(boot(card, *answers)[1].splitlines())
    assert calls > 15
    for number in range(1, calls + 1):
        fresh()
        (card / "cut").write_text(str(number))
        assert boot(card, *answers)[0] == -9
        (card / "cut").unlink()
        if state(card) == "LUKS done kos-root":
            assert number >= calls - 1
            continue
        begun = state(card).startswith("LUKS")
        # A file of which only zeros are left is as good as none.
        asks = by == "typed" or not any(path.read_bytes().strip(b"\0") for path in (card / "fat").iterdir())
        again = [] if not asks else [PASSPHRASE, ""] if begun else [PASSPHRASE, PASSPHRASE, ""]
        code, journal, asked, _console = boot(card, *again)
        assert code == 0, (number, journal, asked)
        assert state(card) == "LUKS done kos-root" and (card / "open").exists()
        assert (card / "key").read_text() == PASSPHRASE
        assert not list((card / "fat").iterdir())
        assert (card / "recovery").exists() == asks, number
