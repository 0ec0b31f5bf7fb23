# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole install, against writing the same number of bytes in one go onto the same encrypted partition.

Both happen in one start of one emulated machine, one after the other: the install by the stick's own unattended door,
then the floor by a script that systemd takes from a credential.
"""

from __future__ import annotations

import re
import secrets
import sys
import tempfile
import time
from pathlib import Path

from measure import ROOT, Result

sys.path.insert(0, str(ROOT / "tests" / "e2e"))

import mediums
from benches import INSTALLS, Bench
from mediabuilds import Builder

_BLOCK = 4 << 20
# Of /sys/block/DISK/stat the seventh field is what was written, in sectors of 512 bytes (the kernel's
# Documentation/block/stat.rst).
_FLOOR = f"""\
set -eu
until [ "$(systemctl show -P ExecMainExitTimestampMonotonic kos-unattended.service)" != 0 ]; do sleep 1; done
written=$(($(awk '{{print $7}}' /sys/block/vda/stat) * 512))
cryptsetup open --key-file /run/credentials/@system/kos.passphrase /dev/disk/by-partlabel/kos-root floor
sync
began=$(date +%s.%N)
dd if=/dev/zero of=/dev/mapper/floor bs={_BLOCK} count=$((written / {_BLOCK})) oflag=direct conv=fsync status=none
ended=$(date +%s.%N)
echo "FLOOR $written $began $ended END" >/dev/console
"""
_UNIT = (
    "[Service]\nType=oneshot\nExecStart=/bin/bash /run/credentials/@system/floor.sh\nStandardError=journal+console\n"
)
_CREDENTIALS = {
    "floor.sh": _FLOOR,
    "systemd.extra-unit.floor.service": _UNIT,
    "systemd.unit-dropin.multi-user.target~floor": "[Unit]\nWants=floor.service\n",
}
_STEP = r"\[\d+/\d+\] (\S+): (started|done)"


def steps(machine: mediums.Machine) -> tuple[float, dict[str, float]]:
    """Seconds from the first action until all is done, and of each action, by the clock of this machine.

    They are told on the serial line.
    """
    took: dict[str, float] = {}
    first = began = 0.0
    while True:
        found = machine.wait(rf"{_STEP}|Installed: |FAILED: .*", INSTALLS)
        now = time.monotonic()
        if found[0].startswith("FAILED"):
            sys.exit(f"the install failed: {found[0]}")
        if found[0].startswith("Installed"):
            return now - first, took
        if found[2] == "started":
            first, began = first or now, now
        else:
            took[found[1]] = now - began


def installs() -> tuple[list[Result], list[str]]:
    """One run; what the table shows, and where the time went."""
    with tempfile.TemporaryDirectory(prefix="kos-bench-", dir="/var/tmp") as name:
        folder = Path(name)
        builder = Builder(folder)
        bench = Bench(mediums.Media("bench"), builder, builder.stick(folder), folder, secrets.token_hex(12))
        bench.fresh()
        with bench.installing(bench.answers(after="wait"), credentials=_CREDENTIALS) as machine:
            whole, took = steps(machine)
            written, began, ended = machine.wait(r"FLOOR (\d+) ([\d.]+) ([\d.]+) END", INSTALLS).groups()
    raw = float(ended) - float(began)
    rows = [
        f"{int(written) >> 20} MiB were written; raw that takes {raw:.0f} s, the install {whole:.0f} s: ",
        ", ".join(f"{name} {seconds:.0f} s ({seconds / raw:.2f}×)" for name, seconds in took.items()),
    ]
    found = re.sub(r"\s+", " ", " ".join(rows))
    return [Result("whole install / raw write of the same bytes", "≤ 1.25", [whole / raw], [])], [found]
