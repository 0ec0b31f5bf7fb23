# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running node switches, on a real FAT and a real btrfs, by its own code: a power cut is replayed over it.

    python3 disknode.py CODE DEVICE NUMBER [unsynced]    # two generations, then a system: snapshot, files, boot entry
    python3 disknode.py CODE --judge DEVICE COUNT SIZE   # what each of many crashed disks has, as Linux mounts it

CODE is a folder with kos_node. What a system or generation consists of follows from its number alone.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile

import diskswitch

ESP, TOP, CANDIDATE, SEEN = "/run/esp", "/run/kos/top", "/run/kos/candidate", "/run/crashed"
VERSION = "6.12"
_PROGRAM = "usr/bin/program"


def files_of(number: int) -> dict[str, bytes]:
    """The root of system `number`."""
    return {
        f"boot/vmlinuz-{VERSION}": diskswitch.content("kernel", number),
        f"boot/initrd.img-{VERSION}": diskswitch.content("initrd", number),
        _PROGRAM: f"program of {number} ".encode() * 20_000,
    }


def generation_of(number: int) -> dict[str, bytes]:
    """The files of generation `number`."""
    manifest = {"profile": "switch", "services": [], "number": number}
    return {"manifest.json": json.dumps(manifest).encode(), "tree/settings": f"setting {number}\n".encode() * 5000}


def deploy(root, number: int) -> None:
    """Make generation `number` the current one, in the order of transaction.commit. Raises NodeError, OSError."""
    from kos_node import history, merkle, store

    content, packed = generation_of(number), io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, data in content.items():
            row = tarfile.TarInfo(name)
            row.size = len(data)
            archive.addfile(row, io.BytesIO(data))
    identity = merkle.root((name, merkle.digest(data)) for name, data in content.items())
    stored = store.add(root, packed.getvalue(), identity, "")
    assert stored.number == number, stored.number
    store.point_current(root, number)
    history.record(root, number, identity, "committed")
    store.prune(root, keep=2)


def switch(device: str, number: int, unsynced: bool) -> None:
    """Deploy twice to the system before, then make system `number` of it, and what boots. Raises NodeError, OSError."""
    from kos_node import candidate, slots, system, system_update, systems
    from kos_node.files import Root

    memory, first = Root(f"{TOP}/@var"), number == 1
    if first:
        subprocess.run(["btrfs", "--quiet", "subvolume", "create", f"{TOP}/@root.1"], check=True)
    else:
        for generation in (2 * number - 3, 2 * number - 2):
            deploy(Root(f"{TOP}/@root.{number - 1}"), generation)
        systems.save(memory, systems.load(memory).put(number, systems.Known(number)))
        candidate.snapshot(number - 1, number)
    with _entered(device, number):
        for name, content in files_of(number).items():
            path = os.path.join(CANDIDATE, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as stream:
                stream.write(content)
        # Which kernel is the newest is asked of a tool of Debian's that is not in this root.
        candidate.inside = lambda _argv, check=True: VERSION
        if unsynced:
            system.run = lambda _argv, **_how: None
        made = candidate.as_it_is(number)
        entry = system_update.entry_of(number, number, made, diskswitch.arguments(number))
        slots.stage(ESP, entry, "entries")
    systems.save(memory, systems.load(memory).put(number, systems.Known(number, state="published")))
    slots.publish(ESP, number)
    slots.bless(ESP, number)
    for slot in slots.listing(ESP):
        if slot.number < number - 1:
            slots.remove(ESP, slot.number)
            candidate.delete(slot.number)


@contextlib.contextmanager
def _entered(device: str, number: int):
    os.makedirs(CANDIDATE, exist_ok=True)
    subprocess.run(["mount", "-o", f"subvol=@root.{number}", device, CANDIDATE], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", CANDIDATE], check=True)


def judge(device: str, count: int, size: int) -> None:
    """Tell of each disk: its systems, whether all of each is whole, its generation, and what it remembers."""
    os.makedirs(SEEN, exist_ok=True)
    for index in range(count):
        where = ["--offset", str(index * size), "--sizelimit", str(size)]
        said = subprocess.run(["losetup", "--find", "--show", *where, device], check=True, capture_output=True)
        loop = said.stdout.decode().strip()
        try:
            mounted = (
                subprocess.run(["mount", "-t", "btrfs", "-o", "subvolid=5", loop, SEEN], check=False).returncode == 0
            )
            found = _looked() if mounted else None
            if mounted:
                subprocess.run(["umount", SEEN], check=True)
        finally:
            subprocess.run(["losetup", "--detach", loop], check=True)
            subprocess.run(["btrfs", "device", "scan", "--forget"], check=False, capture_output=True)
        print(json.dumps(found), flush=True)


def _looked():
    from kos_node import systems
    from kos_node.files import Root

    found = {"last": systems.load(Root(f"{SEEN}/@var")).last if os.path.isdir(f"{SEEN}/@var") else 0, "systems": {}}
    for number in systems.subvolumes(SEEN):
        top = f"{SEEN}/@root.{number}"
        whole = _same(top, files_of(number))
        found["systems"][number] = {"whole": whole, "generation": _generation(Root(top))}
    return found


def _generation(root):
    """The number of the current one; -1 for one that is not whole, 0 for none."""
    from kos_node import history, store

    here = root.state("current")
    if not os.path.islink(here):
        return 0
    number = int(os.path.basename(os.readlink(here)))
    history.read(root)
    same = _same(root.state("generations", str(number)), generation_of(number))
    return number if same and store.load(root, number).manifest["number"] == number else -1


def _same(folder: str, content: dict[str, bytes]) -> bool:
    """Whether a folder has these files, to the byte."""
    for name, data in content.items():
        try:
            with open(os.path.join(folder, name), "rb") as stream:
                if stream.read() != data:
                    return False
        except OSError:
            return False
    return True


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    if sys.argv[2] == "--judge":
        judge(sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
    else:
        switch(sys.argv[2], int(sys.argv[3]), "unsynced" in sys.argv[4:])
