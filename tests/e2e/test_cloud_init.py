# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `kai cloud-init render` writes, given to Debian 13's own cloud-init: its schema, a machine that pulls itself.

No web server is outside of the lab: one of its nodes is the one that the signed collection is fetched from. Machines
with a kernel of their own are in test_cloud_init_boot.py.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import accepting
import pytest
from labnodes import INVENTORY, ROOT, wait_for

pytestmark = pytest.mark.long

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIN1MsiQkIu9hP8d3NDsnYePyb+jsvjdbXStCxmYeDSpP nobody's {{ 7 * 7 }} 'key'"
URL = "http://store:8099/kind-kos.tar.gz"
BOOT = "cat /proc/sys/kernel/random/boot_id"
SEED = "/var/lib/cloud/seed/nocloud"
INSTALL = """
set -e
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq -y install --no-install-recommends cloud-init sudo >/dev/null 2>&1
"""
# A node of the lab keeps its network, its host keys and its way to the mirror.
KEEP = """\
network: {config: disabled}
ssh_deletekeys: false
apt: {preserve_sources_list: true}
datasource_list: [NoCloud, None]
"""
WEB = "systemd-run --quiet --unit=web python3 -m http.server --directory /srv 8099"
SCHEMA = """
set -e
cd /root/{name}
cloud-init schema --config-file user-data --schema-type cloud-config
cloud-init schema --config-file vendor-data --schema-type cloud-config
[ ! -e network-config ] || cloud-init schema --config-file network-config --schema-type network-config
"""
PUBLIC = ("--collection", URL)
SITE = ROOT / "configs/overrides/lab.yaml"
STATIC = ("--interface", "enp1s0", "--address", "192.0.2.7/24", "--gateway", "192.0.2.1", "--nameserver", "192.0.2.53")
MIRRORS = ("--apt-mirror", "https://mirror.example/debian", "--apt-security-mirror", "https://mirror.example/security")
RENDERED = {
    "pull": ("--profile", "personal_node", *PUBLIC, "--env", "production", "--site", str(SITE), "--sha256", 64 * "0"),
    "push": ("--shape", "push", *STATIC, *MIRRORS),
    "seeded": ("--shape", "seeded", "--profile", "personal_node", "--interface", "52:54:00:12:34:56"),
}


def render(lab, folder, *argv):
    key = folder.parent / "me.pub"
    key.write_text(f"{KEY}\n")
    lab.kai("cloud-init", "render", "--ssh-key", str(key), "--output", str(folder), *argv)
    return folder


def send(lab, node, folder, target):
    packed = subprocess.run(["tar", "-C", folder, "-cf", "-", "."], check=True, capture_output=True).stdout
    archive = folder.parent / f"{folder.name}.tar"
    archive.write_bytes(packed)
    with archive.open("rb") as stream:
        lab.kai("lab", "ssh", node, f"mkdir -p {target} && tar -C {target} --no-same-owner -xf -", stdin=stream)


@pytest.fixture(scope="module")
def machine(lab):
    """A node of the lab with Debian's cloud-init, which nothing has been told yet."""
    lab.kai("lab", "up", "cloud")
    if lab.kai("lab", "ssh", "cloud", INSTALL, check=False).returncode:
        pytest.skip("cloud-init cannot be installed on a lab node: its mirror does not answer")
    lab.kai("lab", "ssh", "cloud", "cat >/etc/cloud/cloud.cfg.d/95_lab.cfg", input=KEEP)
    yield "cloud"
    lab.kai("lab", "down", "cloud")


@pytest.mark.parametrize("shape", RENDERED)
def test_cloud_init_accepts_what_is_rendered(lab, machine, shape, tmp_path):
    folder = render(lab, tmp_path / shape, *RENDERED[shape])
    send(lab, machine, folder, f"/root/{shape}")
    said = lab.ssh(machine, SCHEMA.format(name=shape))
    assert said.count("Valid schema") == (3 if "--interface" in RENDERED[shape] else 2), said


