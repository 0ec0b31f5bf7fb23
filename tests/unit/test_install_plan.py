# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From answers and a machine to a plan, or to a refusal with its reasons."""

from __future__ import annotations

import golden_installs
import pytest
from golden_installs import answers, machine
from installs import KEY

from ansible_collections.kind.kos.plugins.plugin_utils.profile import Minimum
from kos_install.errors import Unplannable
from kos_install.hardware.model import Disk, Machine, Nic, Partition
from kos_install.storage import layouts
from kos_install.storage.actions import Table
from kos_install.storage.cost import argon2id
from kos_install.storage.picture import picture
from kos_install.storage.plan import Circumstances, plan, wiped
from kos_install.storage.refusals import MEMORY_LEAST_MB
from kos_install.storage.sizes import GIB, MIB, human

VM = Machine(disks=[Disk(path="/dev/vda", size=12 * 10**9, serial="abc")])
WIFI = {"match": "wl*", "wifi": {"ssid": "home", "passphrase": {"credential": "wifi"}}}
THERE = Circumstances()
ALONE = Circumstances(attended=False)
CREDENTIAL = {"passphrase": {"credential": "pass"}}


def refused(asked, here=VM, circumstances=THERE):
    with pytest.raises(Unplannable) as caught:
        plan(asked, here, circumstances)
    return str(caught.value)


def tables(made):
    return [action for action in made.actions if isinstance(action, Table)]


@pytest.mark.parametrize("name", golden_installs.names())
def test_plans_are_those_that_somebody_reviewed(name):
    reviewed = (golden_installs.FOLDER / f"{name}.txt").read_text()
    assert golden_installs.golden(name) == reviewed, "review the change, then `make golden`"


def test_no_reviewed_plan_is_left_over():
    assert sorted(path.stem for path in golden_installs.FOLDER.glob("*.txt")) == golden_installs.names()
    assert len(golden_installs.names()) >= 25


def test_a_whole_disk():
    made = plan(answers(), VM)
    assert [action.id for action in made.actions] == [
        "release", "wipe", "table", "journal", "luks-kos-root", "btrfs-kos-root", "fat-kos-esp",
        "mount", "unpack", "configure", "converge", "boot", "verify", "finish",
    ]  # fmt: skip
    assert wiped(made) == ["/dev/vda"] and made.warnings == []


def test_the_same_twice_gives_the_same_plan_and_another_disk_or_answer_another():
    first = plan(answers(), VM)
    assert first.digest() == plan(answers(), VM).digest()
    other = Machine(disks=[VM.disks[0].model_copy(update={"serial": "abd"})])
    for made in (plan(answers(hostname="other"), VM), plan(answers(), other)):
        assert made.digest() != first.digest()
        assert not {part.uuid for part in tables(made)[0].make} & {part.uuid for part in tables(first)[0].make}


def test_a_bios_gets_grub_and_a_place_for_its_code():
    made = plan(answers(), machine("bios_pc"))
    assert [part.label for part in tables(made)[0].make] == ["kos-bios", "kos-esp", "kos-journal", "kos-root"]
    assert {action.kind: action for action in made.actions}["boot"].loader == "grub"


def test_both_disks_of_a_mirror_can_start_it():
    here = machine("equal_disks")
    made = plan(answers(storage={"layout": "mirror", "disk": {"serial": "PHAC1"}, "second": {"serial": "PHAC2"}}), here)
    kinds = {action.id: action for action in made.actions}
    assert len(kinds["boot"].esps) == 2 and len(set(kinds["boot"].esps)) == 2
    assert kinds["btrfs-kos-root"].devices == ["/dev/mapper/kos-root", "/dev/mapper/kos-root-2"]
    assert [where for _what, where, _options in kinds["mount"].mounts][-2:] == ["/efi", "/efi-2"]


def test_a_disk_of_its_own_takes_what_the_node_keeps():
    made = plan(
        answers(storage={"disk": {"path": "/dev/sda"}, "data": {"path": "/dev/sdb"}}), machine("bios_two_disks")
    )
    kinds = {action.id: action for action in made.actions}
    assert kinds["btrfs-kos-root"].subvolumes == ["@root.1"]
    assert kinds["btrfs-kos-data"].subvolumes == ["@var", "@log", "@home"]
    at = {where: what for what, where, _options in kinds["mount"].mounts}
    assert at["/"] == "/dev/mapper/kos-root" and at["/var"] == at["/home"] == "/dev/mapper/kos-data"


