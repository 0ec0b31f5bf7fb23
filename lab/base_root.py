# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cached Debian 13 root under every node: made once by mmdebstrap, read-only ever after."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from ..plugins.plugin_utils.apt import AptConfiguration
from . import cache
from .cache import Recipe, Say, Workshop
from .identity import Lab

# A fresh Debian 13 server: Debian's `important` packages and what the installer adds to make it reachable.
RECIPE = Recipe(
    kind=cache.SUITE,
    version=1,
    variant="important",
    packages=(
        "ca-certificates",
        "dbus",
        "libpam-systemd",
        "nftables",
        "openssh-server",
        "procps",
        "python3",
        "sudo",
    ),
)


def ensure(lab: Lab, apt: AptConfiguration, say: Say) -> Path:
    """The root for this configuration, made now if need be. Raises LabError."""
    announcement = "making the Debian 13 root, once (about half a minute)"
    return cache.ensure(lab, RECIPE, apt, _make, announcement, say) / "root"


def _make(workshop: Workshop) -> None:
    make_tree(workshop, RECIPE.packages, workshop.folder / "root")


def make_tree(workshop: Workshop, packages: Sequence[str], tree: Path, *options: str) -> None:
    """A fresh Debian 13 server with these packages, made with further options of mmdebstrap. Raises LabError."""
    networkd = '--customize-hook=chroot "$1" systemctl --quiet enable systemd-networkd'
    workshop.debootstrap(RECIPE.variant, packages, tree, networkd, *options)
    _finish(tree, workshop.apt)


def cached() -> list[Path]:
    """The folders of the roots in the cache; the time of each is when it was made."""
    return cache.entries(RECIPE.kind)


def _finish(root: Path, apt: AptConfiguration) -> None:
    """What the installer would have written, and nothing that two machines must not share."""
    configured = root / "etc/apt/apt.conf.d"
    (configured / "99mmdebstrap").unlink(missing_ok=True)
    (configured / "80inherited").write_text("".join(f"{line}\n" for line in apt.options))
    for file in apt.files:
        target = root / file.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    for listed in (root / "etc/apt/sources.list.d").iterdir():
        listed.unlink()
    (root / "etc/apt/sources.list").unlink(missing_ok=True)
    (root / "etc/apt/sources.list.d/debian.sources").write_text(apt.sources(cache.SUITE))
    for host_key in (root / "etc/ssh").glob("ssh_host_*"):
        host_key.unlink()
    (root / "etc/locale.conf").write_text("LANG=C.UTF-8\n")
    for own in ("etc/machine-id", "etc/hostname", "etc/resolv.conf"):
        (root / own).unlink(missing_ok=True)
