# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from catalogues import ROOT

from ansible_collections.kind.kos.cli.configuration import schemas
from kos_install import answers


def test_the_committed_schemas_are_those_of_the_models():
    """`make schema` writes them again."""
    committed = {path.stem: path.read_text() for path in (ROOT / "docs" / "schema").glob("*.json")}
    assert committed == {**schemas(), "answers": answers.schema()}
