# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is answered and whatever machine it is: a plan that holds together, or a refusal. Never a traceback."""

from __future__ import annotations

from itertools import pairwise

import golden_installs
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from ansible_collections.kind.kos.plugins.module_utils.node.machine import system_layout as names
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError, Place
from ansible_collections.kind.kos.plugins.plugin_utils.models import parse
from ansible_collections.kind.kos.plugins.plugin_utils.profile import Minimum
from kos_install.answers import Answers
from kos_install.errors import Unplannable
from kos_install.hardware.model import Disk, Machine, Nic, Partition
from kos_install.storage.actions import Table, digest_of
from kos_install.storage.picture import picture
from kos_install.storage.plan import Circumstances, plan, wiped
from kos_install.storage.sizes import MIB
from kos_install.storage.words import said

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1MsiQkIu9hP8d3NDsnYePyb+jsvjdbXStCxmYeDSpP somebody@somewhere"
_SOME = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
_LAYOUTS = ("whole_disk", "free_space", "mirror")
_words = st.sampled_from(["", "S1", "S2", "S3", "disk", "Ж"])
_sizes = st.one_of(st.integers(0, 4 * 10**13), st.sampled_from([0, 8 * 10**9, 12 * 10**9, 512 * 10**9]))
_holds = st.sampled_from(["", "luks", "raid", "lvm", "zfs", "swap", "filesystem", "bcache", "bitlocker"])
_uuids = st.sampled_from(["", *(f"00000000-0000-4000-8000-00000000000{n}" for n in range(8))])


@st.composite
def _partitions(draw, size):
    """A table as it is found in the world: gaps, no alignment, and now and then partitions that overlap."""
    found, at = [], 17408
    for number in draw(st.lists(st.integers(1, 128), unique=True, max_size=6)):
        start = max(0, at + draw(st.integers(-MIB, 20 * 10**9)))
        length = draw(st.integers(512, 40 * 10**9))
        kind = draw(st.sampled_from(["", *names.TYPES.values()]))
        label = draw(st.sampled_from(["", "kos-root", "Basic data partition"]))
        found.append(Partition(number=number, start=start, size=length, type=kind, uuid=draw(_uuids), label=label,
                               holds=draw(_holds), fs_uuid=draw(_uuids)))  # fmt: skip
        at = start + length
        if at > size and draw(st.booleans()):
            break
    return found


@st.composite
def _good_disks(draw):
    """Disks that nothing speaks against, with whatever on them; and a medium."""
    found = []
    for number in range(1, draw(st.integers(1, 3)) + 1):
        size = draw(st.integers(8 * 10**9, 4 * 10**12))
        table = draw(st.sampled_from(["", "gpt", "gpt"]))
        disk = Disk(
            path=f"/dev/vd{number}",
            size=size,
            serial=f"S{number}",
            table=table,
            sector=draw(st.sampled_from([512, 4096])),
        )
        parts = [part.model_copy(update={"label": ""}) for part in draw(_partitions(size))] if table else []
        found.append(disk.model_copy(update={"partitions": parts}))
    return [*found, Disk(path="/dev/sda", size=10**10, serial="M", medium=True)]


@st.composite
def _disks(draw):
    number = draw(st.integers(0, 4))
    found = []
    for letter in "abcd"[:number]:
        size = draw(_sizes)
        table = draw(st.sampled_from(["", "gpt", "dos"]))
        found.append(Disk(
            path=f"/dev/sd{letter}", size=size, serial=draw(_words), model=draw(_words), table=table,
            sector=draw(st.sampled_from([512, 4096])), removable=draw(st.booleans()), read_only=draw(st.booleans()),
            medium=draw(st.booleans()), bus=draw(st.sampled_from(["", "usb", "sata", "nvme"])), holds=draw(_holds),
            partitions=draw(_partitions(size)) if table else [], by_id=[f"id-{letter}"] if draw(st.booleans()) else [],
            holders=draw(st.lists(st.sampled_from(["md0", "vg-a"]), max_size=2)),
        ))  # fmt: skip
    return found


