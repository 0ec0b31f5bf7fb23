# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Boot entries of numbered roots: which is started, and that a power cut at any moment leaves one that starts."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import bootloaders
import pytest
from bootloaders import PowerCuts, Started

from ansible_collections.kind.kos.plugins.module_utils.node.machine import fatfiles, grubstate, slots, uki
from ansible_collections.kind.kos.plugins.module_utils.node.machine.slots import Entry, NoSuchSlot

STARTS = {"entries": bootloaders.systemd_boot, "uki": bootloaders.systemd_boot, "grub": bootloaders.grub}


@pytest.fixture(autouse=True)
def _no_ukify(monkeypatch):
    @contextlib.contextmanager
    def built(kernel, initrd, arguments, title, number, key):
        program = Path(kernel).with_name("program.efi")
        program.write_bytes(
            b"MZ" + Path(kernel).read_bytes() + Path(initrd).read_bytes() + " ".join(arguments).encode()
        )
        yield str(program)

    monkeypatch.setattr(uki, "built", built)


@pytest.fixture(params=slots.KINDS)
def kind(request):
    return request.param


@pytest.fixture
def esp(tmp_path, kind):
    folder = tmp_path / "esp"
    folder.mkdir()
    if kind == "grub":
        fatfiles.write(str(folder / "grub/grub.cfg"), grubstate.configuration().encode())
    slot(folder, kind, 1, tries=None)
    slots.publish(str(folder), 1)
    return folder


def entry(folder: Path, number: int, tries: int | None = 3) -> Entry:
    for name in ("kernel", "initrd"):
        (folder.parent / f"{name}.{number}").write_bytes(f"{name} of {number} ".encode() * 50)
    sources = (str(folder.parent / f"{name}.{number}") for name in ("kernel", "initrd"))
    return Entry(number, f"kOS, slot {number}", *sources, ["rw", f"rootflags=subvol=@root.{number}"], tries)


def slot(folder: Path, kind: str, number: int, tries: int | None = 3) -> None:
    slots.stage(str(folder), entry(folder, number, tries), kind)


def started(kind: str, folder: Path) -> list[int]:
    """The slots in the order in which they are tried; one whose files are not whole is 0."""
    numbers = []
    for found in STARTS[kind](folder):
        number = next((n for n in range(1, 9) if f"kernel of {n} ".encode() in found.kernel), 0)
        numbers.append(number if found in expected(folder, kind, number) else 0)
    return numbers


def expected(folder: Path, kind: str, number: int) -> list[Started]:
    if number == 0:
        return []
    parts = [f"{name} of {number} ".encode() * 50 for name in ("kernel", "initrd")]
    arguments = f"rw rootflags=subvol=@root.{number} kos.slot={number}"
    if kind == "uki":
        return [Started(b"MZ" + parts[0] + parts[1] + arguments.encode())]
    return [Started(*parts, "" if kind == "grub" else arguments)]


def test_a_staged_slot_is_not_started_and_a_published_one_is_first(esp, kind):
    slot(esp, kind, 2)
    assert started(kind, esp) == [1]
    slots.publish(str(esp), 2)
    assert started(kind, esp) == [2, 1]


def test_the_highest_number_is_first_however_many_digits_it_has(esp, kind):
    for number in (2, 9, 10):
        if number != 9:
            slots.stage(str(esp), replace(entry(esp, number % 8 or 8), number=number), kind)
            slots.publish(str(esp), number)
            slots.bless(str(esp), number)
    listed = slots.listing(str(esp))
    assert [row.number for row in listed] == [1, 2, 10]
    assert all(row.good or kind == "grub" for row in listed)


def test_a_slot_without_tries_left_comes_last(esp, kind):
    slot(esp, kind, 2, tries=1)
    slots.publish(str(esp), 2)
    count_down(esp, kind, 2)
    assert started(kind, esp)[0] == 1
    (failed,) = [row for row in slots.listing(str(esp)) if row.number == 2]
    assert (failed.left, failed.done, failed.good) == (0, 1, False)


def count_down(esp: Path, kind: str, number: int) -> None:
    """What the boot loader does before it starts a slot that is on trial."""
    (row,) = [row for row in slots.listing(str(esp)) if row.number == number]
    if kind == "grub":
        grubstate.write(str(esp), replace(grubstate.read(str(esp)), tries=row.left - 1))
    else:
        path = Path(row.path)
        path.rename(path.with_name(f"kos-{number}+{row.left - 1}-{row.done + 1}{path.suffix}"))