def test_beside_windows_nothing_of_it_is_touched_and_its_small_esp_is_left_alone():
    made = plan(answers(storage={"layout": "free_space"}), machine("windows11_laptop"))
    (table,) = tables(made)
    assert not table.wipe and wiped(made) == [] and "release" not in {action.id for action in made.actions}
    assert [part.number for part in table.preserve] == [1, 2, 3, 4] and not any(part.shared for part in table.preserve)
    assert [part.number for part in table.make] == [5, 6, 7]
    boot = {action.kind: action for action in made.actions}["boot"]
    assert boot.beside and not boot.shared_esp and not plan(answers(), VM).actions[-3].beside
    assert "to start Windows (NTFS), use the firmware's own menu" in made.warnings[0]


def test_an_esp_that_is_large_enough_is_shared():
    made = plan(answers(storage={"layout": "free_space"}), machine("ubuntu_with_a_gap"))
    kinds = {action.kind: action for action in made.actions}
    esp = machine("ubuntu_with_a_gap").disks[0].partitions[0]
    assert kinds["boot"].shared_esp and kinds["boot"].esps == [f"/dev/disk/by-partuuid/{esp.uuid}"]
    assert "fat" not in kinds and [part.shared for part in kinds["table"].preserve] == [True, False]


def test_what_was_left_of_an_install_that_never_began_is_removed_and_its_room_taken():
    asked, here = answers(storage={"layout": "free_space"}), machine("windows11_laptop")
    first = tables(plan(asked, here))[0]
    left = [Partition(number=one.number, start=one.start, size=one.size, uuid=one.uuid, type=one.type, label=one.label)
            for one in first.make]  # fmt: skip
    disk = here.disks[0].model_copy(update={"partitions": [*here.disks[0].partitions, *left]})
    torn = here.model_copy(update={"disks": [disk, *here.disks[1:]]})
    assert "has partitions of a kOS already" in refused(asked, torn)
    unbegun = disk.model_copy(update={"unbegun": True})
    torn = torn.model_copy(update={"disks": [unbegun, *here.disks[1:]]})
    made = plan(asked, torn)
    (table,) = tables(made)
    assert (table.make, table.preserve) == (first.make, first.preserve)
    assert [part.number for part in table.remove] == [5, 6, 7] and first.remove == []
    assert any("left 3 empty partitions kos-* on /dev/nvme0n1: they are removed" in said for said in made.warnings)
    assert "every partition but empty ones of kOS stays" in picture(torn, made)
    assert wiped(made) == []


@pytest.mark.parametrize(
    ("memory_mb", "cpu", "kib", "threads"),
    [(480, 1, 122880, 1), (1000, 4, 256000, 4), (4096, 2, 1 << 20, 2), (128000, 64, 1 << 20, 4)],
)
def test_what_a_guess_costs_follows_from_the_memory_of_the_machine(memory_mb, cpu, kib, threads):
    cost = argon2id(Machine(memory_mb=memory_mb, cpu=cpu), None)
    assert (cost.memory_kib, cost.iterations, cost.threads) == (kib, 4, threads)


def test_only_a_medium_for_tests_makes_guessing_cheap():
    cheap = answers(encryption={"argon2id": {"memory_kib": 32768}})
    assert "makes guessing too cheap" in refused(cheap)
    made = plan(cheap, VM, Circumstances(test=True))
    assert "for tests only" in made.warnings[0] and "for tests only" not in "".join(plan(answers(), VM).warnings)
    luks = {action.kind: action for action in made.actions}["luks"]
    assert (luks.memory_kib, luks.iterations, luks.threads) == (32768, 4, 1)
    dear = answers(encryption={"argon2id": {"memory_kib": 4 << 20}})
    assert "could not open" in refused(dear)


