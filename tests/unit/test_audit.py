# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `make audit` reads out of what scanners say."""

from __future__ import annotations

import sys

import pytest
from catalogues import ROOT

from ansible_collections.kind.kos.plugins.plugin_utils.hardening import load_rules

RULES = load_rules(ROOT / "services")
LOG = """
10:00:00 Performing test ID SSH-7408 (Check SSH specific defined options)
10:00:00 Hardening: assigned partial number of hardening points (1 of 3). Currently having 1 points (out of 3)
10:00:00 Hardening: assigned maximum number of hardening points for this item (3). Currently having 4 points (out of 6)
10:00:01 Performing test ID USB-3000 (Check for presence of USBGuard)
10:00:01 Hardening: assigned partial number of hardening points (0 of 8). Currently having 4 points (out of 14)
10:00:02 Performing test ID FINT-4350 (File integrity software installed)
10:00:02 Hardening: assigned maximum number of hardening points for this item (5). Currently having 9 points (out of 19)
"""


@pytest.fixture(scope="module")
def audit():
    """The program, which lies beside its neighbours and not in a package."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import audit as module
    finally:
        sys.path.pop(0)
    return module


def test_points_are_missing_where_lynis_did_not_give_them(audit):
    assert audit.lost_points(LOG) == {"SSH-7408": 2, "USB-3000": 8}


def test_what_the_host_decides_is_an_exception_in_a_container_only(audit):
    setting, left_out = "sysctl_kernel_kptr_restrict", "package_ufw_installed"
    assert {setting, left_out} <= {*audit.exceptions(RULES, shared_kernel=True)}
    assert setting not in audit.exceptions(RULES, shared_kernel=False)
    assert left_out in audit.exceptions(RULES, shared_kernel=False)


def test_nothing_is_left_out_twice():
    names = [name for row in RULES.left_out for name in row.scanner]
    assert sorted(names) == sorted(set(names))
