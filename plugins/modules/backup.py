#!/usr/bin/python
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: backup
short_description: Back up, verify or restore the data of a kOS node
version_added: "0.2.0"
description:
  - Stores one encrypted snapshot of all services in the repositories that the node's profile names, lists and verifies
    snapshots, restores one, and shows the keys that an operator needs.
author:
  - The kOS authors (@kind-os)
attributes:
  action:
    description: Its outcome is written to the events of the run.
    support: full
  check_mode:
    description: Can run in check mode.
    details:
      - O(query=run), O(query=announce_restore), O(query=restore) and O(query=key_exported) do nothing in check mode.
    support: partial
  diff_mode:
    description: Has no diff.
    support: none
options:
  query:
    description:
      - What to do. V(announce_restore) before the first deploy of a node that gets its data back keeps its timer's
        backups from passing for the newest snapshot.
      - V(key_exported) follows V(export_key) once the key has been kept.
    type: str
    required: true
    choices: [run, list, verify, announce_restore, restore, export_key, key_exported, public_key]
  snapshot:
    description: A snapshot's id, or the beginning of it; without it, the newest complete one.
    type: str
  services:
    description: Restore only these services.
    type: list
    elements: str
  overwrite:
    description: Replace data that the services hold, after a safety copy.
    type: bool
    default: false
  share:
    description: How much of the repository's data O(query=verify) reads.
    type: str
    default: 10%
"""

EXAMPLES = r"""
- name: Back up
  kind.kos.backup:
    query: run

- name: Restore the newest complete snapshot onto a fresh node
  kind.kos.backup:
    query: restore
"""

RETURN = r"""
answer:
  description: The run's record, the snapshots, a report or a key.
  returned: success
  type: raw
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kind.kos.plugins.module_utils.node import backup, repository, restore
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.outcome import told


def _run(root: Root, _options: dict[str, Any]) -> Any:
    return backup.start(root)


def _list(root: Root, _options: dict[str, Any]) -> Any:
    with repository.held(root):
        return repository.snapshots(repository.settings(root).repositories[0])


def _verify(root: Root, options: dict[str, Any]) -> Any:
    return restore.verify(root, options["share"], options["snapshot"])


def _restore(root: Root, options: dict[str, Any]) -> Any:
    return restore.restore(root, options["snapshot"], options["services"], options["overwrite"])


def _announce_restore(root: Root, _options: dict[str, Any]) -> Any:
    restore.announce(root)
    return {}


def _export_key(root: Root, _options: dict[str, Any]) -> Any:
    return backup.export_key(root)


def _key_exported(root: Root, _options: dict[str, Any]) -> Any:
    backup.key_exported(root)
    return {}


def _public_key(root: Root, _options: dict[str, Any]) -> Any:
    repository.settings(root)
    return repository.public_key()


QUERIES = {
    "run": _run,
    "list": _list,
    "verify": _verify,
    "announce_restore": _announce_restore,
    "restore": _restore,
    "export_key": _export_key,
    "key_exported": _key_exported,
    "public_key": _public_key,
}
CHANGES = ("run", "announce_restore", "restore", "key_exported")


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "query": {"type": "str", "required": True, "choices": list(QUERIES)},
            "snapshot": {"type": "str"},
            "services": {"type": "list", "elements": "str"},
            "overwrite": {"type": "bool", "default": False},
            "share": {"type": "str", "default": "10%"},
        },
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(msg="backups hold every service's data: connect as root or set ansible_become")
    query = module.params["query"]
    if module.check_mode and query in CHANGES:
        module.exit_json(changed=True, answer={})
    with told(module):
        module.exit_json(changed=query in CHANGES, answer=QUERIES[query](Root(), module.params))


if __name__ == "__main__":
    main()