@pytest.mark.parametrize(
    ("encryption", "more", "said"),
    [
        ({"tpm2": {}}, {}, "shows no TPM 2"),
        ({"tpm2": {}}, {"tpm2": True}, "give tpm2.pin"),
        ({"tpm2": {}}, {"tpm2": True, "firmware": "bios"}, "needs Secure Boot"),
        ({"secure_boot": "own"}, {"firmware": "bios"}, "own needs UEFI"),
        ({"secure_boot": "own"}, {"secure_boot": "on"}, "reset to setup mode"),
        ({"secure_boot": "own"}, {"secure_boot": "off"}, "reset to setup mode"),
        ({"fido2": True}, {}, "no FIDO2 key is plugged in"),
    ],
)
def test_what_the_machine_cannot_do_is_refused_with_what_to_do(encryption, more, said):
    assert said in refused(answers(encryption=encryption), VM.model_copy(update=more))


@pytest.mark.parametrize(
    ("encryption", "more"),
    [
        ({"tpm2": {"pin": {"prompt": True}}}, {"tpm2": True, "secure_boot": "on"}),
        ({"tpm2": {}, "secure_boot": "own"}, {"tpm2": True, "secure_boot": "setup"}),
        ({"fido2": True}, {"fido2": True}),
    ],
)
def test_what_the_machine_can_do_is_planned(encryption, more):
    assert plan(answers(encryption=encryption), VM.model_copy(update=more)).actions


def test_a_tpm_waits_for_secure_boot():
    asked = answers(encryption={"tpm2": {"pin": {"prompt": True}}})
    assert "stays pending" in plan(asked, VM.model_copy(update={"tpm2": True})).warnings[0]


@pytest.mark.parametrize("key", ["tang", "remote_unlock"])
def test_what_unlocks_over_a_network_needs_one(key):
    asked = {
        "tang": {"url": "http://192.0.2.9:7500", "thumbprint": "x" * 43},
        "remote_unlock": {"ssh_keys": [KEY]},
    }
    wired, radio = Nic(name="enp1s0"), Nic(name="wlp2s0", wireless=True)
    encryption = {key: asked[key]}
    for network in ([], [WIFI], [{"match": "wl*"}]):
        here = VM.model_copy(update={"nics": [wired, radio]})
        assert f"encryption.{key} needs a network by cable" in refused(
            answers(network=network, encryption=encryption), here
        )
        assert plan(answers(network=[*network, {}], encryption=encryption), here).warnings == []
    only_radio = VM.model_copy(update={"nics": [radio]})
    assert f"encryption.{key} needs a cable" in refused(answers(encryption=encryption), only_radio)
    assert "no network card is seen here" in plan(answers(encryption=encryption), VM).warnings[0]


def test_a_bios_does_not_start_a_disk_of_large_sectors():
    here = machine("disk_4kn").model_copy(update={"firmware": "bios"})
    assert "sectors of 4096 bytes" in refused(answers(), here) and "by UEFI" in refused(answers(), here)
    small = Disk(path="/dev/sdb", size=12 * 10**9, serial="b")
    both = here.model_copy(update={"disks": [small, *here.disks]})
    assert plan(answers(storage={"disk": {"path": "/dev/sdb"}, "data": {"path": "/dev/sda"}}), both).actions


def test_own_keys_lock_other_systems_out():
    here = machine("windows11_laptop").model_copy(update={"secure_boot": "setup"})
    own = {"secure_boot": "own"}
    assert "by which the system beside kOS starts" in refused(
        answers(storage={"layout": "free_space"}, encryption=own), here
    )
    both = here.model_copy(update={"disks": [*VM.disks, *here.disks]})
    asked = {"storage": {"disk": {"serial": "abc"}}}
    [said] = plan(answers(**asked, encryption=own), both).warnings
    assert said.startswith("with own keys Windows (NTFS) on /dev/nvme0n1 will not start any more")
    assert plan(answers(**asked), both).warnings == []
    windows = {"storage": {"disk": {"path": "/dev/nvme0n1"}}}
    assert not any("own keys" in said for said in plan(answers(**windows, encryption=own), both).warnings)


def test_a_tang_server_is_named_by_its_address():
    named = {"tang": {"url": "http://tang.example:7500", "thumbprint": "x" * 43}}
    assert "nobody looks up names" in refused(answers(encryption=named))


