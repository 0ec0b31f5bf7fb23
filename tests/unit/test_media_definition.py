# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The definitions of media hold together."""

from __future__ import annotations

import pytest

from kos_image.definition import ARCHITECTURES, FOLDER, architectures, define, outputs
from kos_image.errors import UsageError

MEDIA = [(name, arch) for name in outputs() for arch in architectures(name)]


def test_these_are_the_media():
    assert outputs() == ["disk", "pi", "portable", "qcow2", "usb"]


@pytest.mark.parametrize(("name", "arch"), MEDIA)
def test_a_definition_says_all_that_its_medium_needs(name, arch):
    found = define(name, arch)
    contents = {one.content for one in found.partitions}
    assert found.summary and len(set(found.packages)) == len(found.packages)
    assert found.boot.bios <= ("bios" in contents)
    assert found.boot.uefi <= ("esp" in contents)
    assert found.boot.pi == ("firmware" in contents)
    assert found.root.verity == ("verity" in contents)
    # A medium that is never written to carries its manifest.
    assert found.root.verity == ("manifest" in contents)
    assert all((FOLDER.with_name("trees") / tree).is_dir() for tree in found.trees)
    assert any(one.startswith("linux-image-") for one in found.packages)


def test_what_is_for_another_architecture_is_left_out():
    assert "linux-image-arm64" in define("usb", "arm64").packages
    assert not [one for one in define("usb", "amd64").packages if "arm64" in one]
    with pytest.raises(UsageError, match="pi is made for arm64, not for amd64"):
        define("pi", "amd64")


def test_an_unknown_output_is_told_the_known_ones():
    with pytest.raises(UsageError, match="one of disk, pi, portable, qcow2, usb"):
        define("iso", ARCHITECTURES[0])


def test_only_a_pc_has_a_bios():
    for output in ("usb", "disk"):
        pc, other = define(output, "amd64"), define(output, "arm64")
        assert (pc.boot.bios, other.boot.bios) == (True, False)
        assert [part for part in pc.partitions if part.content != "bios"] == other.partitions


def test_a_credential_alone_starts_no_sshd():
    """Whoever holds a stick can put one on its boot partition; the kernel's arguments are what the chains cover."""
    text = (FOLDER.parent / "trees/live/etc/systemd/system/ssh.service.d/kos.conf").read_text()
    conditions = [line for line in text.splitlines() if line.startswith("Condition")]
    assert conditions == ["ConditionKernelCommandLine=kos.ssh"]
