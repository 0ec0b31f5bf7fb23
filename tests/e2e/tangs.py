# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A Tang server of Debian's, for machines that are emulated here; and clevis, which binds their disks to it."""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.kind.kos.lab import cache
from ansible_collections.kind.kos.lab.cache import Recipe

RECIPE = Recipe("tang", 1, "essential", ("clevis-luks", "curl", "iproute2", "systemd", "tang"))
# Where an emulated machine sees this one (QEMU's user network).
_SEEN = "10.0.2.2"
# TREE FOLDER SCRIPT: in mounts of its own, with the folder in the tree.
_INSIDE = """
mount --bind "$2" "$1/mnt"
for place in dev proc; do mount --rbind "/$place" "$1/$place"; done
exec chroot "$1" sh -euc "$3"
"""
_SERVE = "systemd-socket-activate --listen={at}{port} --inetd --accept /usr/libexec/tangd /mnt/tang"
_GIVE = """\
ip link set lo up
ip address add {at}/32 dev lo
mkdir /mnt/tang
/usr/libexec/tangd-keygen /mnt/tang
{serve} &
server=$!
trap 'kill "$server"' EXIT
until thumbprint=$(tang-show-keys {port}); do sleep 0.2; done
clevis luks bind -y -k - -d /mnt/{image} tang '{{"url":"{url}","thp":"'"$thumbprint"'"}}' </mnt/passphrase
"""


@dataclass(frozen=True)
class Server:
    """On a port of this machine. Its keys are in `folder`, beside `passphrase`, which opens the disk."""

    entry: Path
    folder: Path
    port: int

    @property
    def url(self):
        """As an emulated machine sees it."""
        return f"http://{_SEEN}:{self.port}"

    def give(self, image):
        """Make its slot in an encrypted image, where only this machine sees a server with the address of later."""
        serve = _SERVE.format(at="", port=self.port)
        script = _GIVE.format(at=_SEEN, port=self.port, serve=serve, image=image.name, url=self.url)
        done = subprocess.run(self._line(script, "--net"), capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr

    @contextlib.contextmanager
    def serving(self):
        """It answers."""
        line = self._line(f"exec {_SERVE.format(at='127.0.0.1:', port=self.port)}")
        process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield
        finally:
            process.terminate()
            process.wait()

    def _line(self, script, *apart):
        unshared = ["unshare", "--mount", "--propagation", "private", *apart, "sh", "-euc", _INSIDE, "sh"]
        return [*unshared, self.entry / "tree", self.folder, script]


def ensure(lab, apt):
    """The cached folder with the tree of both. Raises LabError."""

    def make(workshop):
        workshop.debootstrap(RECIPE.variant, RECIPE.packages, workshop.folder / "tree")

    return cache.ensure(lab, RECIPE, apt, make, "making the tree of a Tang server, once (about half a minute)", print)
