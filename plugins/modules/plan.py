#!/usr/bin/python
# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: plan
short_description: Resolve a profile for a machine and build its generation
version_added: "0.1.0"
description:
  - Merges the profile and its layers, chooses a service for each capability, and renders the generation. Runs on the
    controller; the node is not touched.
  - Fails with every fault of the configuration, or with every shortfall of the machine that was not accepted.
author:
  - The kOS authors (@kind-os)
attributes:
  action:
    description: Runs on the controller only.
    support: full
  check_mode:
    description: Can run in check mode.
    support: full
  diff_mode:
    description: Has no diff.
    support: none
options:
  profile:
    description: A profile or mode by name.
    type: str
    required: true
  environment:
    description: A layer of C(configs/environments) by name.
    type: str
  site_layer:
    description: The site's overrides; default is C(configs/overrides/site_overrides.yaml) where it exists.
    type: path
  user_layer:
    description: The user's overrides; default is C(configs/overrides/user_overrides.yaml) where it exists.
    type: path
  configs:
    description: The tree of profiles, modes and layers; default is the collection's own.
    type: path
  accept_shortfall:
    description: Resources that may be below the minimum.
    type: list
    elements: str
    choices: [cpu, memory, disk, gpu, network]
    default: []
  cluster:
    description: The group of the inventory whose hosts are one cluster with this one; default is that there is none.
    type: str
  hardware:
    description: The machine's facts, as M(kind.kos.facts) returns them.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Resolve the plan
  kind.kos.plan:
    profile: personal_node
    hardware: "{{ machine.hardware }}"
  register: planned
"""

RETURN = r"""
plan:
  description: The plan, as C(kai plan --json) prints it.
  returned: always
  type: dict
id:
  description: The generation's id.
  returned: success
  type: str
archive:
  description: The generation's archive on the controller.
  returned: success
  type: str
node:
  description: What the node must remember, for M(kind.kos.converge).
  returned: success
  type: dict
"""
