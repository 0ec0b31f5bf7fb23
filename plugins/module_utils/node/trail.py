# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the node's kernel reports to the audit trail, and what of it was lost."""

from __future__ import annotations

import re

from . import system

_NUMBER = re.compile(r"^(enabled|pid|lost) (\d+)$", re.MULTILINE)


def figures() -> list[str]:
    """For Prometheus; nothing where there is no audit, or where the kernel is another machine's."""
    try:
        done = system.run(["auditctl", "-s"], check=False)
    except system.CommandFailed:
        return []
    found = {name: int(number) for name, number in _NUMBER.findall(done.stdout.decode())}
    if done.returncode != 0 or {*found} != {"enabled", "pid", "lost"}:
        return []
    return [
        "# HELP kos_audit_written Whether the kernel reports, and somebody takes its reports.",
        "# TYPE kos_audit_written gauge",
        f"kos_audit_written {int(found['enabled'] > 0 and found['pid'] > 0)}",
        "# HELP kos_audit_lost_records_total Reports of the kernel that nobody took in time.",
        "# TYPE kos_audit_lost_records_total counter",
        f"kos_audit_lost_records_total {found['lost']}",
    ]
