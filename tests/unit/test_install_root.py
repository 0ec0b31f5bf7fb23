# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A root that is not booted: links in it lead where the node would be led, never out of it."""

from __future__ import annotations

import os

import pytest

from ansible_collections.kind.kos.plugins.module_utils.node import files
from ansible_collections.kind.kos.plugins.module_utils.node.files import NodeError, Root
from ansible_collections.kind.kos.plugins.module_utils.node.machine import trial


@pytest.fixture
def root(tmp_path):
    (tmp_path / "target/etc").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    return Root(str(tmp_path / "target"))


@pytest.mark.parametrize(
    "link", ["/outside", "../../outside", "../../../../../../../outside", "./../../outside", "/../../outside"]
)
def test_a_link_in_a_target_never_leads_out_of_it(root, tmp_path, link):
    os.symlink(link, root.path + "/etc/kos")
    files.write(root.join("/etc/kos/status/watch.json"), b"{}")
    assert not list((tmp_path / "outside").iterdir())
    assert (tmp_path / "target/outside/status/watch.json").read_bytes() == b"{}"


def test_an_absolute_link_to_the_host_itself_stays_inside(root, tmp_path):
    os.symlink(str(tmp_path / "outside"), root.path + "/etc/kos")
    files.write(root.join("/etc/kos/x"), b"x")
    assert not list((tmp_path / "outside").iterdir())


def test_a_link_that_leads_on_is_followed_as_the_node_would(root, tmp_path):
    os.makedirs(root.path + "/usr/lib/sysimage/kos")
    os.makedirs(root.path + "/var")
    os.symlink("/usr/lib", root.path + "/lib")
    os.symlink("../lib/sysimage", root.path + "/var/lib")
    assert root.state("current") == f"{root.path}/usr/lib/sysimage/kos/current"


def test_the_last_word_is_a_name_and_no_place(root):
    os.symlink("/elsewhere", root.path + "/etc/localtime")
    assert root.join("/etc/localtime") == f"{root.path}/etc/localtime"
    assert root.join("/") == root.path


def test_links_in_a_circle_are_refused(root):
    os.symlink("b", root.path + "/a")
    os.symlink("a", root.path + "/b")
    with pytest.raises(NodeError, match="circle"):
        root.join("/a/x")


def test_what_runs_is_taken_as_it_is():
    assert Root("/").join("/etc/../etc/kos") == "/etc/kos"


def test_a_system_that_was_copied_elsewhere_is_never_restarted_by_its_gate(root, capsys):
    assert trial.judge(root, 0, 0)
    assert "stands alone" in capsys.readouterr().out
