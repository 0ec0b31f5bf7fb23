# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be asked for, and what is refused before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from kos_image.asked import OUTPUTS, Asked
from kos_image.errors import UsageError

KEY = Path("key.pub")


@pytest.mark.parametrize(
    ("output", "options", "said"),
    [
        ("qcow2", {"secure_boot": (KEY, KEY)}, "--secure-boot-key is for usb, portable, not for qcow2"),
        ("usb", {"ssh_keys": (KEY,)}, "--ssh-key is for disk, qcow2, pi, nocloud, not for usb"),
        ("oci", {"models": (KEY,)}, "--model is for .*, not for oci"),
        ("bundle", {"hostname": "attic"}, "--hostname is for .*, not for bundle"),
        ("nocloud", {"hostname": "bad name!"}, "'bad name!' is no name for a machine"),
        ("disk", {"test": True}, "--test-medium is for usb, portable, not for disk"),
        ("qcow2", {"in_clear": True}, "--no-encryption is for pi, not for qcow2"),
        ("iso", {}, "there is no output 'iso': one of disk, pi, portable, qcow2, usb, nocloud, oci, bundle"),
    ],
)
def test_an_option_that_an_output_does_not_take_is_refused(output, options, said):
    with pytest.raises(UsageError, match=said):
        Asked("development", output, "amd64", **options)


@pytest.mark.parametrize("output", OUTPUTS)
def test_every_output_has_a_name_of_its_own_and_says_what_comes_next(output):
    asked = Asked("development", output, "arm64")
    assert asked.file_name.startswith(f"kos-development-{output}-arm64.")
    assert "{" not in asked.next("x")


def test_a_card_that_lets_nobody_in_says_so():
    assert "nobody can log in" in Asked("development", "pi", "arm64").next("x")
    assert "nobody" not in Asked("development", "pi", "arm64", ssh_keys=(KEY,)).next("x")


def test_a_card_says_what_its_first_start_asks_unless_it_stays_in_clear():
    assert "asks for a passphrase" in Asked("development", "pi", "arm64").next("x")
    assert "passphrase" not in Asked("development", "pi", "arm64", in_clear=True).next("x")


def test_a_medium_for_tests_is_called_so():
    assert Asked("development", "usb", "amd64", test=True).file_name == "kos-development-usb-amd64-test.raw"
