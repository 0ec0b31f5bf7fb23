# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Installs that write nothing: a described machine, recorded progress, and an engine for them."""

from __future__ import annotations

from kos_install.engine import replay
from kos_install.engine.engine import Engine
from kos_install.engine.history import History
from kos_install.hardware.model import Disk, Machine, Nic, Partition

CANARY = "correct horse battery staple"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKl0Xh3u0N5fQ0a1Vn9s8w7QyqkZ2k9rj3m4c5d6e7f8 anna@home"
RECOVERY = "-".join(["cbdefghi", "jklnrtuv"] * 4)
WINDOWS = Disk(
    path="/dev/nvme0n1",
    size=512110190592,
    model="Samsung SSD 980 PRO",
    serial="S5GXNX0T",
    bus="nvme",
    table="gpt",
    partitions=[
        Partition(number=1, start=1048576, size=104857600, uuid="a1", filesystem="vfat", holds="filesystem"),
        Partition(number=2, start=105906176, size=400 * 10**9, uuid="a2", os="Windows 11", filesystem="ntfs"),
    ],
)
BLANK = Disk(path="/dev/sda", size=2000398934016, model="WDC WD20EFRX", serial="WD-1", bus="sata", rotational=True)
STICK = Disk(
    path="/dev/sdb", size=31914983424, model="Ultra Fit", serial="4C53", bus="usb", removable=True, medium=True
)
SMALL = Disk(path="/dev/sdc", size=4 * 10**9, model="Flash", serial="77", bus="usb", removable=True)
DESK = Machine(
    tpm2=True,
    cpu=8,
    memory_mb=15900,
    nics=[Nic(name="enp3s0", mac="52:54:00:12:34:56", carrier=True), Nic(name="wlp2s0", wireless=True)],
    disks=[WINDOWS, BLANK, STICK, SMALL],
    name="desk",
)
ANSWERS = {"version": 1, "storage": {"disk": {"serial": "WD-1"}}, "user": {"ssh_keys": [KEY]}}
RECORDED = [
    {"kind": "wipe", "log": "$ wipefs --all /dev/sda"},
    {"kind": "luks", "recovery_key": RECOVERY},
    {"kind": "luks", "log": f"a careless program said {CANARY} and {RECOVERY}"},
    {"kind": "unpack", "done": 1300000000, "total": 2600000000, "unit": "bytes"},
]


class Told:
    """An engine without a socket, whose work is done before it answers, and all that it tells."""

    def __init__(self, recorded=RECORDED, machine=DESK, interrupted=None, world=None):
        self.events = []
        self.history = History(self.events.append)
        self.engine = Engine(world or replay.world(machine, recorded, interrupted), self.history, lambda work: work())
        self.engine.begin()

    def ask(self, do, **fields):
        """Ask, and what was told since."""
        before = len(self.events)
        self.engine.request({"do": do, **fields})
        return self.events[before:]

    def planned(self, answers=ANSWERS):
        """The plan of some answers."""
        self.ask("answer", answers=answers)
        self.ask("secret", name="passphrase", value=CANARY)
        return self.ask("plan")[0]

    def confirmed(self):
        """All that an install tells, from the confirmation on."""
        plan = self.planned()
        return self.ask("confirm", digest=plan["digest"], typed=[disk["model"] for disk in plan["wipes"]])


def names(events):
    """What the events are called, without repetitions."""
    found = [event["event"] for event in events]
    return [name for place, name in enumerate(found) if not place or found[place - 1] != name]
