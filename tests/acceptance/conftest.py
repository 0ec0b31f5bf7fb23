# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kOS node is, whichever door built it. Run by testinfra against any node:

pytest tests/acceptance --hosts=ansible://kos --ansible-inventory=inventories/lab/hosts.py --door playbook

docs/acceptance.md has the options, and the environment that stands for them.
"""

from __future__ import annotations

import os

import doors
import needs
import onnode
import pytest
from vantage import Vantage

_SEEN = pytest.StashKey()
_OPTIONS = {
    "--door": "how the node came to be: playbook, usb or cloud-init (KOS_DOOR)",
    "--profile": "the profile that it is to have; default: its inventory's kos_profile (KOS_PROFILE)",
    "--without": "capabilities of that profile, comma-separated, that a layer took away (KOS_WITHOUT)",
    "--outside": "words before a command that run it where a stranger stands: 'ssh elsewhere' (KOS_OUTSIDE)",
    "--reports": "folder for a report on each node, which doors.py joins (KOS_REPORTS)",
}


def pytest_addoption(parser):
    group = parser.getgroup("kos", "what a kOS node is")
    for name, text in _OPTIONS.items():
        group.addoption(name, default=os.environ.get(f"KOS_{name[2:].upper()}", ""), help=text)
    restart = bool(os.environ.get("KOS_RESTART"))
    group.addoption("--restart", action="store_true", default=restart, help="the node may be restarted (KOS_RESTART)")


def pytest_configure(config):
    config.pluginmanager.register(doors.Recorder(config), "kos-doors")


def pytest_collection_modifyitems(items):
    """What restarts the node comes last."""
    items.sort(key=lambda item: "restart" in _needs_of(item))


def _needs_of(item):
    return [name for mark in item.iter_markers("needs") for name in mark.args]


@pytest.fixture(scope="module")
def seen(request, host):
    """What the node is. Looked at once a run, as every check but the last ones leaves it as it was."""
    cache = request.config.stash.setdefault(_SEEN, {})
    name = host.backend.get_pytest_id()
    if name not in cache:
        cache[name] = onnode.told(host, "observe.py")
    return cache[name]


@pytest.fixture(scope="module")
def outside(request, host, seen):
    """Where a stranger to the node stands; None where nothing but its SSH can be reached."""
    return Vantage.of(request.config.getoption("--outside"), _variables(host), seen["place"]["addresses"])


@pytest.fixture(autouse=True)
def shown(request, recorded):
    """Run no check whose needs are not met, and say why."""
    wanted = _needs_of(request.node)
    if not wanted:
        return
    seen = request.getfixturevalue("seen")
    found = {
        **seen,
        "outside": "outside" in wanted and request.getfixturevalue("outside"),
        "may_restart": request.config.getoption("--restart"),
    }
    why = needs.hindrance(wanted, found)
    if why:
        pytest.skip(f"{needs.NOT_SHOWN}{why}")


@pytest.fixture(autouse=True)
def recorded(request, host, seen, record_property):
    """Tell the report which node this is."""
    generation, place = seen["generation"], seen["place"]
    about = {
        "check": _name(request.node),
        "node": place["name"],
        "profile": seen["manifest"]["profile"],
        "generation": generation["id"],
        "place": doors.place(place),
    }
    record_property("kos", about)


def _name(item):
    """A check's name without the node's."""
    parameters = getattr(item, "callspec", None)
    own = [str(value) for name, value in (parameters.params if parameters else {}).items() if "host" not in name]
    return f"{item.path.name}::{item.originalname}{[*own] if own else ''}"


def _variables(host):
    """The inventory's, of this node."""
    return dict(host.ansible.get_variables()) if host.backend.NAME == "ansible" else {}


@pytest.fixture(scope="module")
def profile(request, host, seen):
    """The name of the profile that the node is to have."""
    return request.config.getoption("--profile") or _variables(host).get("kos_profile") or seen["manifest"]["profile"]


@pytest.fixture(scope="module")
def manifest(seen):
    """What the node's current generation declares."""
    return seen["manifest"]


@pytest.fixture(scope="module")
def planned(manifest):
    """Whether a service is part of this node's generation."""
    names = {service["name"] for service in manifest["services"]}

    def require(name):
        if name not in names:
            pytest.skip(f"{needs.NOT_PLANNED}{name} is not in the plan of {manifest['profile']}")

    return require
