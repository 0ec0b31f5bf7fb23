#!/usr/bin/python
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: facts
short_description: Read the hardware facts that a kOS plan depends on
version_added: "0.1.0"
description:
  - Reads the operating system, architecture, cores, memory, disk, GPUs, link speed and disk encryption of a machine,
    its kOS identity and its current generation. Changes nothing.
author:
  - The kOS authors (@kind-os)
attributes:
  action:
    description: Its outcome is written to the events of the run.
    support: full
  check_mode:
    description: Can run in check mode.
    support: full
  diff_mode:
    description: Has no diff.
    support: none
options:
  root:
    description: The root that is the node, where that is not what runs; disk and operating system are those of it.
    type: path
    default: /
"""

EXAMPLES = r"""
- name: Read the hardware facts
  kind.kos.facts:
  register: machine
"""

RETURN = r"""
hardware:
  description: The hardware facts, as C(kai plan --facts) reads them.
  returned: always
  type: dict
identity:
  description: The node's public key, null before it has one.
  returned: always
  type: str
generation:
  description: The id of the node's current generation, null before the first.
  returned: always
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kind.kos.plugins.module_utils.node import facts, identity, store
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(argument_spec={"root": {"type": "path", "default": "/"}}, supports_check_mode=True)
    root = Root(module.params["root"])
    current = store.current(root)
    module.exit_json(
        changed=False,
        hardware=facts.facts(root),
        identity=identity.public_key(root),
        generation=current.id if current else None,
    )


if __name__ == "__main__":
    main()
