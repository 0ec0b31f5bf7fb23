# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the oracles of crashed disks have in common: Debian's own tools, which read them on the outside."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Of the LUKS2 header and its key slots.
HEADER = 16 << 20
# btrfs wants to know what is mounted.
_WITHIN = ("unshare", "--mount", "sh", "-c", 'mount -t proc proc "$1/proc" && exec chroot "$@"', "sh")


class Broken(Exception):
    """A state that no power cut may leave; the text says what of it is wrong."""


@dataclass(frozen=True)
class Region:
    """A partition: where it lies, in bytes."""

    start: int
    end: int


class Tools:
    """`tree` has trixie's tools, `work` is a folder inside that tree."""

    def __init__(self, tree, work):
        self.tree, self.work = tree, work

    def tool(self, *argv, stdin=None, check=True):
        """A program of the tree, which sees `work` as it is."""
        done = subprocess.run(
            [*_WITHIN, self.tree, *map(str, argv)], capture_output=True, input=stdin, check=False,
            env={"PATH": "/usr/sbin:/usr/bin", "LC_ALL": "C.UTF-8", "MTOOLS_SKIP_CHECK": "1"},
        )  # fmt: skip
        if check and done.returncode:
            raise Broken(f"{argv[0]}: {(done.stderr or done.stdout).decode(errors='replace')[-300:]}")
        return done

    def inside(self, path):
        return f"/{path.relative_to(self.tree)}"

    def luks_secrets(self, disk, where, passphrase):
        """The LUKS header and the volume key that a disk has in a region."""
        header, key = self.work / "header", self.work / "key"
        self.slice(disk, where, header, HEADER)
        key.unlink(missing_ok=True)
        dumped = self.tool("cryptsetup", "luksDump", "--dump-json-metadata", self.inside(header)).stdout
        options = ["--dump-volume-key", "--volume-key-file", self.inside(key), "--batch-mode", "--key-file=-"]
        self.tool("cryptsetup", "luksDump", *options, self.inside(header), stdin=passphrase.encode())
        return json.loads(dumped), key.read_bytes()

    def emptied(self, name):
        out = self.work / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        return out

    def lay_out(self, image, to, *folders):
        """Write folders of an ext4 to a folder, as they are once its journal was replayed. Raises Broken.

        The image is changed by that. Of each path the last name alone is kept.
        """
        done = self.tool("e2fsck", "-f", "-p", self.inside(image), check=False)
        if done.returncode > 1:
            raise Broken(f"e2fsck: {(done.stdout + done.stderr).decode(errors='replace')[-300:]}")
        self.tool("debugfs", "-R", f"rdump {' '.join(folders)} {self.inside(to)}", self.inside(image))

    def slice(self, file, where, to, length=None):
        with file.open("rb") as source, to.open("wb") as sink:
            source.seek(where.start)
            sink.write(source.read(length or where.end - where.start))
            if length:
                sink.truncate(where.end - where.start)  # as long as it says: a hole


def digests(folder, masked=False):
    """Every file and link below a folder by its path; of `masked` ones the first byte does not count.

    Devices, which a system image has, are left out: /dev/zero has no end.
    """
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in (*files, *(one for one in folders if Path(parent, one).is_symlink())):
            path = Path(parent, name)
            if path.is_symlink():
                found[str(path.relative_to(folder))] = f"link to {path.readlink()}"
            elif path.is_file():
                with path.open("rb") as stream:
                    stream.seek(int(masked))
                    found[str(path.relative_to(folder))] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found
