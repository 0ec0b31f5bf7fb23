# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an installed node's own files say: mounts, networks, name, whom it believes."""

from __future__ import annotations

import json
import os
import stat

import pytest
import yaml

from ansible_collections.kind.kos.plugins.module_utils.node import trust
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.plugin_utils import own_node
from kos_install.actions import configure, identity, mounts, networks, own, target
from kos_install.actions.context import Context
from kos_install.answers import Answers, Interface
from kos_install.errors import ApplyFailed
from kos_install.hardware.model import Machine
from kos_install.storage.actions import Btrfs, Fat, Luks, Mount, Plan

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1MsiQkIu9hP8d3NDsnYePyb+jsvjdbXStCxmYeDSpP nobody"
ESP = "/dev/disk/by-partuuid/6f1b1c52-0000-4000-8000-000000000001"


def answers(**more):
    return Answers.model_validate({"version": 1, "user": {"ssh_keys": [KEY]}, **more})


def luks(name, uuid):
    return Luks(id=f"luks-{name}", device=f"/dev/disk/by-partuuid/{name}", name=name, uuid=uuid, memory_kib=65536,
                iterations=4, threads=1, recovery_key=False)  # fmt: skip


def plan(*more, esp=True, second=False, data=False):
    devices = ["/dev/mapper/kos-root", *(["/dev/mapper/kos-root-2"] if second else [])]
    actions = [luks("kos-root", "aaaa"), *([luks("kos-root-2", "bbbb")] if second else [])]
    actions += [luks("kos-data", "dddd")] if data else []
    actions.append(Btrfs(id="btrfs", devices=devices, label="kos-root", uuid="1111", subvolumes=[]))
    if data:
        actions.append(
            Btrfs(id="btrfs-data", devices=["/dev/mapper/kos-data"], label="kos-data", uuid="2222", subvolumes=[])
        )
    actions += [Fat(id="fat", device=ESP, label="KOS-ESP", volume_id="1A2B3C4D")] if esp else []
    below = "/dev/mapper/kos-data" if data else "/dev/mapper/kos-root"
    actions.append(
        Mount(id="mount", mounts=[
            ("/dev/mapper/kos-root", "/", "subvol=@root.1,noatime"),
            (below, "/var", "subvol=@var,noatime"),
            ("/usr/lib/sysimage/dpkg", "/var/lib/dpkg", "bind"),
            (ESP, "/efi", "umask=0077,noatime"),
        ])
    )  # fmt: skip
    return Plan(actions=actions)


def files(entries):
    return {entry.path: entry for entry in entries}


def rows(entries, path):
    return [line.split() for line in files(entries)[path].content.splitlines() if not line.startswith("#")]


def test_everything_is_mounted_by_what_the_plan_calls_it():
    found = rows(mounts.entries(plan()), "/etc/fstab")
    assert found == [
        ["UUID=1111", "/", "btrfs", "noatime", "0", "0"],
        ["UUID=1111", "/var", "btrfs", "subvol=@var,noatime", "0", "0"],
        ["/usr/lib/sysimage/dpkg", "/var/lib/dpkg", "none", "bind", "0", "0"],
        ["UUID=1A2B-3C4D", "/efi", "vfat", "umask=0077,noatime,nofail", "0", "2"],
    ]
    assert rows(mounts.entries(plan()), "/etc/crypttab") == []


def test_an_esp_that_was_there_before_is_named_by_its_partition():
    found = rows(mounts.entries(plan(esp=False)), "/etc/fstab")[-1]
    assert found[0] == "PARTUUID=6f1b1c52-0000-4000-8000-000000000001"


