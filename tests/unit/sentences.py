# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the installer's sources say to a person, read from their syntax."""

from __future__ import annotations

import ast
from pathlib import Path

from ansible_collections.kind.kos.plugins.plugin_utils.catalogue import load_catalogue
from ansible_collections.kind.kos.plugins.plugin_utils.profile import Services
from kos_install.screens import offers

INSTALLER = Path(__file__).resolve().parents[2] / "installer" / "kos_install"
RESOLVING = "../../plugins/plugin_utils"
# Modules whose sentences reach a person through the engine. A value in them stands as {}.
CORE = (
    "storage/selection.py",
    "storage/refusals.py",
    "storage/cautions.py",
    "storage/layouts.py",
    "storage/cost.py",
    "ready.py",
    "beforehand.py",
    "engine/confirmation.py",
    "engine/engine.py",
    "engine/outcome.py",
    "engine/this_machine.py",
    "medium.py",
    *(f"{RESOLVING}/{name}.py" for name in ("resolver", "substrates", "contradictions", "gateway", "hardware")),
    *(f"{RESOLVING}/{name}.py" for name in ("standing_for", "faults", "media_check")),
)


def marked():
    """Every text in a call of _(), by the file it stands in."""
    found = {}
    for path in sorted((INSTALLER / "screens").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_"
            if called and isinstance(node.args[0], ast.Constant):
                found.setdefault(node.args[0].value, path.name)
    return found


def core():
    """Every sentence of the core: with a space in it, and no documentation."""
    found = {}
    for name in CORE:
        tree = ast.parse((INSTALLER / name).read_text())
        inside = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in ast.walk(node)}
        documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        documented |= {
            id(node.value) for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "description"
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                text = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside | documented:
                text = node.value
            else:
                continue
            if len(text.replace("{}", "").split()) > 2:
                found.setdefault(text, name)
    return found


def summaries():
    """What each service is that a person can be offered."""
    services = load_catalogue(INSTALLER.parents[1] / "services").services.values()
    offered = {*Services.model_fields} - offers._FIXED
    return {service.summary: "services" for service in services if offered & {*service.provides}}
