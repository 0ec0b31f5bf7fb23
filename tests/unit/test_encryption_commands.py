# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai encryption`: what is asked of nodes, whence its secrets come, and what the kernel must say of a volume."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from ansible_collections.kind.kos.cli import encryption
from ansible_collections.kind.kos.cli.main import app
from ansible_collections.kind.kos.plugins.module_utils.node import system
from ansible_collections.kind.kos.plugins.module_utils.node.encryption import opening, proof, record, target
from ansible_collections.kind.kos.plugins.module_utils.node.encryption.record import Record
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.node.machine import cryptsetup, luks

SITE = ["-i", "inventories/home"]
PASSPHRASE, NEW = "violet ladder anvil sparrow", "copper window thistle harbour"
REPORT = {
    "changed": True, "directories": ["/var/lib/kos-valkey"], "copies": [{"seconds": 2.0, "bytes": 9}],
    "stopped_seconds": 1.5, "stop": {"stopping": 0.4, "copying": 1.1},
    "findings": [{"what": "the kernel encrypts", "good": True, "found": "crypt"}],
    "plain": ["/var/lib/kos-valkey"],
}  # fmt: skip


@pytest.fixture
def nodes(monkeypatch):
    """Stands for Ansible: answers a query, and keeps what was asked."""
    made = SimpleNamespace(names=["n1"], answers={}, asked=[])

    class Playbook:
        def __init__(self, name, _target, variables, *_more, **_options):
            self.query = variables.get("kos_query", "apply")
            made.asked.append((name, variables))

        def events(self):
            found = made.answers.get(self.query, {})
            return iter([{"event": f"{self.query}.end", "host": "n1", **found}])

        def wait(self):
            return int("msg" in made.answers.get(self.query, {}))

        def said(self):
            return "Ansible said so"

    monkeypatch.setattr(encryption, "Playbook", Playbook)
    monkeypatch.setattr(encryption, "chosen", lambda _target: made.names)
    return made


def run(*arguments, typed=""):
    return CliRunner().invoke(app, ["encryption", *arguments, *SITE], input=typed)


def test_apply_says_how_long_services_were_stopped_and_what_the_kernel_says(nodes):
    nodes.answers = {"apply": {"answer": REPORT}}
    done = run("apply", "--target", "/dev/spare", "--wipe", "/dev/spare", typed=f"{PASSPHRASE}\n")
    assert done.exit_code == 0
    assert "stopped for 1.5 s: stopping 0.4, copying 1.1" in done.output and "the kernel encrypts" in done.output
    [(name, asked)] = nodes.asked
    assert name == "encryption" and asked["kos_encryption_passphrase"] == PASSPHRASE
    assert (asked["kos_encryption"]["target"], asked["kos_encryption"]["wipe"]) == ("/dev/spare", "/dev/spare")


def test_without_a_target_the_inventory_decides(nodes):
    nodes.answers = {"apply": {"answer": REPORT}}
    assert run("apply", typed=f"{PASSPHRASE}\n").exit_code == 0
    assert "kos_encryption" not in nodes.asked[0][1]


def test_a_passphrase_comes_from_a_file_too(nodes, tmp_path):
    nodes.answers = {"rotate": {"answer": {"changed": True}}}
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text(f"{PASSPHRASE}\n")
    new.write_text(NEW)
    assert run("rotate", "--passphrase-file", str(old), "--new-passphrase-file", str(new)).exit_code == 0
    asked = nodes.asked[0][1]
    assert (asked["kos_encryption_passphrase"], asked["kos_encryption_new_passphrase"]) == (PASSPHRASE, NEW)


def test_a_file_that_is_not_there_is_a_sentence(nodes, tmp_path):
    done = run("unlock", "--passphrase-file", str(tmp_path / "none"))
    assert done.exit_code == 2 and "cannot" in done.output and not nodes.asked


def test_what_the_node_refuses_is_shown_and_no_success(nodes):
    nodes.answers = {"unlock": {"msg": "it stays locked; type it again"}}
    done = run("unlock", typed="wrong\n")
    assert done.exit_code == 1 and "it stays locked" in done.output


def test_services_that_stay_sick_after_unlocking_are_no_success(nodes):
    sick = {"service": "valkey", "healthy": False, "detail": "refused"}
    nodes.answers = {"unlock": {"answer": {"opened": True, "services": [sick], "ok": False}}}
    done = run("unlock", typed=f"{PASSPHRASE}\n")
    assert done.exit_code == 1 and "valkey: refused" in done.output


def test_a_recovery_key_is_of_one_node_and_shown_once(nodes):
    nodes.names = ["n1", "n2"]
    assert run("key", "add", "recovery", typed=f"{PASSPHRASE}\n").exit_code == 2
    nodes.names = ["n1"]
    nodes.answers = {"add_key": {"answer": {"kind": "recovery", "recovery_key": "cbdefghi-jklnrtuv"}}}
    assert "cbdefghi-jklnrtuv" in run("key", "add", "recovery", typed=f"{PASSPHRASE}\n").output


