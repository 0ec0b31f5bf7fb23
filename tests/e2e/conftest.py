# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab of the test session, and fresh nodes in it."""

from __future__ import annotations

import os

import crashtable
import pytest
from labnodes import Lab
from unitimages import Images

# They take longest: of two files side by side, one that began last would leave half of the machine idle.
_FIRST = ["test_install.py", "test_backup.py", "test_media.py"]


def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.lab)
    items.sort(key=lambda item: (*_FIRST, item.path.name).index(item.path.name))


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["crashes"] = crashtable.rows()
        session.config.workeroutput["notes"] = crashtable.notes()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    crashtable.add(getattr(node, "workeroutput", {}).get("crashes", []))
    crashtable.note(getattr(node, "workeroutput", {}).get("notes", []))


def pytest_terminal_summary(terminalreporter):
    for line in crashtable.lines():
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def faultless():
    """Rows of the crash table fail one by one; their test fails at its end, with all of them."""
    before = crashtable.count()
    yield
    assert not crashtable.faults(before), "\n\n".join(crashtable.faults(before))


@pytest.fixture(scope="session")
def lab():
    """The lab of this test session."""
    made = Lab(f"e2e{os.getpid()}")
    yield made
    made.kai("lab", "down")


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Where the container images of this test session are."""
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def images(lab, built):
    """The container images, for one module: to the others a plan looks as it does on a fresh checkout."""
    made = Images(lab, built)
    yield made
    for name in made.environment:
        lab.environment.pop(name, None)


@pytest.fixture(scope="module")
def node(lab, request):
    """A fresh node for one module, with `personal_node` deployed."""
    name = request.module.__name__.rpartition("test_")[2].replace("_", "-")[:12]
    lab.kai("lab", "up", name)
    yield name
    lab.kai("lab", "down", name)


@pytest.fixture(scope="module")
def deployed(lab, node):
    """The module's node, running `personal_node` with the lab's site layer."""
    lab.deploy(node)
    return node