_machines = st.one_of(
    st.sampled_from([golden_installs.machine(name) for name in golden_installs.names()]),
    st.builds(
        Machine,
        architecture=st.sampled_from(["amd64", "arm64"]),
        firmware=st.sampled_from(["uefi", "bios"]),
        secure_boot=st.sampled_from(["on", "setup", "off"]),
        tpm2=st.booleans(),
        fido2=st.booleans(),
        cpu=st.integers(1, 300),
        memory_mb=st.integers(0, 4 << 20),
        nics=st.lists(st.builds(Nic, name=st.sampled_from(["eth0", "wlan0"]), wireless=st.booleans()), max_size=2),
        disks=_disks(),
    ),
)
_selectors = st.fixed_dictionaries(
    {},
    optional={
        "serial": _words,
        "path": st.sampled_from(["/dev/sda", "/dev/sdb", "/dev/nvme0n1", "/dev/vda"]),
        "min_gb": st.integers(1, 5000),
        "bus": st.sampled_from(["nvme", "sata", "usb"]),
    },
)
_secrets = st.sampled_from([{"prompt": True}, {"credential": "x"}, {"file": "y"}])
_asked = st.fixed_dictionaries(
    {"version": st.just(1), "user": st.just({"ssh_keys": [KEY]})},
    optional={
        "storage": st.fixed_dictionaries(
            {"disk": _selectors},
            optional={
                "layout": st.sampled_from(["whole_disk", "free_space", "mirror"]),
                "second": _selectors,
                "data": _selectors,
            },
        ),
        "encryption": st.fixed_dictionaries(
            {"passphrase": _secrets},
            optional={
                "argon2id": st.fixed_dictionaries({"memory_kib": st.integers(32, 4 << 20)}),
                "tpm2": st.fixed_dictionaries({}, optional={"pin": _secrets}),
                "fido2": st.booleans(),
                "recovery_key": st.booleans(),
                "secure_boot": st.sampled_from(["stock", "own"]),
            },
        ),
        "network": st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "match": st.sampled_from(["en*", "wl*", "eth0"]),
                    "wifi": st.fixed_dictionaries({"ssid": st.just("home"), "passphrase": _secrets}),
                },
            ),
            max_size=2,
        ),
        "keyboard": st.sampled_from(["us", "de"]),
        "accept_shortfall": st.lists(st.sampled_from(["cpu", "memory", "disk"]), max_size=3),
        "confirm": st.fixed_dictionaries({"wipe": st.lists(_words, max_size=3)}),
    },
)
_circumstances = st.builds(
    Circumstances,
    attended=st.booleans(),
    test=st.booleans(),
    minimum=st.one_of(st.none(), st.builds(Minimum, disk_gb=st.integers(1, 600), memory_mb=st.integers(1, 64000))),
)


@st.composite
def _likely(draw):
    """Answers that name disks of the machine and ask for little, so that most of them are planned."""
    firmware = st.sampled_from(["uefi", "uefi", "bios"])
    here = draw(st.one_of(_machines, *[st.builds(Machine, firmware=firmware, disks=_good_disks())] * 4))
    paths = [disk.path for disk in here.disks if not disk.medium] or ["/dev/sda"]
    storage = {"disk": {"path": draw(st.sampled_from(paths))}, "layout": draw(st.sampled_from(_LAYOUTS))}
    others = [path for path in paths if path != storage["disk"]["path"]] or ["/dev/sdz"]
    if storage["layout"] == "mirror":
        storage["second"] = {"path": draw(st.sampled_from(others))}
    elif draw(st.booleans()):
        storage["data"] = {"path": draw(st.sampled_from(others))}
    known = [name for disk in here.disks for name in (disk.serial, *disk.by_id) if name]
    asked = {"version": 1, "user": {"ssh_keys": [KEY]}, "storage": storage, "confirm": {"wipe": known}}
    asked["encryption"] = {"passphrase": {"credential": "x"}, "recovery_key": draw(st.booleans())}
    return asked, here.model_copy(update={"memory_mb": max(here.memory_mb, 1024)})


