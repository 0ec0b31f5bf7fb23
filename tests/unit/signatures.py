# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signed requests, as a controller makes them: with one real key for the whole test run."""

from __future__ import annotations

import atexit
import functools
import os
import tempfile
from pathlib import Path
from unittest import mock

from ansible_collections.kind.kos.plugins.module_utils.node.transaction import Request
from ansible_collections.kind.kos.plugins.plugin_utils import signing


@functools.cache
def signer():
    """The controller of the unit tests."""
    folder = tempfile.TemporaryDirectory(prefix="kos-test-key-")
    atexit.register(folder.cleanup)
    with mock.patch.dict(os.environ, {"XDG_CONFIG_HOME": str(Path(folder.name))}):
        os.environ.pop(signing.VARIABLE, None)
        return signing.signer()


def request(built, **more):
    """What a controller asks of a node for the generation `built`."""
    return Request(built.id, signature=signer().sign(built.id), signer=signer().public, **more)
