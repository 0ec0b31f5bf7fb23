# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What tells this machine from every other: its name, language and clock as files; what is made of randomness."""

from __future__ import annotations

import re
import uuid
from pathlib import Path

from ansible_collections.kind.kos.plugins.module_utils.node.files import Root

from .. import keyboards
from ..answers import Answers
from . import target
from .runner import run
from .target import Entry, File, Link

_MACHINE_ID = "/etc/machine-id"
HOST_KEY = "/etc/ssh/ssh_host_ed25519_key"
# Languages that the C library has without a file.
_BUILT_IN = ("C", "POSIX", "C.UTF-8")
_HOSTS = """\
127.0.0.1 localhost
127.0.1.1 {name}
::1 localhost ip6-localhost ip6-loopback
ff02::1 ip6-allnodes
ff02::2 ip6-allrouters
"""
_ZRAM = "[zram0]\nzram-size = min(ram / 2, 4096)\ncompression-algorithm = zstd\n"


def entries(answers: Answers) -> list[Entry]:
    """Name, language, keyboard, time zone, swap: what the answers say, and nothing that is made of randomness."""
    found: list[Entry] = [
        File("/etc/hostname", f"{answers.hostname}\n"),
        File("/etc/hosts", _HOSTS.format(name=answers.hostname)),
        File("/etc/locale.conf", f"LANG={answers.locale}\n"),
        File(keyboards.SETTINGS, keyboards.settings(answers.keyboard)),
        Link("/etc/localtime", f"/usr/share/zoneinfo/{answers.timezone}"),
        File("/etc/timezone", f"{answers.timezone}\n"),
    ]
    if answers.locale not in _BUILT_IN:
        found.append(File("/etc/locale.gen", f"{answers.locale} {_charset(answers.locale)}\n"))
    if answers.storage.swap == "zram":
        found.append(File("/etc/systemd/zram-generator.conf", _ZRAM))
    return found


def _charset(locale: str) -> str:
    return locale.partition("@")[0].partition(".")[2] or "UTF-8"


def make(root: Root, answers: Answers) -> None:
    """Make what is this machine's alone, where it lacks: machine id, SSH host keys, its locale. Raises ApplyFailed."""
    if not _has_machine_id(root):
        # Not "uninitialized": with that systemd would enable the units of every package at the first boot.
        target.lay(root, [File(_MACHINE_ID, f"{uuid.uuid4().hex}\n", 0o444)])
    if not Path(root.join(HOST_KEY)).is_file():
        run(["ssh-keygen", "-A", "-f", root.path])
    if not _speaks(root, answers.locale):
        target.inside(Path(root.path), ["locale-gen"])
    # What the consoles load, that of the initrd too. setupcon judges it by its age, and the clock may say anything.
    Path(root.join(keyboards.KEYMAP)).unlink(missing_ok=True)
    target.inside(Path(root.path), ["setupcon", "--save-only", "--force"])


def stands(root: Root, answers: Answers) -> bool:
    """Whether all of `make` is there."""
    key = Path(root.join(HOST_KEY))
    private = key.is_file() and not key.stat().st_mode & 0o077
    return _has_machine_id(root) and private and _speaks(root, answers.locale) and _types(root)


def fingerprint(root: Root) -> str:
    """Of the SSH host key, as every OpenSSH tool prints it. Raises ApplyFailed."""
    return run(["ssh-keygen", "-l", "-f", f"{root.join(HOST_KEY)}.pub"]).split()[1]


def _has_machine_id(root: Root) -> bool:
    path = Path(root.join(_MACHINE_ID))
    return path.is_file() and re.fullmatch(r"[0-9a-f]{32}\n?", path.read_text(encoding="ascii")) is not None


def _speaks(root: Root, locale: str) -> bool:
    if locale in _BUILT_IN:
        return True
    known = target.inside(Path(root.path), ["locale", "-a"]).split()
    return _plain(locale) in map(_plain, known)


def _types(root: Root) -> bool:
    """Whether the keymap was made of what the settings are now."""
    keymap, settings = Path(root.join(keyboards.KEYMAP)), Path(root.join(keyboards.SETTINGS))
    return keymap.is_file() and keymap.stat().st_mtime_ns > settings.stat().st_mtime_ns


def _plain(locale: str) -> str:
    """As ``locale -a`` writes it: de_DE.utf8."""
    return locale.replace("-", "").lower()
