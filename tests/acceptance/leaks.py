# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the node's own secrets lie in clear: run there as root, it prints names and places and never a secret.

Every secret is unsealed into this process alone and looked for in each place. A word made up for the purpose is put
into a journal, a file and a process's arguments first: a search that does not find it there finds nothing anywhere.
"""

from __future__ import annotations

import base64
import glob
import json
import os
import secrets
import subprocess
import tempfile
from collections.abc import Iterator

STATE = "/var/lib/kos"
FOLDERS = ("/var/log", "/etc", "/tmp", "/var/tmp", "/root", "/run/kos-status", STATE, "/var/lib/systemd/coredump")
# Whose business secrets are: keys that their owners keep in clear, for root or one daemon alone.
KEPT = ("/etc/ssh/", "/etc/ssl/private/", f"{STATE}/identity/", "/var/log/journal/", "/run/log/journal/")
CANARY = "a word made up for this search"
# What is shorter is found by chance.
SHORTEST = 12
CHUNK = 1 << 20


def unsealed() -> dict[str, bytes]:
    """Every secret of the node, by name."""
    found = {}
    for path in glob.glob(f"{STATE}/secrets/*.cred"):
        name = os.path.basename(path).removesuffix(".cred")
        argv = ["systemd-creds", "decrypt", f"--name=kos-{name}", path, "-"]
        found[name] = subprocess.run(argv, capture_output=True, check=True).stdout
    for path in glob.glob(f"{STATE}/identity/*"):
        with open(path, "rb") as stream:
            content = stream.read()
        if b"PRIVATE KEY" in content:
            found[f"identity/{os.path.basename(path)}"] = content
    return found


def forms(secret: bytes) -> set[bytes]:
    """How a secret may have been written down: as it is, a line of it where it has several, and in base64."""
    lines = [line.strip() for line in secret.splitlines() if b"-----" not in line]
    # All keys of a kind begin alike: the last of the longest lines is one's own.
    telling = max(reversed(lines), key=len, default=b"")
    # Encoded behind something else (`user:password`), it begins anywhere in a group of three bytes.
    encoded = (base64.b64encode(bytes(before) + telling)[(before * 8 + 5) // 6 : -4] for before in range(3))
    return {form for form in (telling, *encoded) if len(form) >= SHORTEST}


def pieces(stream) -> Iterator[bytes]:
    """The stream in pieces, each with the end of the one before it."""
    before = b""
    while piece := stream.read(CHUNK):
        yield before + piece
        before = piece[-512:]


def places() -> Iterator[tuple[str, object]]:
    """Every place that is searched: its name, and a stream of it."""
    yield (
        "the journal",
        subprocess.Popen(["journalctl", "--no-pager", "--all", "--output=export"], stdout=subprocess.PIPE).stdout,
    )
    for top in FOLDERS:
        for folder, _folders, names in os.walk(top):
            for name in names:
                path = os.path.join(folder, name)
                if os.path.isfile(path) and not os.path.islink(path) and not path.startswith(KEPT):
                    yield path, path
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        yield "the arguments of a process", path


def searched(needles: dict[str, set[bytes]]) -> tuple[dict[str, set[str]], int]:
    """Where each secret was found, and in how many places it was looked for."""
    found: dict[str, set[str]] = {name: set() for name in needles}
    count = 0
    for name, place in places():
        try:
            with open(place, "rb") if isinstance(place, str) else place as stream:
                for piece in pieces(stream):
                    for secret, words in needles.items():
                        if any(word in piece for word in words):
                            found[secret].add(name)
        except OSError:
            continue  # a process that has ended, a file that has gone
        count += 1
    return found, count


def main() -> None:
    """Print what was found, and where the made-up word was."""
    word = secrets.token_hex(16)
    subprocess.run(["logger", "--tag", "kos-accept"], input=word.encode(), check=True)
    subprocess.run(["journalctl", "--sync"], check=True)
    needles = {name: forms(secret) for name, secret in unsealed().items()}
    with tempfile.NamedTemporaryFile(dir="/var/log", prefix="kos-accept-") as planted:
        planted.write(base64.b64encode(word.encode()))
        planted.flush()
        sleeper = subprocess.Popen(["sh", "-c", "sleep 600; exit", word], start_new_session=True)
        try:
            found, count = searched({**needles, CANARY: forms(word.encode())})
        finally:
            os.killpg(sleeper.pid, 9)
            sleeper.wait()
        canary = sorted("a file" if place == planted.name else place for place in found.pop(CANARY))
    too_short = sorted(name for name, words in needles.items() if not words)
    print(json.dumps({
        "searched": count,
        "secrets": sorted(needles),
        "too_short": too_short,
        "found": {name: sorted(where) for name, where in found.items() if where},
        "canary": canary,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
