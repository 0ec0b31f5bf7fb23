# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stages are made once, in order, whole or not at all; what changed is named."""

from __future__ import annotations

import os
import time

import pytest

from kos_image.errors import ImageError, Stopped
from kos_image.stages import Cache, Stage, ordered


class Kitchen:
    """Stages that note when they are made."""

    def __init__(self, folder):
        self.cache = Cache(folder, "test")
        self.made = []

    def stage(self, name, *after, fails=None, **inputs):
        def make(folder, below):
            self.made.append(name)
            text = "".join((below[one.name] / "content").read_text() for one in after)
            (folder / "content").write_text(text + name + "".join(inputs.values()))
            if fails:
                raise fails

        return Stage(name, f"making {name}", make, inputs, after)

    def build(self, *stages):
        self.made.clear()
        found = self.cache.build(stages, lambda *_: None, 2)
        return (found[stages[-1].name] / "content").read_text()


@pytest.fixture
def kitchen(tmp_path):
    return Kitchen(tmp_path / "cache")


def test_a_stage_is_made_after_what_it_builds_on_and_only_once(kitchen):
    root = kitchen.stage("root", packages="1")
    last = kitchen.stage("disk", kitchen.stage("initrd", root), root)
    assert kitchen.build(last) == "root1initrdroot1disk"
    assert kitchen.made == ["root", "initrd", "disk"]
    assert kitchen.build(last) == "root1initrdroot1disk"
    assert kitchen.made == []


def test_what_changed_is_made_again_and_what_did_not_is_kept(kitchen):
    def disk(config):
        root = kitchen.stage("root", packages="1")
        return kitchen.stage("disk", root, kitchen.stage("system", root, config=config))

    kitchen.build(disk("a"))
    outlooks = {one.stage.name: one for one in map(kitchen.cache.outlook, ordered([disk("b")]))}
    assert outlooks["root"].cached and kitchen.cache.size(outlooks["root"].stage) == len("root1")
    assert outlooks["system"].because == "changed: config"
    assert outlooks["disk"].because == "changed: system"
    kitchen.build(disk("b"))
    assert kitchen.made == ["system", "disk"]
    kitchen.build(disk("a"))
    assert kitchen.made == []


def test_a_dry_run_makes_nothing(kitchen):
    assert [kitchen.cache.outlook(one).because for one in ordered([kitchen.stage("root")])] == ["never made"]
    assert not kitchen.cache.folder.exists()


@pytest.mark.parametrize("fails", [ImageError("no"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_stage_that_fails_leaves_nothing_and_keeps_what_was_whole(kitchen, fails):
    root = kitchen.stage("root")
    with pytest.raises(Stopped if isinstance(fails, KeyboardInterrupt) else type(fails)):
        kitchen.build(kitchen.stage("disk", root, fails=fails))
    names = {path.name.partition("-")[0] for path in kitchen.cache.folder.iterdir()}
    assert names == {"root", "lock", "last"}
    assert kitchen.build(kitchen.stage("disk", root)) == "rootdisk"
    assert kitchen.made == ["disk"]


def test_after_a_fault_nothing_new_begins(kitchen):
    def slow(folder, _below):
        time.sleep(0.5)
        (folder / "content").touch()

    first = Stage("slow", "", slow, {})
    with pytest.raises(ImageError):
        kitchen.build(kitchen.stage("fails", fails=ImageError("no")), kitchen.stage("later", first))
    assert "later" not in kitchen.made
    assert [path.name.partition("-")[0] for path in kitchen.cache.folder.glob("*-*") if path.is_dir()] == ["slow"]


def test_what_a_killed_build_left_is_swept(kitchen):
    left = kitchen.cache.folder / "making-root-0"
    left.mkdir(parents=True)
    kitchen.build(kitchen.stage("root"))
    assert not left.exists()


def test_two_builds_do_not_meet(kitchen):
    other = Kitchen(kitchen.cache.folder)

    def make(folder, _below):
        (folder / "content").touch()
        with pytest.raises(ImageError, match="another build is at work"):
            other.build(other.stage("root"))

    kitchen.build(Stage("first", "", make, {}))


def test_what_nobody_asked_for_in_a_fortnight_goes(kitchen):
    kitchen.build(kitchen.stage("old"))
    (mark,) = kitchen.cache.folder.glob("old-*/.used")
    long_ago = time.time() - 15 * 86400
    os.utime(mark, (long_ago, long_ago))
    kitchen.build(kitchen.stage("new"))
    assert [path.name.partition("-")[0] for path in kitchen.cache.folder.glob("*-*") if path.is_dir()] == ["new"]
