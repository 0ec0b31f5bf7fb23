# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The systemd units and hooks that an installed machine has beside its generation."""

from __future__ import annotations

import re
import subprocess

import pytest

from kos_image import installing
from kos_image.definition import define
from kos_image.recipe import TREES

UNITS = TREES / "installed/usr/lib/systemd/system"
MEDIUM = define("usb", "amd64")
INSTALLED = MEDIUM.installed


def test_multi_user_target_waits_for_nothing_that_waits_for_the_gate():
    """The gate waits for multi-user.target: a unit between the two would stop every boot for good."""
    wanted = [link.rpartition("/")[2] for link in INSTALLED.links if "multi-user.target.wants/kos-" in link]
    assert wanted == ["kos-bless.service", "kos-enrol.service", "kos-mirror.service"]
    for name in [*wanted, "kos-healthy.service"]:
        text = (UNITS / name).read_text()
        assert "DefaultDependencies=no" in text, name
        assert re.search(r"^Conflicts=.*shutdown.target$", text, re.MULTILINE), name
        assert not re.search(r"^(After|Requires)=.*(multi-user|graphical|default)\.target", text, re.MULTILINE)


def test_a_gate_that_fails_restarts_the_machine():
    text = (UNITS / "kos-healthy.service").read_text()
    assert "FailureAction=reboot" in text
    assert "Before=boot-complete.target" in text
    link = "etc/systemd/system/boot-complete.target.requires/kos-healthy.service"
    assert INSTALLED.links[link] == "/usr/lib/systemd/system/kos-healthy.service"


def test_every_link_leads_to_a_unit_of_the_tree():
    own = {name: target for name, target in INSTALLED.links.items() if "/kos-" in name}
    assert all((UNITS / target.rpartition("/")[2]).is_file() for target in own.values())


@pytest.mark.parametrize("hook", ["postinst.d", "postrm.d"])
def test_a_kernel_in_a_candidate_or_an_image_touches_no_boot_entry(hook):
    path = TREES / f"installed/etc/kernel/{hook}/zz-kos"
    for environment in ({"KOS_CANDIDATE": "1"}, {}):
        # This machine was not started by an entry of kOS, so there is nothing to renew either.
        done = subprocess.run([path, "6.12"], env={"PATH": "/usr/bin:/bin", **environment}, check=False)
        assert done.returncode == 0


def test_the_system_has_the_nodes_code_from_the_start():
    names = installing.inputs(MEDIUM, TREES)["code"]
    assert {"__main__.py", "kos_node/machine/system_verbs.py", "kos_node/machine/slots.py"} <= set(names)
    wrapper = (TREES / "installed/usr/sbin/kos-system").read_text()
    assert f"/{installing.NODE}" in wrapper
