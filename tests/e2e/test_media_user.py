# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An ordinary user makes media in a namespace of their own, and they have the bytes that root's have."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import mediums
import pytest
from mediabuilds import BIN, Builder

NAME = "kos-e2e-media"
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(mediums.unavailable()), reason=f"no media here: {mediums.unavailable()}"),
]


@pytest.fixture(scope="module")
def home():
    """The home of a user, whom useradd gives ids of their own as it does any."""
    subprocess.run(["useradd", "--shell", "/bin/sh", NAME], check=True)
    found = Path(tempfile.mkdtemp(prefix="kos-", dir="/var/tmp"))
    try:
        yield found
    finally:
        subprocess.run(["userdel", NAME], check=True)
        shutil.rmtree(found)


@pytest.fixture(scope="module")
def as_user(home):
    """What a command line of the user begins with."""
    found = ["setpriv", f"--reuid={NAME}", f"--regid={NAME}", "--init-groups", "env", f"HOME={home}"]
    try:
        subprocess.run([*found, BIN / "kos-image", "--help"], check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"another user cannot run this checkout: {error.stderr.decode().strip()}")
    return found


def test_a_user_makes_the_bytes_that_root_makes(as_user, home, tmp_path):
    roots = Builder(tmp_path / "own")
    roots.run("lock")
    said = roots.build("usb", tmp_path / "roots.raw")
    theirs = dataclasses.replace(roots, own=home / "own", cache=home / "cache")
    shutil.copytree(roots.own, theirs.own)
    theirs.cache.mkdir()
    subprocess.run(["cp", "-a", roots.packages, theirs.packages], check=True)
    subprocess.run(["chown", "-R", f"{NAME}:{NAME}", home], check=True)
    made = theirs.build("usb", home / "theirs.raw", within=as_user)
    assert made["sha256"] == said["sha256"]
    assert (home / "theirs.raw").stat().st_uid != os.getuid()
