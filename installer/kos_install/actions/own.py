# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node as its own operator: its inventory, the layer with its settings, its signing key, whom it believes.

With these `kai deploy` on the installed node does what the installer did.
"""

from __future__ import annotations

from pathlib import Path

from ansible_collections.kind.kos.plugins.module_utils.node import files, trust
from ansible_collections.kind.kos.plugins.module_utils.node.files import NodeError, Root
from ansible_collections.kind.kos.plugins.plugin_utils import own_node, signing
from ansible_collections.kind.kos.plugins.plugin_utils.own_node import INVENTORY, ITSELF, LAYER, MAKER, MAKER_KEY

from ..answers import Answers
from ..errors import ApplyFailed
from .target import Entry, File

SIGNING_KEY = "/root/.config/kos/signing_key"


def entries(answers: Answers, profile: str) -> list[Entry]:
    """The inventory and the layer of a node, as files of it."""
    inventory = own_node.inventory_text(
        answers.hostname, answers.profile or profile, answers.environment, answers.accept_shortfall, user=LAYER
    )
    head = "What this machine has beyond its profile; edit it, then: kai deploy"
    # What is in them is nobody else's business.
    return [
        File(INVENTORY, inventory, 0o600),
        File(LAYER, own_node.yaml_text(head, answers.settings), 0o600),
    ]


def enrol(root: Root) -> None:
    """Make the machine's own signing key, and believe it and the maker of the medium. Raises ApplyFailed, OSError."""
    try:
        own = signing.made(Path(root.join(SIGNING_KEY)), ITSELF).public
        trust.add(root, ITSELF, own)
        maker = files.read(root.join(MAKER_KEY))
        if maker is not None:
            trust.add(root, MAKER, maker.decode())
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
