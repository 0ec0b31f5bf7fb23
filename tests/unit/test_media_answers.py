# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The installer's answers as the seed of a card: what it makes of them, and what it refuses, by key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError
from kos_image import answered, main, nocloud
from kos_image.asked import Asked
from kos_image.errors import UsageError

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1MsiQkIu9hP8d3NDsnYePyb+jsvjdbXStCxmYeDSpP somebody@somewhere"
OTHER = KEY.replace("somebody", "else")
LEAST = {"version": 1, "user": {"ssh_keys": [KEY]}}
EXAMPLE = Path(__file__).resolve().parents[2] / "installer/answers.example.yaml"
DISK = {"serial": "S675NF0R"}
HASH = "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7"


def load(tmp_path, more=None, **how):
    path = tmp_path / "answers.yaml"
    path.write_text(yaml.safe_dump({**LEAST, **(more or {})}))
    return answered.load(path, **how)


def laid(tmp_path, more=None, **options):
    answers = load(tmp_path, more, in_clear=options.get("in_clear", False))
    return nocloud.laid(Asked("development", "pi", "arm64", answers=answers, **options))


def user_data(files):
    return yaml.safe_load(files["var/lib/cloud/seed/nocloud/user-data"])


def test_what_a_card_can_is_what_its_first_start_does(tmp_path):
    told = {"hostname": "shed", "locale": "de_DE.UTF-8", "timezone": "Europe/Berlin", "after": "reboot"}
    files = laid(tmp_path, {**told, "user": {"name": "anna", "full_name": "Anna Attic", "ssh_keys": [KEY]}})
    data = user_data(files)
    assert {name: data[name] for name in ("hostname", "locale", "timezone")} == {
        name: told[name] for name in ("hostname", "locale", "timezone")
    }
    (person,) = data["users"]
    assert (person["name"], person["gecos"], person["ssh_authorized_keys"]) == ("anna", "Anna Attic", [KEY])
    assert person["lock_passwd"] and not data["ssh_pwauth"]


def test_without_more_it_is_the_seed_that_options_give(tmp_path):
    (tmp_path / "me.pub").write_text(f"{KEY}\n")
    options = Asked("development", "pi", "arm64", hostname="kos", ssh_keys=(tmp_path / "me.pub",))
    assert laid(tmp_path) == nocloud.laid(options)
    assert not any("network" in name for name in laid(tmp_path)), "cloud-init's own, which is DHCP by cable"


def test_a_fixed_address_is_one_of_the_cable_that_a_card_has(tmp_path):
    one = {"match": "en*", "dhcp": False, "addresses": ["192.0.2.7/24"], "gateway": "192.0.2.1", "vlan": {"id": 7}}
    files = laid(tmp_path, {"network": [{"match": "en*"}, one]})
    cable = files["etc/systemd/network/10-kos.network"]
    assert "Name=e*\n" in cable and "DHCP=yes" in cable and "VLAN=vlan7" in cable
    assert "Address=192.0.2.7/24" in files["etc/systemd/network/10-kos-vlan7.network"]
    assert yaml.safe_load(files["etc/cloud/cloud.cfg.d/91_kos_network.cfg"]) == {"network": {"config": "disabled"}}


def test_who_may_log_in_may_unlock_unless_others_are_named(tmp_path):
    files = laid(tmp_path)
    assert files["etc/kos/unlock/authorized_keys"] == f"{KEY}\n" and files["etc/kos/unlock/port"] == "2222\n"
    files = laid(tmp_path, {"encryption": {"remote_unlock": {"ssh_keys": [OTHER], "port": 22}}})
    assert files["etc/kos/unlock/authorized_keys"] == f"{OTHER}\n" and files["etc/kos/unlock/port"] == "22\n"
    assert user_data(files)["users"][0]["ssh_authorized_keys"] == [KEY]
    assert not any("unlock" in name for name in laid(tmp_path, in_clear=True))


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"settings": {"services": {}}}, "settings"),
        ({"accept_shortfall": ["memory"]}, "accept_shortfall"),
        ({"keyboard": "de"}, "keyboard"),
        ({"storage": {"disk": DISK}}, "storage.disk"),
        ({"storage": {"data": DISK}}, "storage.data"),
        ({"storage": {"layout": "mirror", "second": DISK}}, "storage.layout"),
        ({"storage": {"swap": "zram"}}, "storage.swap"),
        ({"encryption": {"passphrase": {"file": "passphrase.txt"}}}, "encryption.passphrase"),
        ({"encryption": {"recovery_key": False}}, "encryption.recovery_key"),
        ({"encryption": {"argon2id": {"memory_kib": 65536}}}, "encryption.argon2id"),
        ({"encryption": {"tpm2": {}}}, "encryption.tpm2"),
        ({"encryption": {"fido2": True}}, "encryption.fido2"),
        ({"encryption": {"tang": {"url": "http://192.0.2.9", "thumbprint": "x" * 43}}}, "encryption.tang"),
        ({"encryption": {"secure_boot": "own"}}, "encryption.secure_boot"),
        ({"network": [{"match": "wl*", "wifi": {"ssid": "attic", "passphrase": {"file": "w"}}}]}, "network[0].wifi"),
        ({"user": {"password_hash": HASH, "ssh_keys": [KEY]}}, "user.password_hash"),
        ({"confirm": {"wipe": ["S675NF0R"]}}, "confirm.wipe"),
        ({"after": "power_off"}, "after"),
    ],
)
def test_what_no_card_can_is_refused_by_its_key(tmp_path, more, key):
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, more)
    faults = {fault.key: fault for fault in caught.value.faults}
    assert key in faults and "leave the key away" in faults[key].message
    assert faults[key].place.line > 0
    assert "S675NF0R" not in str(caught.value) and HASH not in str(caught.value)


def test_the_example_of_an_install_is_refused_key_by_key():
    with pytest.raises(ConfigurationError) as caught:
        answered.load(EXAMPLE)
    keys = {fault.key for fault in caught.value.faults}
    assert keys >= {"keyboard", "storage.disk", "storage.swap", "encryption.passphrase", "confirm.wipe"}
    assert "the key of the example" in str(caught.value)


def test_a_card_in_clear_has_nothing_to_say_about_encryption(tmp_path):
    asked = {"encryption": {"remote_unlock": {"ssh_keys": [KEY]}}}
    with pytest.raises(ConfigurationError, match="leave it away, or --no-encryption"):
        load(tmp_path, asked, in_clear=True)


@pytest.mark.parametrize(
    ("output", "options", "said"),
    [
        ("usb", {}, "--answers is for pi, not for usb"),
        ("pi", {"hostname": "attic"}, "leave --hostname and --ssh-key away"),
        ("pi", {"ssh_keys": (Path("me.pub"),)}, "leave --hostname and --ssh-key away"),
    ],
)
def test_answers_are_for_a_card_and_go_without_what_they_say(tmp_path, output, options, said):
    with pytest.raises(UsageError, match=said):
        Asked("development", output, "arm64", answers=load(tmp_path), **options)


def test_two_profiles_are_one_too_many(tmp_path):
    load(tmp_path, {"profile": "development"})
    argv = ["build", "--output", "pi", "--answers", str(tmp_path / "answers.yaml"), "--profile", "personal_node"]
    done = CliRunner().invoke(main.app, argv)
    assert done.exit_code == 2 and "the answers are for development" in " ".join(done.output.split())
