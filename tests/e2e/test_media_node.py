# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a medium carries makes a node of a machine that has nothing else: no network, no controller."""

from __future__ import annotations

import shutil

import mediums
import pytest
import tampering
import yaml
from mediabuilds import PROFILE, Builder

from ansible_collections.kind.kos.plugins.plugin_utils import cloud_scripts

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(mediums.unavailable()), reason=f"no media here: {mediums.unavailable()}"),
]

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1MsiQkIu9hP8d3NDsnYePyb+jsvjdbXStCxmYeDSpP nobody"
# Of the root of a stick, what is laid over Debian's packages.
OURS = ("usr/lib/kos", "usr/share/kos", "usr/bin/kai")


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    made = Builder(tmp_path_factory.mktemp("own"))
    made.run("lock")
    return made


@pytest.fixture(scope="module")
def unpacked(builder, tmp_path_factory):
    """A stick taken apart: what is ours of its root, and its data; and the script of a seed."""
    folder = tmp_path_factory.mktemp("unpacked")
    builder.build("usb", folder / "stick.raw")
    found = tampering.partitions(folder / "stick.raw")
    with (folder / "stick.raw").open("rb") as image:
        for name in ("kos-root", "kos-data"):
            image.seek(found[name].start)
            (folder / name).write_bytes(image.read(found[name].size))
    at = "/build/work"
    builder.tool(folder, "unsquashfs", "-quiet", "-no-progress", "-dest", f"{at}/root", f"{at}/kos-root", *OURS)
    builder.tool(folder, "fsck.erofs", f"--extract={at}/data", f"{at}/kos-data")
    (folder / "me.pub").write_text(f"{KEY}\n")
    builder.build("nocloud", folder / "seed.img", "--ssh-key", folder / "me.pub", "--hostname", "island")
    builder.tool(folder, "mcopy", "-i", f"{at}/seed.img", "::user-data", f"{at}/user-data")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def island(lab, unpacked):
    """A node off the world that was given what the disk of a machine made of our image has."""
    lab.kai("lab", "up", "island")
    lab.kai("lab", "network", "cut", "island")
    for source, target in (("root", "/"), ("data", "/var/lib/kos-media")):
        packed = shutil.make_archive(str(unpacked / f"sent-{source}"), "tar", unpacked / source)
        with open(packed, "rb") as stream:
            lab.kai("lab", "ssh", "island", f"mkdir -p {target} && tar -C {target} --no-same-owner -xf -", stdin=stream)
    yield "island"
    lab.kai("lab", "network", "restore", "island")
    lab.kai("lab", "down", "island")


def test_a_machine_with_a_seed_deploys_itself_from_what_is_on_it(lab, island, unpacked):
    # As cloud-init writes and runs it: without a home, a locale, or anything of a login's.
    for row in yaml.safe_load((unpacked / "user-data").read_text())["write_files"]:
        path = row["path"]
        line = f"mkdir -p $(dirname {path}) /var/lib/cloud/instance && cat >{path} && chmod {row['permissions']} {path}"
        lab.kai("lab", "ssh", island, line, input=row["content"])
    lab.ssh(island, f"env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin {cloud_scripts.PATH}")
    said = lab.ssh(island, "kai status")
    assert "island is healthy" in said and PROFILE in said and "signed by this-machine" in said