def test_the_initrd_opens_every_disk_of_the_root_and_the_system_the_others():
    mirrored = plan(second=True, data=True)
    told = mounts.arguments(mirrored)
    assert [word for word in told if word.startswith("rd.luks.name")] == [
        "rd.luks.name=aaaa=kos-root", "rd.luks.name=bbbb=kos-root-2",
    ]  # fmt: skip
    assert {"rootfstype=btrfs", "rootflags=subvol=@root.1", "rw"} <= set(told)
    assert rows(mounts.entries(mirrored), "/etc/crypttab") == [
        ["kos-data", "UUID=dddd", "none", "luks,discard,tries=0"]
    ]
    assert rows(mounts.entries(mirrored), "/etc/fstab")[1][0] == "UUID=2222"
    assert "rootflags=subvol=@root.7" in mounts.arguments(plan(), 7)


def network(**given):
    return Interface.model_validate(given)


def test_networks_by_dhcp_by_hand_and_none():
    assert networks.entries([], {}) == []
    (one,) = networks.entries([network()], {})
    assert (one.path, "Name=en*" in one.content, "DHCP=yes" in one.content) == (
        "/etc/systemd/network/10-kos.network", True, True,
    )  # fmt: skip
    hand = network(match="eno1", dhcp=False, addresses=["192.0.2.7/24", "2001:db8::7/64"], gateway="192.0.2.1",
                   dns=["192.0.2.53"])  # fmt: skip
    (one,) = networks.entries([hand], {})
    wanted = ["Name=eno1", "Address=192.0.2.7/24", "Address=2001:db8::7/64", "Gateway=192.0.2.1", "DNS=192.0.2.53"]
    assert all(f"\n{line}\n" in one.content for line in wanted) and "DHCP" not in one.content


def test_a_vlan_lies_over_its_card():
    found = files(networks.entries([network(match="eno1", vlan={"id": 42})], {}))
    below, device, above = (
        found[f"/etc/systemd/network/10-kos{name}"].content
        for name in (".network", "-vlan42.netdev", "-vlan42.network")
    )
    assert "Name=eno1" in below and "VLAN=vlan42" in below and "DHCP" not in below
    assert "Kind=vlan" in device and "Id=42" in device
    assert "Name=vlan42" in above and "DHCP=yes" in above


def test_a_card_and_the_vlans_over_it_are_one_file_as_networkd_takes_but_one():
    by_hand = network(match="eno1", dhcp=False, addresses=["192.0.2.7/24"])
    asked = [network(), by_hand, network(match="eno1", vlan={"id": 4}), network(match="eno1", vlan={"id": 5})]
    found = {path: entry.content for path, entry in files(networks.entries(asked, {})).items()}
    matching = {path: text for path, text in found.items() if "[Match]\nName=e" in text}
    # The card that is named comes before the pattern that has it too.
    assert sorted(matching) == ["/etc/systemd/network/10-kos.network", "/etc/systemd/network/11-kos.network"]
    card = matching["/etc/systemd/network/10-kos.network"]
    assert card == "[Match]\nName=eno1\n\n[Network]\nAddress=192.0.2.7/24\nVLAN=vlan4\nVLAN=vlan5\n"
    assert "Name=en*" in matching["/etc/systemd/network/11-kos.network"]


@pytest.mark.parametrize(
    ("ssid", "name"), [("Home net_1", "Home net_1.psk"), ("Café", "=436166c3a9.psk"), ("a/../b", "=612f2e2e2f62.psk")]
)
def test_a_radio_network_keeps_its_secret_to_root(ssid, name):
    wifi = {"ssid": ssid, "passphrase": {"prompt": True}}
    found = networks.entries([network(wifi=wifi)], {f"wifi:{ssid}": "  spaces\\ and more"})
    secret = files(found)[f"/var/lib/iwd/{name}"]
    assert (secret.mode, secret.content) == (0o600, "[Security]\nPassphrase=\\s\\sspaces\\\\ and more\n")
    assert "Name=wl*" in files(found)["/etc/systemd/network/10-kos.network"].content
    assert files(found)["/etc/systemd/system/multi-user.target.wants/iwd.service"].to.endswith("iwd.service")


def test_a_radio_secret_that_nobody_gave_is_asked_for():
    asked = answers(network=[{"wifi": {"ssid": "Home", "passphrase": {"prompt": True}}}])
    with pytest.raises(ApplyFailed, match="wifi:Home was not given"):
        configure.entries(Context(asked, Machine(), plan()))


