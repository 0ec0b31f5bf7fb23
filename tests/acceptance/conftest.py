# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kOS node is, whichever door built it. Run by testinfra against any node:

pytest tests/acceptance --hosts=ansible://kos --ansible-inventory=inventories/lab
"""

from __future__ import annotations

import json

import pytest


@pytest.fixture(scope="module")
def manifest(host):
    """What the node's current generation declares."""
    return json.loads(host.file("/var/lib/kos/current/manifest.json").content_string)


@pytest.fixture(scope="module")
def planned(manifest):
    """Whether a service is part of this node's generation."""
    names = {service["name"] for service in manifest["services"]}

    def require(name):
        if name not in names:
            pytest.skip(f"{name} is not in the plan of {manifest['profile']}")

    return require
