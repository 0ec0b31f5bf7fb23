# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Export the tables of `kai plan` and `kai status` as the SVG pictures that README shows: `make pictures`.

Needs a running lab node (`make run`).
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console, RenderableType

from ansible_collections.kind.kos.cli.view import plan_view, status_view

ROOT = Path(__file__).resolve().parents[1]
KAI = Path(sys.executable).parent / "kai"


def _ask(*arguments: str) -> dict:
    argv = [KAI, *arguments, "-i", "inventories/lab", "--json"]
    done = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, check=False)
    return next(iter(json.loads(done.stdout).values()))


def _export(name: str, title: str, view: RenderableType) -> None:
    console = Console(record=True, width=118, file=io.StringIO(), highlight=False)
    console.print(view)
    # Fonts of a foreign host would be fetched by whoever looks at the picture.
    svg = re.sub(r"@font-face \{.*?\}", "", console.export_svg(title=title), flags=re.DOTALL)
    (ROOT / "docs" / "pictures" / f"{name}.svg").write_text(svg)


def main() -> None:
    """Write every picture."""
    _export("plan", "kai plan -i inventories/lab", plan_view(_ask("plan")))
    _export("status", "kai status -i inventories/lab", status_view(_ask("status")))


if __name__ == "__main__":
    main()
