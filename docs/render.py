# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the pages that follow from data or code: `make docs`. A unit test compares them with what this makes."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
import yaml
from typer.cli import get_docs_for_click

from ansible_collections.kind.kos.cli.main import app
from ansible_collections.kind.kos.plugins.plugin_utils import assemble, layers
from ansible_collections.kind.kos.plugins.plugin_utils.profile import Minimum

ROOT = Path(__file__).resolve().parents[1]
_MADE = "<!-- Made by `make docs`; edit the source instead. -->\n"
_BIG = {
    "os": {"id": "debian", "version": "13"}, "architecture": "amd64", "cpu": 64, "memory_mb": 262144,
    "disk_gb": 4000, "gpus": ["nvidia"],
}  # fmt: skip


def profiles_page() -> str:
    """Each profile and mode: what it needs, what it brings, what is not available yet."""
    names = layers.known_names(assemble.COLLECTION / "configs")
    modes = {name for name, path in names.items() if path.parent.name == "modes"}
    parts = [
        "# Profiles and modes",
        _MADE,
        "A *profile* says what a node is for; a *mode* names a profile, a size of machine and features. The tables are"
        " the plan of each on a large amd64 machine with a GPU; `kai plan --profile NAME` shows it for yours.",
        "## Profiles",
        *(_profile_section(name) for name in names if name not in modes),
        "## Modes",
        *(_profile_section(name) for name in names if name in modes),
    ]
    return "\n\n".join(parts) + "\n"


def _profile_section(name: str) -> str:
    planned = assemble.plan(assemble.Request(name), assemble.facts_from(_BIG, "a large machine"))
    plan = planned.plan
    rows = [(", ".join(s.capabilities), s.name, "; ".join(s.reasons)) for s in plan.services]
    lines = [f"### {name}", f"**Needs** {_minimum(plan.deployment.minimum)}.", ""]
    lines += _table(("for", "runs", "why this one"), rows)
    if plan.unavailable:
        lines += ["", "Asked for and not available in this release:", ""]
        lines += [f"- `{row.requested}` ({row.capability}): {row.why}" for row in plan.unavailable]
    if plan.not_acted_on:
        lines += ["", f"Understood, with nothing done about it: {', '.join(f'`{key}`' for key in plan.not_acted_on)}."]
    return "\n".join(lines)


def _minimum(minimum: Minimum) -> str:
    needs = [
        f"{minimum.cpu} {'core' if minimum.cpu == 1 else 'cores'}" if minimum.cpu else "",
        _size(minimum.memory_mb) + " of memory" if minimum.memory_mb else "",
        f"{minimum.disk_gb} GB of disk" if minimum.disk_gb else "",
        f"{minimum.network_mbps} Mbit/s" if minimum.network_mbps else "",
        "a GPU" if minimum.gpu else "",
    ]
    return ", ".join(filter(None, needs)) or "what its services add up to"


def _size(megabytes: int) -> str:
    return f"{megabytes // 1024} GB" if megabytes >= 1024 else f"{megabytes} MB"


def roles_page() -> str:
    """Every role's entry points and variables, from their argument specs."""
    parts = ["# Roles", _MADE, "`site.yml` wires them; none knows of another."]
    for path in sorted((ROOT / "roles").glob("*/meta/argument_specs.yml")):
        specs = yaml.safe_load(path.read_text())["argument_specs"]
        parts.append(f"## kind.kos.{path.parents[1].name}")
        for entry, spec in specs.items():
            parts.append(f"**{entry}**: {_plain(spec['short_description'])}. {_plain(spec.get('description', ''))}")
            parts.append("\n".join(_options(spec.get("options", {}))))
    return "\n\n".join(filter(None, parts)) + "\n"


def modules_page() -> str:
    """Every module's options, examples and answers, from its documentation."""
    parts = ["# Modules", _MADE]
    for path in sorted((ROOT / "plugins/modules").glob("*.py")):
        text = _strings(path)
        documentation = yaml.safe_load(text["DOCUMENTATION"])
        parts += [f"## kind.kos.{path.stem}", f"{_plain(documentation['short_description'])}."]
        parts.append(_plain(documentation["description"]))
        parts.append("\n".join(_options(documentation.get("options", {}))))
        parts.append(f"```yaml\n{text['EXAMPLES'].strip()}\n```")
        answers = yaml.safe_load(text.get("RETURN", "")) or {}
        rows = [(f"`{name}`", row["type"], _plain(row["description"])) for name, row in answers.items()]
        parts.append("\n".join(_table(("returns", "type", "what"), rows)))
    return "\n\n".join(filter(None, parts)) + "\n"


def kai_page() -> str:
    """Every command of `kai` with its options."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="kai")
    text = get_docs_for_click(obj=command, ctx=context, name="kai")
    text = re.sub(r"^#.*\n", "", text, count=1)
    # A docstring shows its examples one a paragraph, so that the terminal does not join them.
    examples = re.compile(r"^Examples?:\n((?:\n+ +\S.*)+)", re.MULTILINE)
    text = examples.sub(lambda found: "\n".join(["```sh", *_commands(found[1]), "```"]), text)
    return f"# kai\n\n{_MADE}\n{text.strip()}\n"


def _commands(examples: str) -> list[str]:
    return [line.strip() for line in examples.splitlines() if line.strip()]


def _strings(path: Path) -> dict[str, str]:
    """The module-level string constants of a Python file."""
    tree = ast.parse(path.read_text())
    return {
        statement.targets[0].id: statement.value.value
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.targets[0], ast.Name)
        and isinstance(statement.value, ast.Constant)
    }


def _options(options: dict[str, Any]) -> list[str]:
    rows = []
    for name, spec in options.items():
        default = "" if spec.get("default") in (None, "") else f"`{spec['default']}`"
        default = "required" if spec.get("required") else default
        kind = spec["type"] + (f": {', '.join(spec['choices'])}" if "choices" in spec else "")
        rows.append((f"`{name}`", kind, default, _plain(spec["description"])))
    return _table(("option", "type", "default", "what"), rows)


def _plain(text: str | list[str]) -> str:
    """Ansible's markup (``O(step=stage)``, ``C(x)``) as Markdown."""
    joined = " ".join(text) if isinstance(text, list) else text
    return re.sub(r"\b[CMOV]\(([^)]*)\)", r"`\1`", joined).strip()


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    return [_row(head), "|" + "---|" * len(head), *map(_row, rows)]


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


PAGES: dict[str, Callable[[], str]] = {
    "profiles.md": profiles_page,
    "reference/roles.md": roles_page,
    "reference/modules.md": modules_page,
    "reference/kai.md": kai_page,
}


def pages() -> Iterator[tuple[Path, str]]:
    """Every page that is made, and its text."""
    for name, make in PAGES.items():
        yield ROOT / "docs" / name, make()


def main() -> None:
    """Write every page."""
    for path, text in pages():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