def test_no_secret_is_in_a_file_that_others_read():
    wifi = {"ssid": "Home", "passphrase": {"prompt": True}}
    context = Context(answers(network=[{"wifi": wifi}]), Machine(), plan(), secrets={"wifi:Home": "canary-canary"})
    holding = [entry for entry in configure.entries(context) if "canary" in getattr(entry, "content", "")]
    assert [entry.mode for entry in holding] == [0o600]


def test_language_keyboard_and_clock():
    found = files(identity.entries(answers(locale="de_DE.UTF-8", keyboard="de(nodeadkeys)", timezone="Europe/Berlin")))
    assert found["/etc/locale.gen"].content == "de_DE.UTF-8 UTF-8\n"
    assert found["/etc/locale.conf"].content == "LANG=de_DE.UTF-8\n"
    keyboard = found["/etc/default/keyboard"].content
    assert 'XKBLAYOUT="de"\nXKBVARIANT="nodeadkeys"' in keyboard
    assert found["/etc/localtime"].to == "/usr/share/zoneinfo/Europe/Berlin"
    plain = files(identity.entries(answers(keyboard="ru", storage={"swap": "none"})))
    assert 'XKBLAYOUT="us,ru"\nXKBVARIANT=","\nXKBOPTIONS="grp:' in plain["/etc/default/keyboard"].content
    assert "/etc/locale.gen" not in plain and "/etc/systemd/zram-generator.conf" not in plain


def test_the_node_is_its_own_inventory(tmp_path):
    asked = answers(profile="development", hostname="bench", accept_shortfall=["memory", "disk"],
                    settings={"services": {"cache": None}}, environment="local")  # fmt: skip
    root = Root(str(tmp_path))
    target.lay(root, own.entries(asked, "other"))
    listed = yaml.safe_load((tmp_path / own_node.INVENTORY.lstrip("/")).read_text())["kos"]["hosts"]["bench"]
    assert listed["kos_profile"] == "development" and listed["ansible_connection"] == "local"
    assert listed["kos_accept_shortfall"] == ["disk", "memory"] and listed["kos_environment"] == "local"
    assert listed["kos_user_layer"] == own_node.LAYER
    assert yaml.safe_load((tmp_path / own_node.LAYER.lstrip("/")).read_text()) == {"services": {"cache": None}}
    assert target.lies(root, own.entries(asked, "other"))
    assert not target.lies(root, own.entries(answers(hostname="other"), "other"))


def test_the_profile_is_the_mediums_where_none_is_named():
    text = own.entries(answers(), "personal_node")[0].content
    assert json.loads(text.partition("\n")[2])["kos"]["hosts"]["kos"]["kos_profile"] == "personal_node"


def test_a_node_believes_itself_and_the_maker_of_its_medium(tmp_path):
    root = Root(str(tmp_path))
    (tmp_path / "usr/share/kos/keys").mkdir(parents=True)
    (tmp_path / "usr/share/kos/keys/maker.pub").write_text(f"{KEY}\n")
    assert not own.enrolled(root)
    own.enrol(root)
    own.enrol(root)
    assert own.enrolled(root) and sorted(trust.signers(root)) == ["maker", "this-machine"]
    private = tmp_path / "root/.config/kos/signing_key"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    private.chmod(0o640)
    assert not own.enrolled(root)


def test_a_file_that_was_altered_no_longer_stands(tmp_path):
    root, wanted = Root(str(tmp_path)), [target.File("/etc/hostname", "a\n", 0o600, (os.getuid(), os.getgid()))]
    assert not target.lies(root, wanted)
    target.lay(root, wanted)
    assert target.lies(root, wanted)
    (tmp_path / "etc/hostname").chmod(0o644)
    assert not target.lies(root, wanted)
    link = [target.Link("/etc/localtime", "/usr/share/zoneinfo/UTC")]
    target.lay(root, link)
    assert target.lies(root, link) and not target.lies(root, [target.Link("/etc/localtime", "/elsewhere")])