def test_a_header_is_kept_in_a_new_file_for_its_owner(nodes, tmp_path):
    nodes.answers = {"header": {"answer": "TFVLUw=="}}
    to = tmp_path / "n1.luks-header"
    assert run("header", "--to", str(to)).exit_code == 0
    assert to.read_bytes() == b"LUKS" and to.stat().st_mode & 0o777 == 0o600
    assert run("header", "--to", str(to)).exit_code == 2


HEADER = {
    "keyslots": {"0": {"key_size": 64, "kdf": {"type": "argon2id", "memory": 262144, "time": 4, "cpus": 2}}},
    "segments": {"0": {"encryption": luks.CIPHER}},
}
UUID = "5ed5ca4b-7f55-4b0d-9d6c-0f1b62f0c1aa"


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """What dmsetup, lsblk and the header say, for each test to change."""
    made = SimpleNamespace(
        table=f"0 4161536 crypt {luks.CIPHER} :64:logon:cryptsetup:x 0 254:16 32768 1 allow_discards",
        below={"path": "/dev/vdb", "type": "disk", "uuid": UUID, "maj:min": "254:16"}, header=HEADER,
    )  # fmt: skip

    def run_program(argv, *_more, **_options):
        said = made.table
        if argv[0] == "lsblk":
            top = {"path": record.DEVICE, "type": "crypt", "uuid": "x", "maj:min": "253:0", "children": [made.below]}
            said = json.dumps({"blockdevices": [top]})
        return SimpleNamespace(stdout=said.encode(), returncode=0)

    monkeypatch.setattr(system, "run", run_program)
    monkeypatch.setattr(cryptsetup, "dump", lambda _device: made.header)
    monkeypatch.setattr(proof, "_directories", lambda _root: iter(()))
    made.wrong = lambda: [
        row.what for row in proof.of(Root(str(tmp_path)), Record("/dev/vdb", UUID, "f")) if not row.good
    ]
    return made


def test_what_the_kernel_says_is_the_proof(kernel):
    assert kernel.wrong() == []


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"table": ""}, "dmsetup table"),
        ({"table": "0 4161536 linear 254:16 2048"}, "dmsetup table"),
        ({"table": f"0 1 crypt {luks.CIPHER} k 0 254:32 32768"}, "lsblk"),
        ({"table": "0 1 crypt cipher_null-ecb k 0 254:16 32768"}, "dmsetup table"),
        ({"header": None}, "is LUKS2"),
        ({"header": {**HEADER, "segments": {"0": {"encryption": "cipher_null-ecb"}}}}, "all of it is encrypted"),
        ({"header": {**HEADER, "keyslots": {"0": {"key_size": 64, "kdf": {"type": "pbkdf2"}}}}}, "argon2id"),
    ],
)
def test_anything_else_is_told(kernel, change, wrong):
    vars(kernel).update(change)
    assert any(wrong in row for row in kernel.wrong()), kernel.wrong()


def test_another_volume_in_its_place_is_told(kernel):
    kernel.below["uuid"] = "another"
    assert kernel.wrong() == ["it is the volume that was made for this node"]


@pytest.mark.parametrize(
    ("path", "why"),
    [("spare", "absolute path"), ("/dev/../etc/x", "absolute path"), ("/etc/hostname", "no disk or partition")],
)
def test_what_is_no_disk_is_refused(path, why):
    with pytest.raises(target.Refused, match=why):
        target.choose(path)


def test_a_file_is_only_made_where_nothing_is(tmp_path):
    there = tmp_path / "there"
    there.write_bytes(b"mine")
    for path, why in ((str(there), "exists"), (str(tmp_path / "no/file"), "folder"), ("/dev/kos", "place for devices")):
        with pytest.raises(target.Refused, match=why):
            target.choose(path, create=True, size=1 << 20)
    assert there.read_bytes() == b"mine"


def _row(**changed):
    row = {"path": "/dev/vdb", "type": "disk", "size": 1 << 30, "serial": "s", "ro": False, "pttype": None,
           "partlabel": None, "mountpoints": [None]}  # fmt: skip
    return {**row, **changed}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (_row(ro=True), "cannot be written to"),
        (_row(type="rom"), "is a rom"),
        (_row(mountpoints=["/srv"]), r"in use \(/srv\)"),
        (_row(mountpoints=["[SWAP]"]), r"in use \(\[SWAP\]\)"),
        (_row(children=[_row(path="/dev/vdb1", type="part", mountpoints=["/boot"])]), r"in use \(/boot\)"),
        (_row(children=[_row(path="/dev/mapper/vg-x", type="lvm")]), "in use .lvm /dev/mapper/vg-x"),
        (_row(pttype="gpt"), "an empty gpt partition table"),
        (_row(pttype="gpt", children=[_row(path="/dev/vdb1", type="part", partlabel="photos")]),
         r"a partition on /dev/vdb1 \(photos\)"),
    ],
)  # fmt: skip
def test_a_disk_with_anything_on_it_is_refused(row, why, monkeypatch):
    _seen(monkeypatch, row)
    with pytest.raises(target.Refused, match=why):
        target.choose("/dev/vdb")


