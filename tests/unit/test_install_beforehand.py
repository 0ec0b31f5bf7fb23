# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is tried before the first byte is written: each failure would otherwise have come out on the wiped disk."""

from __future__ import annotations

import json

import pytest
from golden_installs import answers
from installs import BLANK, DESK

from kos_install import beforehand
from kos_install.actions.context import Context
from kos_install.errors import ApplyFailed
from kos_install.hardware.model import Disk
from kos_install.storage.plan import plan

GB = 10**9
SMALL = Disk(path="/dev/sdd", size=9 * GB, serial="small")
HERE = DESK.model_copy(update={"fido2": True, "disks": [BLANK, SMALL]})
LARGE = {"storage": {"disk": {"serial": "WD-1"}}}
TANG = {"url": "http://192.0.2.9:7500", "thumbprint": "x" * 43}
YUBIKEY = "/dev/hidraw0: vendor=0x1050, product=0x0407 (Yubico YubiKey OTP+FIDO+CCID)\n"


@pytest.fixture
def medium(monkeypatch):
    """A medium whose system unpacks to 4 GB and whose data are 1 GB; what is run is noted, and answered."""
    said = {"runs": [], "tang": ("", 0), "-L": YUBIKEY, "-I": "extension strings: credProtect, hmac-secret\n"}
    monkeypatch.setattr(beforehand.unpack, "listed", lambda _image: [beforehand.unpack._Entry("-", 4 * GB, "/usr/a")])
    monkeypatch.setattr(beforehand.data, "size", lambda: GB)

    def outcome(argv, **_how):
        said["runs"].append(argv)
        return said["tang"]

    monkeypatch.setattr(beforehand, "outcome", outcome)
    monkeypatch.setattr(beforehand, "run", lambda argv, **_how: said[argv[1]])
    return said


def check(**asked):
    wanted = answers(**{**LARGE, **asked})
    beforehand.check(Context(wanted, HERE, plan(wanted, HERE)))


def refused(**asked):
    with pytest.raises(ApplyFailed, match="nothing was written to any disk") as caught:
        check(**asked)
    return str(caught.value)


def test_what_fits_and_answers_is_begun(medium):
    check()
    assert medium["runs"] == []
    check(encryption={"tang": TANG, "fido2": True})
    [asked] = medium["runs"]
    assert asked[2:5] == ["clevis", "encrypt", "tang"]
    assert json.loads(asked[5]) == {"url": TANG["url"], "thp": TANG["thumbprint"]}


@pytest.mark.parametrize(
    ("storage", "data", "fits"),
    [
        ({"disk": {"serial": "small"}}, 1 * GB, True),
        ({"disk": {"serial": "small"}}, 2 * GB, False),
        ({"disk": {"serial": "small"}, "data": {"serial": "WD-1"}}, 30 * GB, True),
        ({"disk": {"serial": "WD-1"}, "data": {"serial": "small"}}, 5 * GB, False),
        ({"layout": "mirror", "disk": {"serial": "WD-1"}, "second": {"serial": "small"}}, 2 * GB, False),
    ],
)
def test_what_is_brought_must_fit_where_it_is_planned(medium, monkeypatch, storage, data, fits):
    monkeypatch.setattr(beforehand.data, "size", lambda: data)
    if fits:
        check(storage=storage)
    else:
        assert "take a larger disk" in refused(storage=storage)


def test_without_the_mediums_data_nothing_is_begun(medium, monkeypatch):
    def size():
        raise ApplyFailed("the medium's data cannot be found: is the stick still plugged in?")

    monkeypatch.setattr(beforehand.data, "size", size)
    assert "the medium's data cannot be found" in refused()


def test_answers_that_no_journal_keeps_are_found_before_the_wipe(medium):
    assert "too long to be kept" in refused(settings={"long": "x" * (1 << 20)})


def test_every_reason_is_told_at_once(medium, monkeypatch):
    medium["tang"] = ("Unable to fetch advertisement: http://192.0.2.9:7500/adv\n", 1)
    medium["-L"] = ""
    monkeypatch.setattr(beforehand.data, "size", lambda: 2000 * GB)
    said = refused(encryption={"tang": TANG, "fido2": True})
    assert "larger disk" in said and "(Unable to fetch" in said and "by DHCP" in said and "0 FIDO2 keys" in said


def test_a_key_without_hmac_secret_and_two_keys_are_refused(medium):
    medium["-I"] = "version strings: U2F_V2\nextension strings: credProtect\n"
    assert "/dev/hidraw0 lacks hmac-secret" in refused(encryption={"fido2": True})
    medium["-L"] = YUBIKEY * 2
    assert "2 FIDO2 keys" in refused(encryption={"fido2": True})


def test_a_tang_server_that_says_nothing_is_one_that_does_not_answer(medium):
    medium["tang"] = ("", 124)
    assert "(no answer, 124)" in refused(encryption={"tang": TANG})