def test_cloud_init_refuses_what_is_wrong(lab, machine, tmp_path):
    """Or its acceptance would say nothing."""
    folder = render(lab, tmp_path / "wrong", *RENDERED["push"])
    text = (folder / "user-data").read_text()
    (folder / "user-data").write_text(text.replace("lock_passwd: true", "lock_passwd: 7"))
    send(lab, machine, folder, "/root/wrong")
    done = lab.kai("lab", "ssh", machine, SCHEMA.format(name="wrong"), check=False)
    assert done.returncode and "lock_passwd" in done.stdout + done.stderr


# --- a machine that pulls itself -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def store(lab, tmp_path_factory):
    """A web server with the signed collection; puts another one there, or one that was altered."""
    folder = tmp_path_factory.mktemp("public")
    packed, signature = map(Path, lab.kai("cloud-init", "publish", "--to", str(folder)).stdout.split())
    packed, signature = packed.rename(folder / "kind-kos.tar.gz"), signature.rename(folder / "kind-kos.tar.gz.sig")
    whole = packed.read_bytes()
    lab.kai("lab", "up", "store")

    def put(extra=b""):
        packed.write_bytes(whole + extra)
        send(lab, "store", folder, "/srv")

    put()
    lab.ssh("store", WEB)
    yield put
    lab.kai("lab", "down", "store")


def start(lab, machine):
    """Start it anew, and wait until its cloud-init has ended; how it ended, and what it says of that."""
    before = lab.ssh(machine, BOOT)
    lab.ssh(machine, "systemctl reboot", check=False)
    wait_for(lambda: lab.ssh(machine, BOOT, check=False) not in ("", before), lab.patience)
    while True:
        # One question at a time: on a busy machine a converge takes longer than a command of the tests may.
        done = lab.kai("lab", "ssh", machine, "timeout 300 cloud-init status --wait --long", check=False)
        if done.returncode != 124:
            return done.returncode, done.stdout


def output(lab, machine):
    return lab.ssh(machine, "cat /var/log/cloud-init-output.log")


@pytest.fixture(scope="module")
def told(lab, machine, store, tmp_path_factory):
    """The machine with user-data that make it pull itself."""
    seed(lab, machine, tmp_path_factory.mktemp("told") / "seed", SITE)
    return machine


def seed(lab, machine, folder, layer):
    """Tell it to pull itself, small as it is, with a layer."""
    argv = ["--profile", "personal_node", "--accept-shortfall", "cpu,memory,disk", "--site", str(layer)]
    render(lab, folder, *argv, *PUBLIC, "--hostname", machine)
    send(lab, machine, folder, SEED)


def test_a_collection_that_was_altered_is_not_used_and_cloud_init_says_so(lab, store, told):
    store(b"altered")
    code, said = start(lab, told)
    assert code == 1 and "status: error" in said and "scripts" in said.replace("_", "-")
    assert "is not signed by the key" in output(lab, told)
    assert lab.ssh(told, "ls /usr/share/ansible/collections 2>/dev/null; true") == ""


def test_what_is_mended_is_tried_again_at_the_next_start(lab, store, told):
    store()
    code, said = start(lab, told)
    assert (code, "status: done" in said) == (0, True), output(lab, told)[-3000:]
    said = lab.ssh(told, "kai status")
    assert f"{told} is healthy" in said and "signed by this-machine" in said


def test_it_is_what_every_node_is(lab, told):
    accepting.accept(
        f"{INVENTORY}/hosts.py", told, "cloud-init", "--profile", "personal_node", environment=lab.environment
    )


def test_a_node_is_left_alone_at_later_starts(lab, told):
    before = lab.ssh(told, "kai status --json")
    assert start(lab, told)[0] == 0
    assert lab.ssh(told, "grep -c 'kOS: this machine is a node' /var/log/cloud-init-output.log") == "1"
    assert before.count("generation")


def test_a_converge_that_fails_is_reported_as_failed(lab, told, tmp_path):
    """Another instance of it, whose gateway cannot bind sshd's port."""
    layer = tmp_path / "site.yaml"
    layer.write_text(SITE.read_text() + "networking: {ports: {frontend: 22}}\n")
    seed(lab, told, tmp_path / "seed", layer)
    code, said = start(lab, told)
    assert code == 1 and "status: error" in said
    assert "kai deploy ended with 5" in output(lab, told)
