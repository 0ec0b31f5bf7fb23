# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask sshd about its new files before they are in place: it must take them, and leave somebody a way in."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile

from . import files, system
from .changes import Comparison
from .files import NodeError, Root

_SSHD = "/usr/sbin/sshd"
_MAIN = "/etc/ssh/sshd_config"
_FOLDER = "/etc/ssh/sshd_config.d"
_INCLUDE = re.compile(rf"^(\s*Include\s+){re.escape(_FOLDER)}/\*\.conf\s*$", re.MULTILINE | re.IGNORECASE)
_NO_SHELL = ("/usr/sbin/nologin", "/sbin/nologin", "/bin/false", "/usr/bin/false")


class LoginRefused(NodeError):
    """With the new files nobody could log in by SSH, or they would have no effect."""


def check(root: Root, comparison: Comparison) -> None:
    """Have sshd judge what `comparison` would make of its configuration. Raises LoginRefused; nothing is changed."""
    mine = [entry for entry in comparison.wanted if os.path.dirname(entry.row["path"]) == _FOLDER]
    if not any(entry.differs for entry in mine) or not os.path.exists(root.join(_SSHD)):
        return
    text = (files.read(root.join(_MAIN)) or b"").decode(errors="replace")
    if not _INCLUDE.search(text):
        raise LoginRefused(
            f"{_MAIN} has no line 'Include {_FOLDER}/*.conf', so nothing that kOS writes there would count: "
            "add it as the first line, then run again"
        )
    os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
    room = tempfile.mkdtemp(prefix="kos-sshd-")
    try:
        main = _fill(root, comparison, room, text)
        _require(system.run([_SSHD, "-t", "-f", main], check=False), room)
        effective = system.run([_SSHD, "-T", "-f", main], check=False).stdout.decode(errors="replace")
    finally:
        shutil.rmtree(room, ignore_errors=True)
    _require_way_in(dict(line.partition(" ")[::2] for line in effective.splitlines()))


def _fill(root: Root, comparison: Comparison, room: str, text: str) -> str:
    """Write into `room` what sshd would read; returns the name of its first file."""
    known = {entry.row["path"]: entry.content for entry in comparison.wanted}
    leaving = {change.name for change in comparison.changes if (change.kind, change.action) == ("file", "remove")}
    present = [f"{_FOLDER}/{name}" for name in _listed(root) if name.endswith(".conf")]
    for path in {*present, *(path for path in known if os.path.dirname(path) == _FOLDER)} - leaving:
        content = known[path] if path in known else files.read(root.join(path))
        files.write(os.path.join(room, os.path.basename(path)), content or b"", 0o600)
    main = os.path.join(room, "sshd_config")
    files.write(main, _INCLUDE.sub(rf"\g<1>{room}/*.conf", text).encode(), 0o600)
    return main


def _listed(root: Root) -> list[str]:
    folder = root.join(_FOLDER)
    return os.listdir(folder) if os.path.isdir(folder) else []


def _require(done: subprocess.CompletedProcess[bytes], room: str) -> None:
    if done.returncode == 0:
        return
    said = done.stderr.decode(errors="replace").replace(f"{room}/sshd_config", _MAIN)
    lines = said.replace(room, _FOLDER).strip().splitlines()
    raise LoginRefused(f"sshd refuses the configuration that this would make: {' / '.join(lines[-3:])}")


def _require_way_in(effective: dict[str, str]) -> None:
    """Where no password counts, somebody who may log in must have a key here."""
    words = ("passwordauthentication", "kbdinteractiveauthentication")
    elsewhere = (
        effective.get("authorizedkeyscommand", "none") != "none" or effective.get("trustedusercakeys", "none") != "none"
    )
    if any(effective.get(word) != "no" for word in words) or elsewhere:
        return
    names = effective.get("authorizedkeysfile", ".ssh/authorized_keys").split()
    root_too = effective.get("permitrootlogin") != "no"
    for entry in pwd.getpwall():
        if entry.pw_shell in _NO_SHELL or (entry.pw_uid == 0 and not root_too):
            continue
        if any(_holds_key(os.path.join(entry.pw_dir, name.replace("%h", entry.pw_dir))) for name in names):
            return
    raise LoginRefused(
        "nobody could log in by SSH any more: passwords would not count (rule ssh-keys-only), and no user has a key in "
        "~/.ssh/authorized_keys. Bring one with ssh-copy-id, or add ssh-keys-only to security.hardening.off"
    )


def _holds_key(path: str) -> bool:
    content = files.read(path) or b""
    return any(line.strip() and not line.lstrip().startswith(b"#") for line in content.splitlines())
