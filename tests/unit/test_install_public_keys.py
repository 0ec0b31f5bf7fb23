# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A public key is one only when sshd could read it: the machine would let nobody in else, and say nothing of it."""

from __future__ import annotations

import base64
import subprocess

import pytest
from installs import KEY

from ansible_collections.kind.kos.plugins.plugin_utils import public_keys
from kos_install.screens import keys


def line(kind, *fields):
    blob = b"".join(len(field).to_bytes(4) + field for field in fields)
    return f"{kind} {base64.b64encode(blob).decode()} me"


POINT = b"\4" + bytes(64)
N1024 = b"\0\x80" + bytes(127)
ED, RSA, EC = "ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256"


@pytest.mark.parametrize("kind", [["ed25519"], ["rsa", "-b", "2048"], ["ecdsa"], ["ecdsa", "-b", "521"]])
def test_what_ssh_keygen_makes_is_taken_and_has_its_fingerprint(tmp_path, kind):
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-C", "anna at home", "-f", path, "-t", *kind], check=True)
    key = public_keys.checked(path.with_suffix(".pub").read_text())
    shown = subprocess.run(["ssh-keygen", "-lf", path], capture_output=True, text=True, check=True).stdout
    assert f" {public_keys.fingerprint(key)} (" in shown and public_keys.fingerprint(key).endswith(" anna at home")


@pytest.mark.parametrize(
    "good",
    [
        KEY,
        f"  {KEY}\n",
        KEY.rpartition(" ")[0],
        line("sk-ssh-ed25519@openssh.com", b"sk-ssh-ed25519@openssh.com", bytes(32), b"ssh:"),
        line("sk-ecdsa-sha2-nistp256@openssh.com", b"sk-ecdsa-sha2-nistp256@openssh.com", b"nistp256", POINT, b"ssh:"),
        line(EC, EC.encode(), b"nistp256", POINT),
        line(RSA, RSA.encode(), b"\1\0\1", N1024),
    ],
)
def test_what_is_one_is_taken(good):
    assert public_keys.checked(good) == good.strip()
    assert keys.fault(good) == ""


@pytest.mark.parametrize(
    "wrong",
    [
        "", "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-ed25519 AAAA… ada@office", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me",
        KEY[:60], KEY.replace("AAAAC3", "AAAAD3"), KEY.replace("ssh-ed25519", "ssh-rsa"), KEY.replace(" anna", "anna"),
        line(ED, ED.encode(), bytes(31)), line(ED, ED.encode(), bytes(32), b"more"), line(ED, ED.encode()),
        line(ED, RSA.encode(), bytes(32)), line("ssh-dss", b"ssh-dss", b"1", b"2", b"3", b"4"),
        line(RSA, RSA.encode(), b"\3", N1024[:100]), line(RSA, RSA.encode(), b"", N1024),
        line(EC, EC.encode(), b"nistp384", POINT), line(EC, EC.encode(), b"nistp256", b"\2" + bytes(64)),
        "ssh-ed25519-cert-v01@openssh.com AAAA", f'command="sh" {KEY}', f"{KEY}\n{KEY}",
        "-----BEGIN OPENSSH PRIVATE KEY-----",
    ],
)  # fmt: skip
def test_what_is_none_is_refused_without_being_shown(wrong):
    with pytest.raises(
        ValueError, match=r"^not the public key of OpenSSH.* one line of the file that ends in \.pub"
    ) as caught:
        public_keys.checked(wrong)
    assert "AAAA" not in str(caught.value)
    assert keys.read(wrong.splitlines()[0] if wrong else "") in ([], [KEY])


def test_an_example_is_told_as_one():
    for text in ("ssh-ed25519 AAAA… ada@office", "ssh-ed25519 AAAAC3... ada@office"):
        with pytest.raises(ValueError, match="an example of one: put your own there"):
            public_keys.checked(text)
