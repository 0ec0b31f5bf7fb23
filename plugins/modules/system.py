#!/usr/bin/python
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: system
short_description: Update the whole system of a kOS node, or go back to the one before
version_added: "0.1.0"
description:
  - Prepares an update beside the running system, lets the next start try it, and says how that ended.
  - Only for machines whose disk kos-install laid out.
author:
  - The kOS authors (@kind-os)
attributes:
  action:
    description: Its outcome is written to the events of the run.
    support: full
  check_mode:
    description: Can run in check mode.
    details:
      - Nothing but O(query=system) does anything in check mode.
    support: partial
  diff_mode:
    description: Has no diff.
    support: none
options:
  query:
    description:
      - V(system) tells which systems there are.
      - V(prepare) makes a candidate with all packages up to date; the running system is not touched.
      - V(publish) lets the next start of the machine try the candidate.
      - V(proved) fails unless the system O(number) runs and came up well.
      - V(back) chooses the system before, or O(number), for the next start.
    type: str
    required: true
    choices: [system, prepare, publish, proved, back]
  number:
    description: The number of a system.
    type: int
"""

EXAMPLES = r"""
- name: Prepare an update of the system
  kind.kos.system:
    query: prepare
"""

RETURN = r"""
answer:
  description: What was asked for, as a mapping.
  returned: success
  type: raw
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.node.machine import layout, system_update
from ansible_collections.kind.kos.plugins.module_utils.outcome import told


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "query": {
                "type": "str",
                "required": True,
                "choices": ["system", "prepare", "publish", "proved", "back"],
            },
            "number": {"type": "int"},
        },
        required_if=[("query", "proved", ["number"])],
        supports_check_mode=True,
    )
    root, query, number = Root(), module.params["query"], module.params["number"]
    with told(module):
        if query == "proved":
            _proved(module, root, number)
        if query == "system" or module.check_mode:
            layout.require(root)
            module.exit_json(changed=False, answer=system_update.status(root))
        if query == "back":
            module.exit_json(changed=True, answer=system_update.back(root, number))
        answer = system_update.stage(root) if query == "prepare" else system_update.publish(root)
        module.exit_json(changed=answer["slot"] is not None, answer=answer)


def _proved(module: AnsibleModule, root: Root, number: int) -> None:
    answer = system_update.settle(root)
    if answer["slot"] == number and answer["proved"]:
        module.exit_json(changed=False, answer=answer)
    failed = answer["failed"] or {"slot": number, "reason": "it was not started"}
    module.fail_json(msg=f"system {failed['slot']} did not come up well: {failed['reason']}", reverted=True)


if __name__ == "__main__":
    main()