def test_wifi_needs_a_card_that_matches():
    card = VM.model_copy(update={"nics": [Nic(name="wlp2s0", wireless=True)]})
    assert "has no Wi-Fi card" in refused(answers(network=[WIFI]))
    assert "no Wi-Fi card is called en*; there is wlp2s0" in refused(answers(network=[{**WIFI, "match": "en*"}]), card)
    assert plan(answers(network=[WIFI]), card)


def test_no_network_card_is_no_reason_to_refuse():
    """Complaint 13: an install that needs no network asks for none."""
    assert plan(answers(), VM.model_copy(update={"nics": []})).warnings == []
    named = plan(answers(network=[{"match": "eth7"}]), VM).warnings
    assert named == ["no network card is called eth7 here; there is none"]


def test_the_layout_of_the_keyboard_is_a_warning():
    assert "typed on a keyboard of layout de" in plan(answers(keyboard="de"), VM).warnings[0]


def test_below_the_least_memory_nothing_is_begun():
    """Complaint 14: memory that runs out in the middle. Whether the least suffices, no plan can tell."""
    least = VM.model_copy(update={"memory_mb": MEMORY_LEAST_MB})
    said = refused(answers(), least.model_copy(update={"memory_mb": MEMORY_LEAST_MB - 1}))
    assert f"{MEMORY_LEAST_MB} MB are the least for an install" in said
    assert plan(answers(), least)


def test_every_reason_is_told_at_once():
    said = refused(answers(encryption={"tpm2": {}, "fido2": True}), machine("tiny_disk"))
    assert "no TPM 2" in said and "no FIDO2" in said and "too small" in said


# Nobody is there. --------------------------------------------------------------------------------------------------


def test_without_anybody_there_nothing_can_be_typed():
    """Complaint 4: found before anything is written, not behind partitioning."""
    asked = answers(
        encryption={"tpm2": {"pin": {"prompt": True}}},
        network=[{"match": "wl*", "wifi": {"ssid": "home", "passphrase": {"prompt": True}}}],
        confirm={"wipe": ["abc"]},
    )
    here = VM.model_copy(update={"tpm2": True, "nics": [Nic(name="wlan0", wireless=True)]})
    said = refused(asked, here, ALONE)
    for key in ("encryption.passphrase", "encryption.tpm2.pin", "network[0].wifi.passphrase"):
        assert f"{key}: nobody is there" in said


@pytest.mark.parametrize("wipe", [[], ["ABC"], ["ab"], ["/dev/vda"], ["abcd", "*"]])
def test_without_anybody_there_the_exact_serial_number_confirms(wipe):
    """Complaint 7: no mode, default or pattern wipes a disk that nobody named."""
    said = refused(answers(encryption=CREDENTIAL, confirm={"wipe": wipe}), VM, ALONE)
    assert said == "confirm.wipe does not name /dev/vda (12 GB, serial abc), which would be wiped: add abc"
    assert plan(answers(encryption=CREDENTIAL, confirm={"wipe": [*wipe, "abc"]}), VM, ALONE)


def test_every_disk_that_is_wiped_is_confirmed():
    storage = {"disk": {"path": "/dev/sda"}, "data": {"path": "/dev/sdb"}}
    asked = {"storage": storage, "encryption": CREDENTIAL}
    here = machine("bios_two_disks")
    assert "add WD-DATA" in refused(answers(**asked, confirm={"wipe": ["OCZ-1"]}), here, ALONE)
    assert plan(answers(**asked, confirm={"wipe": ["OCZ-1", "WD-DATA"]}), here, ALONE)


def test_free_space_wipes_nothing_and_needs_no_confirmation():
    assert plan(answers(storage={"layout": "free_space"}, encryption=CREDENTIAL), machine("windows11_laptop"), ALONE)


def test_a_disk_without_a_serial_number_is_confirmed_by_its_place():
    here = machine("vm_without_serial")
    assert "add pci-0000:00:04.0" in refused(answers(encryption=CREDENTIAL), here, ALONE)
    assert plan(answers(encryption=CREDENTIAL, confirm={"wipe": ["pci-0000:00:04.0"]}), here, ALONE)
    bare = Machine(disks=[Disk(path="/dev/vda", size=12 * 10**9)])
    assert "install it at the screen" in refused(answers(encryption=CREDENTIAL, confirm={"wipe": [""]}), bare, ALONE)


