# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The secrets that the members of a cluster share, for the node that is one."""

from __future__ import annotations

DOCUMENTATION = r"""
name: cluster_secrets
author:
  - The kOS authors (@kind-os)
short_description: The secrets that the members of a cluster share
version_added: "0.1.0"
description:
  - Gives the cluster's secrets as kos_secrets has them. They are made on first use and kept on the controller, below
    C(kos/clusters) beside the signing key, readable by its user alone.
options:
  _terms:
    description: Names of clusters; an empty one has no secrets.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Give a node what it shares with its peers
  ansible.builtin.set_fact:
    site_secrets: "{{ lookup('kind.kos.cluster_secrets', kos_cluster) }}"
  no_log: true
"""

RETURN = r"""
_raw:
  description: For each cluster, its secrets by C(service.name).
  type: list
  elements: dict
"""

from typing import Any

from ansible.plugins.lookup import LookupBase

from ..plugin_utils import clusters


class LookupModule(LookupBase):
    """One dictionary of secrets for each cluster."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, str]]:
        """Return the secrets of the clusters `terms`."""
        self.set_options(var_options=variables, direct=kwargs)
        return [{clusters.SECRET: clusters.secret(name)} if name else {} for name in terms]
