# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node as its own operator: its inventory, the layer with its settings, its signing key, whom it believes.

With these `kai deploy` on the installed node does what the installer did.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.kind.kos.plugins.module_utils.node import files, trust
from ansible_collections.kind.kos.plugins.module_utils.node.files import NodeError, Root
from ansible_collections.kind.kos.plugins.plugin_utils import signing
from ansible_collections.kind.kos.plugins.plugin_utils.own_node import INVENTORY, LAYER

from ..answers import Answers
from ..errors import ApplyFailed
from .target import Entry, File

# As a node that was made of our image has it, too.
MEDIA = "/var/lib/kos-media"
BUNDLE = f"{MEDIA}/bundle.kos"
MAKER = "/usr/share/kos/keys/maker.pub"
SIGNING_KEY = "/root/.config/kos/signing_key"
ITSELF = "this-machine"


def entries(answers: Answers, profile: str) -> list[Entry]:
    """The inventory and the layer of a node, as files of it."""
    node: dict[str, Any] = {
        "ansible_connection": "local",
        "ansible_python_interpreter": "/usr/bin/python3",
        "kos_profile": answers.profile or profile,
        "kos_user_layer": LAYER,
    }
    if answers.environment:
        node["kos_environment"] = answers.environment
    if answers.accept_shortfall:
        node["kos_accept_shortfall"] = sorted(answers.accept_shortfall)
    hosts = {"kos": {"hosts": {answers.hostname: node}}}
    settings = _yaml("What this machine has beyond its profile; edit it, then: kai deploy", answers.settings)
    # What is in them is nobody else's business.
    return [
        File(INVENTORY, _yaml("This machine, as its own inventory: kai deploy uses it.", hosts), 0o600),
        File(LAYER, settings, 0o600),
    ]


def _yaml(head: str, data: Mapping[str, Any]) -> str:
    # JSON is YAML, and says exactly which words are text.
    return f"# {head}\n{json.dumps(data, indent=2)}\n"


def enrol(root: Root) -> None:
    """Make the machine's own signing key, and believe it and the maker of the medium. Raises ApplyFailed, OSError."""
    try:
        own = signing.made(Path(root.join(SIGNING_KEY)), ITSELF).public
        trust.add(root, ITSELF, own)
        maker = files.read(root.join(MAKER))
        if maker is not None:
            trust.add(root, "maker", maker.decode())
    except (signing.SigningFailed, NodeError) as error:
        raise ApplyFailed(f"the node cannot be made its own operator: {error}") from error


def enrolled(root: Root) -> bool:
    """Whether its key is there and believed."""
    private, public = (Path(root.join(SIGNING_KEY + end)) for end in ("", ".pub"))
    if not private.is_file() or not public.is_file() or private.stat().st_mode & 0o077:
        return False
    try:
        key, _comment = trust.parse_key(public.read_text(encoding="utf-8"))
        return trust.signers(root).get(ITSELF) == key
    except NodeError:
        return False
