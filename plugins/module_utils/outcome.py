# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a module says what went wrong on the node: one sentence, and what is known of the way back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from .node.files import NodeError, spoken
from .node.transaction import SwitchFailed


@contextlib.contextmanager
def told(module: Any) -> Iterator[None]:
    """End the AnsibleModule `module` with a sentence for whatever the node's core or its system refused."""
    # As the node's own verbs: never what the person's session has.
    os.umask(0o022)
    try:
        yield
    except SwitchFailed as error:
        module.fail_json(msg=str(error), reverted=error.reverted, health=[row.as_dict() for row in error.health])
    except NodeError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=spoken(error))