def test_a_blessed_slot_counts_no_more(esp, kind):
    slot(esp, kind, 2)
    slots.publish(str(esp), 2)
    count_down(esp, kind, 2)
    slots.bless(str(esp), 2)
    assert started(kind, esp) == [2, 1]
    assert [(row.number, row.good) for row in slots.listing(str(esp))] == [(1, True), (2, True)]
    slots.bless(str(esp), 2)


def test_a_failed_attempt_does_not_spoil_the_next(esp, kind):
    """Complaint 17."""
    slot(esp, kind, 2, tries=1)
    slots.publish(str(esp), 2)
    count_down(esp, kind, 2)
    slots.remove(str(esp), 2)
    slot(esp, kind, 3)
    slots.publish(str(esp), 3)
    assert started(kind, esp) == [3, 1]


def test_a_rejected_slot_leaves_the_start_to_the_one_before(esp, kind):
    slot(esp, kind, 2)
    slots.publish(str(esp), 2)
    slots.bless(str(esp), 2)
    slots.reject(str(esp), 2)
    assert started(kind, esp)[0] == 1
    slots.bless(str(esp), 2)
    assert started(kind, esp)[0] == 2


def test_the_only_slot_that_came_up_well_stays(esp, kind):
    slot(esp, kind, 2)
    slots.publish(str(esp), 2)
    for verb in (slots.remove, slots.reject):
        with pytest.raises(NoSuchSlot, match="slot 1 stays"):
            verb(str(esp), 1)


def test_a_published_slot_is_never_written_over(esp, kind):
    with pytest.raises(NoSuchSlot, match="a new attempt takes a new number"):
        slot(esp, kind, 1)


def test_an_entry_takes_no_line_break(esp):
    with pytest.raises(NoSuchSlot, match="no line break"):
        replace(entry(esp, 2), title="kOS\nlinux /evil")


def test_a_full_partition_refuses_before_anything_is_written(esp, kind, monkeypatch):
    monkeypatch.setattr(fatfiles, "_MARGIN", 1 << 60)
    with pytest.raises(fatfiles.NotOnFat, match="MiB free"):
        slot(esp, kind, 2)
    assert [row.number for row in slots.listing(str(esp))] == [1]


def replayed(esp, kind, tmp_path, work) -> list[list[int]]:
    with PowerCuts(esp, tmp_path / "states") as cuts:
        work()
    return [started(kind, state) for state in cuts.all()]


def test_a_power_cut_while_staging_and_publishing_starts_the_old_or_the_new(esp, kind, tmp_path):
    def work():
        slot(esp, kind, 2)
        slots.publish(str(esp), 2)

    seen = replayed(esp, kind, tmp_path, work)
    assert len(seen) >= 7
    assert seen[0] == [1]
    assert seen[-1] == [2, 1]
    # Once the new one is first it stays so, and until then it is not there at all.
    assert seen == sorted(seen, key=len)
    assert set(map(tuple, seen)) == {(1,), (2, 1)}


def test_a_power_cut_while_removing_starts_the_other(esp, kind, tmp_path):
    slot(esp, kind, 2)
    slots.publish(str(esp), 2)
    slots.bless(str(esp), 2)
    seen = replayed(esp, kind, tmp_path, lambda: slots.remove(str(esp), 1))
    assert {row[0] for row in seen} == {2}
    assert seen[-1] == [2]


def test_a_power_cut_while_removing_the_newest_starts_a_whole_one(esp, kind, tmp_path):
    slot(esp, kind, 2)
    slots.publish(str(esp), 2)
    slots.bless(str(esp), 2)
    seen = replayed(esp, kind, tmp_path, lambda: slots.remove(str(esp), 2))
    assert all(row[0] in (1, 2) for row in seen)
    assert seen[-1] == [1]


def test_an_interrupted_attempt_is_made_again(esp, kind, tmp_path):
    with PowerCuts(esp, tmp_path / "states") as cuts:
        slot(esp, kind, 2)
    for state in cuts.all():
        slots.stage(str(state), entry(esp, 2), kind)
        slots.publish(str(state), 2)
        assert started(kind, state) == [2, 1]


def test_the_replay_finds_a_switch_that_is_not_safe(esp, kind, tmp_path):
    """The control: writing the new one over the old one is caught."""

    def work():
        target = esp / ("EFI/Linux/kos-1.efi" if kind == "uki" else "kos/1/linux")
        fatfiles.write(str(target), b"MZ" + b"another one" * 50)

    assert any(row in ([], [0]) for row in replayed(esp, kind, tmp_path, work))