def test_a_blank_partition_is_taken_though_lsblk_tells_of_the_table_that_it_stands_in(monkeypatch):
    _seen(monkeypatch, _row(path="/dev/vdb1", type="part", pttype="gpt"))
    assert target.choose("/dev/vdb1").holds == []


def _seen(monkeypatch, row):
    answer = {"lsblk": {"blockdevices": [row]}, "wipefs": {"signatures": []}}
    said = {name: json.dumps(content).encode() for name, content in answer.items()}
    monkeypatch.setattr(system, "run", lambda argv, **_how: SimpleNamespace(stdout=said[argv[0]], returncode=0))
    monkeypatch.setattr(target, "_blank", lambda _path: True)
    monkeypatch.setattr(target, "_device", lambda path: path)


def test_what_nobody_can_name_is_refused_too(monkeypatch):
    monkeypatch.setattr(
        target, "look", lambda path: target.Target(path, "disk", 1, holds=["data that nobody here can name"])
    )
    with pytest.raises(target.Refused, match="nobody here can name"):
        target.choose("/dev/vdb")


@pytest.mark.parametrize(
    "memory_mb, kib", [(512, 131072), (1024, 262144), (4096, 1 << 20), (65536, 1 << 20), (128, 65536)]
)
def test_the_cost_of_a_guess_follows_from_this_machines_memory(memory_mb, kib):
    assert luks.affordable(memory_mb, 8) == luks.Cost(kib, 4, 4)


def test_at_boot_a_key_of_the_machine_that_failed_is_a_failure(monkeypatch, tmp_path):
    root = Root(str(tmp_path))
    monkeypatch.setattr(opening, "load", lambda _root: Record("/dev/vdb", UUID, "f"))
    monkeypatch.setattr(opening, "in_use", lambda _root: True)
    monkeypatch.setattr(opening, "_NETWORK", 0)
    monkeypatch.setattr(opening, "_AGAIN", 0)
    monkeypatch.setattr(opening, "wait_for_disk", lambda _record: None)
    header = {**HEADER, "tokens": {"0": {"type": "clevis", "keyslots": ["1"]}}}
    monkeypatch.setattr(cryptsetup, "dump", lambda _device: header)
    ran = []

    def fails(argv, **_how):
        ran.append(argv)
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr(system, "run", fails)
    with pytest.raises(record.Locked, match="no key of this machine"):
        opening.at_boot(root)
    assert ran[0] == ["clevis", "luks", "unlock", "-d", f"/dev/disk/by-uuid/{UUID}", "-n", record.NAME]


def test_a_disk_that_is_not_there_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(opening, "_DISK", 0)
    with pytest.raises(opening.NoDisk, match=r"\(/dev/vdb\) is not there: plug it in"):
        opening.wait_for_disk(Record("/dev/vdb", UUID, "f"))


@pytest.mark.parametrize(("pin", "tried"), [(True, ["cryptsetup", "systemd-cryptsetup"]), (False, ["cryptsetup"])])
def test_what_was_typed_is_a_pin_only_where_the_chip_asks_for_one(monkeypatch, tmp_path, pin, tried):
    token = {"type": luks.TPM2, "keyslots": ["1"], "tpm2-pin": pin}
    monkeypatch.setattr(cryptsetup, "dump", lambda _device: {**HEADER, "tokens": {"0": token}})
    monkeypatch.setattr(opening.enrol, "MEMORY", str(tmp_path))
    ran = []

    def fails(argv, *_more, environment=None, **_how):
        folder = (environment or {}).get("CREDENTIALS_DIRECTORY")
        secret = (tmp_path / folder / "cryptsetup.luks2-pin").read_text() if folder else ""
        ran.append((argv[0].rpartition("/")[2], secret))
        assert PASSPHRASE not in " ".join(argv)
        return SimpleNamespace(returncode=1)

    monkeypatch.setattr(system, "run", fails)
    with pytest.raises(opening.WrongKey):
        opening.by_hand(Root(str(tmp_path)), Record("/dev/vdb", UUID, "f"), PASSPHRASE)
    assert [name for name, _secret in ran] == tried
    assert [secret for _name, secret in ran[1:]] == [PASSPHRASE] * (len(tried) - 1)