# Sizes. ------------------------------------------------------------------------------------------------------------

BIG = Circumstances(minimum=Minimum(disk_gb=256, memory_mb=8192, cpu=4), profile="server")


def test_the_minimum_of_the_profile_counts_for_disk_memory_and_cores():
    said = refused(answers(), VM, BIG)
    assert "too small: 230 GB needed" in said
    assert "disk: the profile server needs 256 GB, and here is 12 GB: take another profile, or" in said
    assert "accept_shortfall: [disk]" in said and "memory: " in said and "cpu: " in said, "every reason at once"
    accepted = answers(accept_shortfall=["disk"])
    said = refused(accepted, VM, BIG)
    assert "memory: the profile server needs 8 GB" in said and "cpu: the profile server needs 4 cores" in said
    made = plan(answers(accept_shortfall=["disk", "memory", "cpu"]), VM, BIG)
    assert any("accepted: memory" in line for line in made.warnings)


def test_a_disk_that_is_too_small_for_any_node_is_not_the_profiles_affair():
    said = refused(answers(), machine("tiny_disk"), BIG)
    assert "memory: " in said and "disk: the profile" not in said and "too small" in said


def test_a_confirmation_of_a_disk_that_is_not_here_is_thought_of():
    known = answers(encryption=CREDENTIAL, confirm={"wipe": ["abc"]})
    assert plan(known, VM).warnings == []
    (said,) = plan(answers(encryption=CREDENTIAL, confirm={"wipe": ["abc", "OTHER"]}), VM, ALONE).warnings
    assert said.startswith("confirm.wipe names OTHER, and no disk here is called so")


def test_the_minimum_is_asked_of_the_disk_that_keeps_the_data():
    asked = answers(storage={"disk": {"path": "/dev/sda"}, "data": {"path": "/dev/sdb"}})
    assert plan(asked, machine("bios_two_disks"), Circumstances(minimum=Minimum(disk_gb=1000)))
    assert "too small" in refused(asked, machine("bios_two_disks"), Circumstances(minimum=Minimum(disk_gb=3000)))


def test_the_minimum_is_asked_of_the_gap():
    asked = answers(storage={"layout": "free_space"})
    assert plan(asked, machine("windows11_laptop"), Circumstances(minimum=Minimum(disk_gb=200)))
    said = refused(asked, machine("windows11_laptop"), Circumstances(minimum=Minimum(disk_gb=300)))
    assert "needs a gap of 270 GB on " in said and "its largest is 230 GB: start the system that is there" in said


@pytest.mark.parametrize("sector", [512, 4096])
@pytest.mark.parametrize("size", [8 * 10**9, 12 * 10**9 + 512 * 7 * 8, 4000787030016])
def test_everything_is_aligned_and_leaves_room_for_the_copy_of_the_table(size, sector):
    here = Machine(disks=[Disk(path="/dev/sda", size=size // sector * sector, serial="x", sector=sector)])
    make = tables(plan(answers(), here))[0].make
    assert all(part.start % MIB == 0 and part.size % MIB == 0 for part in make)
    # 128 entries of 128 bytes and a header of one sector, at either end.
    assert make[0].start >= 16384 + 2 * sector
    assert here.disks[0].size - make[-1].start - make[-1].size >= 16384 + sector
    assert next(part for part in make if part.label == "kos-esp").size == GIB


def test_gaps_of_a_table_that_is_not_aligned():
    parts = [Partition(number=1, start=17408, size=5 * MIB), Partition(number=2, start=100 * MIB + 512, size=MIB)]
    assert layouts.gaps(200 * MIB, parts) == [(6 * MIB, 100 * MIB), (102 * MIB, 199 * MIB)]
    over = Partition(number=1, start=MIB, size=500 * MIB)
    assert layouts.gaps(200 * MIB, [over]) == []


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 B"), (MIB, "1 MB"), (512110190592, "512 GB"), (GIB, "1.1 GB"), (999_999_999_999, "1 TB"),
     (2 * 10**12, "2 TB"), (99_960_000_000, "100 GB"), (31_300_000_000, "31.3 GB")],
)  # fmt: skip
def test_sizes_in_words(count, said):
    assert human(count) == said
