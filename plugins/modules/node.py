#!/usr/bin/python
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: node
short_description: Ask a kOS node about itself, roll it back, or take kOS off it
version_added: "0.1.0"
description:
  - Returns the node's status, the findings of its doctor, its stored generations, or what it is made of; or makes an
    earlier generation current again through the same gate as a deploy.
  - O(query=uninstall) takes kOS off the machine and leaves it as it was before the first deploy.
author:
  - The kOS authors (@kind-os)
attributes:
  action:
    description: Its outcome is written to the events of the run.
    support: full
  check_mode:
    description: Can run in check mode.
    details:
      - O(query=rollback) and O(query=uninstall) do nothing in check mode.
    support: partial
  diff_mode:
    description: Has no diff.
    support: none
options:
  query:
    description: What to ask or do.
    type: str
    required: true
    choices: [facts, status, doctor, generations, composition, rollback, uninstall]
  number:
    description: The generation to go back to; without it, the one committed before the current.
    type: int
  purge:
    description: Whether O(query=uninstall) removes the data volumes, their users and their secrets too.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Read the status
  kind.kos.node:
    query: status
"""

RETURN = r"""
answer:
  description: What was asked for, as a mapping or a list.
  returned: always
  type: raw
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kind.kos.plugins.module_utils.node import (
    composition,
    drift,
    facts,
    rollback,
    status,
    store,
    uninstall,
)
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.outcome import told

QUERIES = {
    "facts": facts.facts,
    "status": status.status,
    "doctor": drift.findings,
    "generations": store.listing,
    "composition": composition.composition,
}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "query": {
                "type": "str",
                "required": True,
                "choices": [*QUERIES, "rollback", "uninstall"],
            },
            "number": {"type": "int"},
            "purge": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    root = Root()
    query = module.params["query"]
    with told(module):
        if query in QUERIES:
            module.exit_json(changed=False, answer=QUERIES[query](root))
        if module.check_mode:
            module.exit_json(changed=True, answer={})
        if query == "uninstall":
            answer = uninstall.uninstall(root, module.params["purge"])
            module.exit_json(changed=answer["removed"], answer=answer)
        answer = rollback.rollback(root, module.params["number"])
        module.exit_json(changed=bool(answer["changes"]), answer=answer)


if __name__ == "__main__":
    main()
