# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `kai` says of each node when it is told to stop."""

from __future__ import annotations

import os
import signal

import pytest

from ansible_collections.kind.kos.cli.ansible import terminable
from ansible_collections.kind.kos.cli.view import stopped_view


def event(name, **fields):
    return {"event": name, "host": "n1", **fields}


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([], "Stopped. Nothing was changed."),
        ([event("plan.ready"), event("stage.end")], "Stopped. Nothing was changed."),
        ([event("switch.begin")], "n1 had begun to change and takes it back by itself"),
        ([event("switch.begin"), event("switch.end")], "n1 had begun to change and takes it back by itself"),
        ([event("switch.end"), event("commit.begin")], "n1 was about to finish: kai status says whether it has"),
        ([event("switch.end"), event("commit.end")], "n1 was finished before"),
        ([event("switch.failed", reverted=True)], "n1 had failed before and runs what it ran"),
        ([event("switch.failed", reverted=False)], "n1 had begun to change and takes it back by itself"),
    ],
)
def test_each_node_s_fate_is_told(events, said):
    assert said in stopped_view(events)


def test_sigterm_is_what_ctrl_c_is():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminable():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
