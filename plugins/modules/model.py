#!/usr/bin/python
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: model
short_description: Give a kOS node language models, and say which one it serves
version_added: "0.3.0"
description:
  - Lists, adds or removes the language models (GGUF files) that the node's services read.
  - A model is kept under its SHA-256, is verified before any service can see it, and comes from nowhere unasked.
author:
  - The kOS authors (@kind-os)
attributes:
  action:
    description: A file is copied from the controller to the place where it stays.
    support: full
  check_mode:
    description: Can run in check mode.
    support: full
  diff_mode:
    description: Has no diff.
    support: none
options:
  state:
    description:
      - What to do with the model. V(listed) only reads, V(default) makes it the one that is served as C(default).
      - V(offered) is asked by the action plugin before it sends a file.
    type: str
    choices: [listed, offered, present, absent, default]
    default: listed
  name:
    description: What the model is called. With O(state=default), leaving it out means that there is no default.
    type: str
  source:
    description: A file on the controller, or an address (https or http) that the node fetches.
    type: str
  sha256:
    description: The sum that the file must have, as whoever published it says.
    type: str
  default:
    description: Whether it becomes the default. The first model always does.
    type: bool
    default: false
  size:
    description: How many bytes are to be written; for O(state=offered).
    type: int
  part:
    description: Where they were written; set by the action plugin.
    type: str
"""

EXAMPLES = r"""
- name: Give the node a model from the controller
  kind.kos.model:
    state: present
    name: small
    source: /srv/models/small.gguf
    sha256: 0f343b0931126a20f133d67c2b018a3b52ff5dfd7a1d61ea8a9f9e9d5c1f9d55
    default: true
"""

RETURN = r"""
answer:
  description: C(models), every model afterwards (name, sha256, size, default), and C(notes), sentences for people.
  returned: always
  type: dict
here:
  description: Whether the node has the content already.
  returned: state=offered
  type: bool
part:
  description: Where the controller may write it.
  returned: state=offered, when the node does not have it
  type: str
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kind.kos.plugins.module_utils.node import models
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.outcome import told

ARGUMENTS = {
    "state": {"type": "str", "default": "listed", "choices": ["listed", "offered", "present", "absent", "default"]},
    "name": {"type": "str"},
    "source": {"type": "str"},
    "sha256": {"type": "str"},
    "default": {"type": "bool", "default": False},
    "size": {"type": "int"},
    "part": {"type": "str"},
}


def _wanted(options: dict[str, Any]) -> models.Wanted:
    return models.Wanted(options["name"], options["sha256"], options["default"])


def _changed(root: Root, options: dict[str, Any]) -> bool:
    if options["state"] == "absent":
        return models.remove(root, options["name"])
    if options["state"] == "default":
        return models.choose(root, options["name"])
    wanted, source = _wanted(options), options["source"] or ""
    if options["part"] is None and "://" in source:
        return models.fetch(root, wanted, source)
    return models.take(root, wanted, options["part"])


def _would_change(root: Root, options: dict[str, Any]) -> bool:
    known = {row["name"]: row for row in models.listing(root)}
    row, state = known.get(options["name"]), options["state"]
    if state == "absent":
        return row is not None
    if state == "default":
        return not row["default"] if row else any(other["default"] for other in known.values())
    return row is None or row["sha256"] != _wanted(options).sha256


def main() -> None:
    """Entry point of the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[
            ("state", "offered", ("name", "sha256", "size")),
            ("state", "present", ("name", "sha256")),
            ("state", "absent", ("name",)),
        ],
        supports_check_mode=True,
    )
    options, root = module.params, Root()
    if options["state"] != "listed" and os.geteuid() != 0:
        module.fail_json(msg="a node's models are root's to change: connect as root or set ansible_become")
    with told(module):
        if options["state"] == "offered":
            part = models.offer(root, _wanted(options), options["size"])
            module.exit_json(changed=part is not None, here=part is None, part=part)
        changed, notes = False, []
        if options["state"] != "listed" and module.check_mode:
            changed = _would_change(root, options)
        elif options["state"] != "listed":
            changed = _changed(root, options)
            notes = models.announce(root) if changed else []
        module.exit_json(changed=changed, answer={"models": models.listing(root), "notes": notes})


if __name__ == "__main__":
    main()
