# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node that deploys itself says what it is: its own inventory, which `kai deploy` takes by default.

The installer writes it, and so does cloud-init.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

INVENTORY = "/etc/kos/inventory/node.yml"
LAYERS = "/etc/kos/layers"
LAYER = f"{LAYERS}/settings.yaml"
# What its own key is called in its list of those that it believes, and the key of whoever made its bundle.
ITSELF, MAKER = "this-machine", "maker"
# On a machine that was made of a medium: what it installs from, and that key.
MEDIA = "/var/lib/kos-media"
BUNDLE = f"{MEDIA}/bundle.kos"
MAKER_KEY = "/usr/share/kos/keys/maker.pub"

_PAIR = re.compile(r"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}")


def inventory() -> str | None:
    """The inventory of this machine, where it has one."""
    return INVENTORY if Path(INVENTORY).is_file() else None


def inventory_text(
    hostname: str,
    profile: str,
    environment: str | None = None,
    accepted: Iterable[str] = (),
    site: str | None = None,
    user: str | None = None,
) -> str:
    """The inventory of a node; `accepted` shortfalls, and the paths of its layers."""
    given: dict[str, Any] = {
        "kos_environment": environment,
        "kos_site_layer": site,
        "kos_user_layer": user,
        "kos_accept_shortfall": sorted(accepted),
    }
    node = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "/usr/bin/python3",
        "kos_profile": profile,
        **{name: value for name, value in given.items() if value},
    }
    head = "This machine, as its own inventory: kai deploy uses it."
    return yaml_text(head, {"kos": {"hosts": {hostname: node}}})


def yaml_text(head: str, data: Mapping[str, Any]) -> str:
    """`data` as a file with a comment at its head: JSON is YAML, and says exactly which words are text."""
    return f"# {head}\n{_PAIR.sub(_whole, json.dumps(data, indent=2))}\n"


def _whole(found: re.Match[str]) -> str:
    """A character beyond the first 65536, which JSON writes as two halves and YAML as one."""
    text = found[0].replace("\\u", "")
    return f"\\U{ord(bytes.fromhex(text).decode('utf-16-be')):08x}"