@given(_likely(), st.booleans())
@_SOME
def test_a_plan_that_holds_together(case, attended):
    outcome(*case, Circumstances(attended=attended))


@given(_asked, _machines, _circumstances)
@_SOME
def test_a_plan_that_holds_together_or_a_refusal(asked, machine, circumstances):
    outcome(asked, machine, circumstances)


def outcome(asked, machine, circumstances):
    try:
        answers = parse(Answers, asked, lambda _path: Place("answers"))
        made = plan(answers, machine, circumstances)
    except (ConfigurationError, Unplannable) as error:
        assert str(error)
        event(f"refused: {type(error).__name__}")
        return
    event(f"planned: {answers.storage.layout}")
    holds_together(answers, machine, made, circumstances)


def holds_together(answers, machine, made, circumstances):
    """All that is true of every plan."""
    ids = [action.id for action in made.actions]
    assert len(set(ids)) == len(ids)
    for number, action in enumerate(made.actions):
        assert set(action.needs) <= set(ids[:number]), f"{action.id} needs what comes later"
        assert said(action) and digest_of(action)
    assert ids[-1] == "finish" and made.actions[-2].kind == "verify"
    # Who resumes is not asked again: by then every disk is what the plan made of it.
    kinds = [action.kind for action in made.actions]
    assert not {"release", "wipe", "table"} & set(kinds[kinds.index("journal") :])
    tables = [action for action in made.actions if isinstance(action, Table)]
    disks = {disk.path: disk for disk in machine.disks}
    for table in tables:
        laid_out(table, disks[table.disk.path])
    targets = [action.disk for action in made.actions if action.kind in ("release", "wipe", "table")]
    for target in targets:
        disk = disks[target.path]
        assert (target.serial, target.size) == (disk.serial, disk.size) and not disk.medium and not disk.read_only
    assert wiped(made) == [table.disk.path for table in tables if table.wipe]
    assert answers.storage.layout != "free_space" or tables[0].disk.path not in wiped(made)
    if not circumstances.attended:
        confirmed = set(answers.confirm.wipe)
        assert all({disks[path].serial, *disks[path].by_id} & confirmed for path in wiped(made))
    devices(made, tables)
    assert all(len(line) <= 79 for line in picture(machine, made).splitlines())
    assert type(made).model_validate_json(made.model_dump_json()).digest() == made.digest()


def laid_out(table, disk):
    """Nothing overlaps, nothing reaches beyond the disk, what stays is exactly what was there."""
    assert table.make and all(part.start % MIB == 0 and part.size % MIB == 0 and part.size > 0 for part in table.make)
    before = {(part.number, part.start, part.size, part.uuid) for part in disk.partitions}
    assert {(part.number, part.start, part.size, part.uuid) for part in table.preserve} == (
        set() if table.wipe else before
    )
    numbers = [part.number for part in (*table.make, *table.preserve)]
    assert len(set(numbers)) == len(numbers)
    for one in table.make:
        assert one.start >= MIB and one.start + one.size <= disk.size - MIB
        for other in table.preserve:
            assert one.start + one.size <= other.start or other.start + other.size <= one.start
    for one, other in pairwise(table.make):
        assert one.start + one.size <= other.start
    labels = [part.label for part in table.make]
    assert len(set(labels)) == len(labels) and all(label.startswith("kos-") for label in labels)


def devices(made, tables):
    """Every partition that is written to is one that was made, or the ESP that is shared."""
    ours = {f"/dev/disk/by-partuuid/{part.uuid}" for table in tables for part in table.make}
    shared = {f"/dev/disk/by-partuuid/{part.uuid}" for table in tables for part in table.preserve if part.shared}
    for action in made.actions:
        if action.kind in ("journal", "luks", "fat"):
            assert action.device in ours
        if action.kind == "boot":
            assert set(action.esps) <= ours | shared and action.esps
            assert action.shared_esp == bool(shared)
    opened = {f"/dev/mapper/{action.name}" for action in made.actions if action.kind == "luks"}
    used = {device for action in made.actions if action.kind == "btrfs" for device in action.devices}
    assert opened == used
