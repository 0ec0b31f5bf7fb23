# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looking into somebody's file system changes not one byte of it, on a real one that was not unmounted."""

from __future__ import annotations

import hashlib
import subprocess

import pytest

from kos_install import glance
from kos_install.screens import keys

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKl0Xh3u0N5fQ0a1Vn9s8w7QyqkZ2k9rj3m4c5d6e7f8 anna@home"


@pytest.fixture
def torn(tmp_path):
    """An ext4 that was in use when its machine lost power: its journal has to be replayed."""
    image, copy, place = tmp_path / "used.img", tmp_path / "torn.img", tmp_path / "used"
    place.mkdir()
    with image.open("wb") as stream:
        stream.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True)
    try:
        (place / "anna.pub").write_text(f"{KEY}\n")
        subprocess.run(["sync", "--file-system", str(place)], check=True)
        subprocess.run(["cp", str(image), str(copy)], check=True)
    finally:
        subprocess.run(["umount", str(place)], check=True)
    said = subprocess.run(["dumpe2fs", "-h", str(copy)], check=True, capture_output=True, text=True).stdout
    assert "needs_recovery" in said
    return copy


def test_an_ext4_whose_journal_waits_to_be_replayed_is_read_and_stays_as_it_is(torn):
    before = hashlib.sha256(torn.read_bytes()).hexdigest()
    with glance.into(str(torn), "ext4") as folder:
        assert keys.below(folder) == [KEY]
        with pytest.raises(OSError, match="Read-only"):
            (folder / "anna.pub").write_text("")
    assert hashlib.sha256(torn.read_bytes()).hexdigest() == before
    assert str(torn) not in subprocess.run(["losetup", "--all"], check=True, capture_output=True, text=True).stdout
