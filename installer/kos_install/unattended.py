# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An install that nobody watches: where its answers are looked for on a medium that starts, and what it tells.

Answers come in the system credential ``kos.answers``, or as answers.yaml on the one partition labelled KOS-ANSWERS, or
on what the kernel argument ``kos.answers=`` names (``LABEL=…`` or a device; ``off``: nowhere). They must name the
serial number of every disk that may be wiped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.kind.kos.plugins.plugin_utils import public_keys

from . import answers as answered
from . import glance, secrets
from .actions.runner import run
from .errors import Unplannable, UsageError

LABEL, CREDENTIAL, ARGUMENT = "KOS-ANSWERS", "kos.answers", "kos.answers="
FILES = ("answers.yaml", "answers.yml", "answers.json", "answers.toml")
OFF = "off"
# Nothing else than these file systems is mounted for answers: few, and the kernel's oldest.
TYPES = ("vfat", "ext4")
_CREDENTIALS = Path("/run/credentials/@system")


@dataclass(frozen=True)
class Looked:
    """Where the kernel and systemd say to look, and which partitions are labelled so."""

    cmdline: str
    credential: Path | None
    labelled: tuple[str, ...]


def look() -> Looked:
    """This machine. Raises ApplyFailed."""
    given = _CREDENTIALS / CREDENTIAL
    named = run(["lsblk", "--noheadings", "--raw", "--paths", "--output", "LABEL,NAME"]).splitlines()
    rows = [line.split(" ") for line in named]
    devices = tuple(sorted(row[-1] for row in rows if row[0] == LABEL))
    return Looked(Path("/proc/cmdline").read_text(encoding="utf-8"), given if given.is_file() else None, devices)


def source(looked: Looked) -> str | Path | None:
    """The device, or the file, that has the answers; None where nobody gave any. Raises UsageError for two."""
    words = [word.removeprefix(ARGUMENT) for word in looked.cmdline.split() if word.startswith(ARGUMENT)]
    if words:
        return None if words[-1] == OFF else words[-1]
    if looked.credential is not None:
        return looked.credential
    if len(looked.labelled) > 1:
        raise UsageError(f"{' and '.join(looked.labelled)} are both labelled {LABEL}: unplug one, and start again")
    return looked.labelled[0] if looked.labelled else None


@contextlib.contextmanager
def found(where: str | Path) -> Iterator[Path]:
    """The file with the answers; what is beside it is there until the end. Raises UsageError, ApplyFailed."""
    if isinstance(where, Path):
        yield where
        return
    device = f"/dev/disk/by-label/{where.removeprefix('LABEL=')}" if where.startswith("LABEL=") else where
    if not Path(device).is_block_device():
        raise UsageError(f"{where} is no partition here: {ARGUMENT} takes LABEL=NAME, a device as /dev/sdb1, or {OFF}")
    filesystem = run(["blkid", "-p", "-o", "value", "-s", "TYPE", device]).strip()
    if filesystem not in TYPES:
        raise UsageError(f"{where} holds {filesystem or 'no file system'}: answers lie on {' or '.join(TYPES)}")
    with glance.into(device, filesystem) as folder:
        paths = [folder / name for name in FILES if (folder / name).is_file()]
        if len(paths) != 1:
            raise UsageError(f"{where} has {len(paths)} files of answers, not one: call it {FILES[0]}")
        yield paths[0]


def answer(where: str | Path, prompt: secrets.Prompt | None = None) -> tuple[answered.Answers, dict[str, str]]:
    """The answers and the secrets they speak of; both are in memory then. Without `prompt` nobody is there to type.

    Raises ConfigurationError, InstallError.
    """
    with found(where) as path:
        asked = answered.load(path)
        if faults := of_example(asked):
            raise Unplannable(*faults)
        return asked, secrets.resolve(asked, path.parent, prompt)


def of_example(asked: answered.Answers) -> list[str]:
    """What still stands there as in the example: with it the machine would let nobody in."""
    unlocks = asked.encryption.remote_unlock
    given = {"user.ssh_keys": asked.user.ssh_keys, "encryption.remote_unlock.ssh_keys": unlocks and unlocks.ssh_keys}
    return [
        f"{key}: it has the key of the example, whose other half nobody has: put the line of your own .pub file there"
        for key, keys in given.items()
        if any(map(public_keys.of_example, keys or []))
    ]
