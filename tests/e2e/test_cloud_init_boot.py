# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk of `kos-image` with Debian 13's cloud-init and a kernel of its own: it says *error* while it is no node.

`make e2e-cloud_init_boot`. One machine and two boots, because each takes minutes where emulated: the first converge is
refused, what was wrong is mended, and the next start goes on. Then it is what every node is, and restarts once more.
"""

from __future__ import annotations

import os
import shutil

import accepting
import mediums
import pytest
import sshed
import yaml
from labnodes import Lab
from mediabuilds import PROFILE, Builder

from ansible_collections.kind.kos.plugins.plugin_utils import own_node

pytestmark = [
    pytest.mark.long,
    pytest.mark.vm,
    pytest.mark.skipif(bool(mediums.unavailable()), reason=f"no media here: {mediums.unavailable()}"),
]

# Of the machine: less memory than the profile's minimum, which is what is wrong at first.
MEMORY, DISK = 3072, 24 << 30
VAULT = "{kos_secrets: {valkey.password: known-to-the-operator}}\n"
PASSWORD = "of the vault"
BOOT = "cat /proc/sys/kernel/random/boot_id"
STATUS = "cloud-init status --wait --long; echo ended with $?"
# An emulated machine that installs a profile while this one is busy.
PATIENCE = 2400


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("cloud")
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    made = Builder(tmp_path_factory.mktemp("own"), patience=4000)
    made.run("lock")
    return made


@pytest.fixture(scope="module")
def image(builder, folder):
    builder.build("qcow2", folder / "kos.qcow2")
    return folder / "kos.qcow2"


@pytest.fixture(scope="module")
def private(folder):
    return sshed.key(folder / "ssh")


@pytest.fixture(scope="module")
def seed(builder, folder, private):
    """What `kai` renders, on a disk as cloud-init looks for it."""
    work = folder / "seed"
    argv = ["--shape", "seeded", "--profile", PROFILE, "--env", "local", "--hostname", "attic"]
    Lab(f"seed{os.getpid()}").kai(
        "cloud-init", "render", *argv, "--ssh-key", str(private.with_suffix(".pub")), "--output", str(work)
    )
    names = sorted(path.name for path in work.iterdir())
    at = "/build/work"
    builder.tool(work, "mkfs.vfat", "-C", "-n", "CIDATA", f"{at}/seed.img", "4096")
    builder.tool(work, "mcopy", "-i", f"{at}/seed.img", *(f"{at}/{name}" for name in names), "::/")
    return work / "seed.img"


@pytest.fixture(scope="module")
def credentials(folder):
    """The operator's vault, as the machine gets it from who runs it."""
    (folder / "vault").write_text(VAULT)
    (folder / "password").write_text(PASSWORD)
    Lab(f"vault{os.getpid()}").run(
        "ansible-vault", "encrypt", "--vault-password-file", str(folder / "password"), str(folder / "vault")
    )
    return {"kos.vault": (folder / "vault").read_text(), "kos.vault-password": PASSWORD}


def test_a_converge_that_fails_is_an_error_and_is_tried_again(image, seed, private, credentials, folder):
    port = sshed.free_port()
    line = sshed.argv(port, private)
    media = mediums.Media(f"cloud{os.getpid()}")
    options = {"seed": seed, "ssh": port, "size": DISK, "memory": MEMORY, "credentials": credentials}
    with media.booted(image, persist=True, **options) as machine:
        before = sshed.ssh(line, BOOT, patience=PATIENCE)
        said = sshed.ssh(line, STATUS)
        print(f"refused after {machine.seconds():.0f} s", *said, sep="\n")
        assert said[-1] == "ended with 1" and "status: error" in said
        assert any("50-kos" in row for row in said)
        told = "\n".join(sshed.ssh(line, "sudo cat /var/log/cloud-init-output.log"))
        assert "kOS: this machine is not a node: kai deploy ended with 4" in told
        # Whoever only sees the machine's console learns it as well.
        assert "kOS: this machine is not a node: kai deploy ended with 4" in machine.said

        found = yaml.safe_load("\n".join(sshed.ssh(line, f"sudo cat {own_node.INVENTORY}")))
        assert found["kos"]["hosts"]["attic"]["kos_profile"] == PROFILE
        mended = r's/"kos_profile"/"kos_accept_shortfall": ["cpu", "memory", "disk"], "kos_profile"/'
        sshed.ssh(line, f"sudo sed -i '{mended}' {own_node.INVENTORY} && (sudo systemctl reboot; true)")

        sshed.ssh(line, f"[ $({BOOT}) != {before[0]} ]", patience=PATIENCE)
        said = sshed.ssh(line, STATUS, patience=PATIENCE)
        print(f"a node after {machine.seconds():.0f} s", *said, sep="\n")
        assert said[-1] == "ended with 0" and "status: done" in said
        said = "\n".join(sshed.ssh(line, "sudo kai status"))
        assert "attic is healthy" in said and "signed by this-machine" in said
        # The operator's own secret came by a credential, and is in clear nowhere.
        name = "kos-valkey.password"
        sealed = "/var/lib/kos/secrets/valkey.password.cred"
        assert sshed.ssh(line, f"sudo systemd-creds decrypt --name={name} {sealed} -") == ["known-to-the-operator"]
        assert sshed.ssh(line, "sudo grep -rlF known-to-the-operator /etc /var/lib /var/log; true") == []
        inventory = accepting.reached(folder, "attic", port, sshed.options(private))
        accepting.accept(inventory, "attic", "cloud-init", "--profile", PROFILE, "--restart")
        accepting.keep(inventory, "attic", "cloud-init", "vm")
