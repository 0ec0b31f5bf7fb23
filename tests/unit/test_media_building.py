# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is looked at before anything is made, and how a result is delivered."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from kos_image import building, host, recipe, secureboot
from kos_image.asked import Asked
from kos_image.errors import ImageError, UsageError


def asked(to):
    return Asked("development", "usb", "amd64", to=to)


def test_a_device_is_no_place_for_an_image():
    with pytest.raises(UsageError, match=r"/dev/null is not a file: .* `kos-image write`"):
        building._place(asked(Path("/dev/null")))


def test_a_folder_gets_the_usual_name_and_one_that_is_not_there_is_not_made(tmp_path):
    assert building._place(asked(tmp_path)) == tmp_path / "kos-development-usb-amd64.raw"
    with pytest.raises(UsageError, match=r"there is no folder .*/nodir: make it"):
        building._place(asked(tmp_path / "nodir" / "x.raw"))


@pytest.mark.parametrize("record", [None, "", "{", "[]"])
def test_a_result_is_delivered_once_whatever_became_of_the_record(tmp_path, record):
    entry, to = tmp_path / "entry", tmp_path / "x.raw"
    entry.mkdir()
    (entry / recipe.RESULT).write_text("image")
    (entry / f"{recipe.RESULT}.manifest.json").write_text("{}")
    if record is not None:
        (tmp_path / "written.json").write_text(record)
    building._deliver(entry, to, tmp_path / "written.json")
    assert (to.read_text(), (tmp_path / "x.raw.manifest.json").read_text()) == ("image", "{}")
    before = to.stat().st_ino
    building._deliver(entry, to, tmp_path / "written.json")
    assert to.stat().st_ino == before
    to.write_text("mine")
    building._deliver(entry, to, tmp_path / "written.json")
    assert to.read_text() == "image"


def test_what_is_no_model_is_refused_before_anything_is_made(tmp_path):
    (tmp_path / "me.pub").write_text("ssh-ed25519 AAAA")
    with pytest.raises(UsageError, match=r"me.pub: that is not a GGUF file"):
        building._require_models([tmp_path / "me.pub"])


@pytest.fixture
def pairs(tmp_path):
    for name in ("one", "two"):
        out = ["-keyout", tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.crt", "-subj", "/CN=x/"]
        argv = ["openssl", "req", "-new", "-x509", "-newkey", "rsa:2048", "-noenc", *out]
        subprocess.run(argv, check=True, capture_output=True)
    return tmp_path


def test_a_key_and_its_certificate_belong_together(pairs):
    secureboot.require_pair(pairs / "one.key", pairs / "one.crt")
    with pytest.raises(UsageError, match=r"two.crt is not the certificate of .*one.key"):
        secureboot.require_pair(pairs / "one.key", pairs / "two.crt")
    with pytest.raises(UsageError, match=r"one.key is no certificate"):
        secureboot.require_pair(pairs / "one.key", pairs / "one.key")
    (pairs / "one.key").chmod(0o644)
    with pytest.raises(ImageError, match="others can read"):
        secureboot.require_pair(pairs / "one.key", pairs / "one.crt")


def test_the_ids_that_are_proposed_are_nobodys(tmp_path):
    (tmp_path / "subuid").write_text("a:100000:65536\nb:165536:65536\n")
    assert host._free_ids([tmp_path / "subuid", tmp_path / "none"]) == "231072-296607"
    assert host._free_ids([]) == "100000-165535"
