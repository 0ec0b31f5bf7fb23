#!/usr/bin/python
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: migrate
short_description: Carry a node's data from one profile to another
version_added: "0.2.0"
description:
  - Copies every service's data out before the deploy of another profile, brings into the new services what another
    engine takes over after it, and compares both. Each step may be repeated after an interruption.
  - The source's data stays where it was until O(step=purge).
author:
  - The kOS authors (@kind-os)
attributes:
  action:
    description: Its outcome is written to the events of the run.
    support: full
  check_mode:
    description: Can run in check mode.
    support: partial
    details:
      - Does nothing in check mode.
  diff_mode:
    description: Has no diff.
    support: none
options:
  step:
    description: What to do.
    type: str
    required: true
    choices: [export, import, purge]
  source:
    description: The profile or mode the node runs. Needed by O(step=export) and O(step=import).
    type: str
  target:
    description: The profile or mode it becomes. Needed by O(step=export) and O(step=import).
    type: str
  backup:
    description: Make a backup before the export.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Copy the data out
  kind.kos.migrate:
    step: export
    source: development
    target: personal_node
"""

RETURN = r"""
answer:
  description: What was exported, moved, kept or removed.
  returned: success
  type: dict
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kind.kos.plugins.module_utils.node import migrate
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.outcome import told


def _export(root: Root, options: dict[str, Any]) -> dict[str, Any]:
    return migrate.export(root, options["source"], options["target"], options["backup"])


def _import(root: Root, options: dict[str, Any]) -> dict[str, Any]:
    return migrate.take_in(root, options["source"], options["target"])


def _purge(root: Root, _options: dict[str, Any]) -> dict[str, Any]:
    return migrate.purge(root)


STEPS = {"export": _export, "import": _import, "purge": _purge}


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec={
            "step": {"type": "str", "required": True, "choices": list(STEPS)},
            "source": {"type": "str"},
            "target": {"type": "str"},
            "backup": {"type": "bool", "default": False},
        },
        required_if=[("step", "export", ("source", "target")), ("step", "import", ("source", "target"))],
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.fail_json(msg="a migration moves every service's data: connect as root or set ansible_become")
    if module.check_mode:
        module.exit_json(changed=True, answer={})
    with told(module):
        module.exit_json(changed=True, answer=STEPS[module.params["step"]](Root(), module.params))


if __name__ == "__main__":
    main()
