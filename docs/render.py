# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write the pages that follow from data or code: `make docs`. A unit test compares them with what this makes."""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import typer
import yaml
from typer.cli import get_docs_for_click

from ansible_collections.kind.kos.cli.exits import Exit
from ansible_collections.kind.kos.cli.main import app
from ansible_collections.kind.kos.plugins.plugin_utils import assemble, layers
from ansible_collections.kind.kos.plugins.plugin_utils.catalogue import Catalogue, load_catalogue
from ansible_collections.kind.kos.plugins.plugin_utils.hardening import Rule, load_rules
from ansible_collections.kind.kos.plugins.plugin_utils.hardware import KindOfHardware
from ansible_collections.kind.kos.plugins.plugin_utils.manifest import Service
from ansible_collections.kind.kos.plugins.plugin_utils.profile import Minimum
from ansible_collections.kind.kos.plugins.plugin_utils.resolver import Plan
from ansible_collections.kind.kos.plugins.plugin_utils.substrates import obstacle
from kos_image.main import app as image_app
from kos_install import answers as install_answers
from kos_install import errors as install_errors
from kos_install import main as install
from kos_install import unattended

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
    if plan.answers:
        lines += ["", "Answered without a service:", ""]
        lines += [f"- `{row.key}: {row.value}` ({row.state}): {row.says}" for row in plan.answers]
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


def services_page() -> str:
    """Every service of the catalogue by tier: where it comes from, what it opens and keeps, what shows it at work."""
    catalogue = load_catalogue(assemble.COLLECTION / "services")
    shown = _shown_by(catalogue)
    deployed = sum(bool(tests) for tests in shown.values())
    counts = (
        f"{len(catalogue.services)} services under {len(catalogue.names)} names; {deployed} of them are deployed by"
    )
    parts = [
        "# Services",
        _MADE,
        f"The catalogue describes {counts} the tests of this release. *Shown by* names what does: a molecule scenario"
        " or an end-to-end test deploys the plan that has the service and waits for its probe; an acceptance test asks"
        " the service itself. Where nothing does, it says why. Ports in bold are open to the network. What no test"
        " deploys is described after its own documentation (the link) and unchecked; an image that no test runs is"
        " marked *never run by our tests*.",
        *(_tier_section(tier, catalogue, shown) for tier in _TIERS),
        "## One asked for, another planned",
        "\n".join(_table(("a profile asks for", "the plan turns to", "because"), list(_stand_ins(catalogue)))),
    ]
    return "\n\n".join(parts) + "\n"


_TIERS = {0: "Kernel extensions", 1: "Base services", 2: "Agents and interfaces", 3: "Adapters"}


def _tier_section(tier: int, catalogue: Catalogue, shown: dict[str, list[str]]) -> str:
    services = [service for service in catalogue.services.values() if service.tier == tier]
    head = ("service", "for", "from", "ports", "keeps", "licence", "shown by, or why not")
    rows = [_service_cells(service, catalogue, shown[service.name]) for service in services]
    return "\n".join([f"## Tier {tier}: {_TIERS[tier]}", "", *_table(head, rows)])


def _service_cells(service: Service, catalogue: Catalogue, tests: list[str]) -> tuple[str, ...]:
    ports = [f"**{port.port}**" if port.exposure == "network" else str(port.port) for port in service.ports]
    kept = [f"`{volume.path}`" for volume in service.volumes]
    kept += [f"`/var/lib/{unit.state_directory}`" for unit in service.units if unit.state_directory]
    why_not = obstacle(service, KindOfHardware("amd64", gpu=True), catalogue.images)
    if service.instead:
        why_not = f"{service.instead.service} takes its place"
    return (
        f"[{service.name}]({service.source})<br>{service.summary}",
        ", ".join(service.provides),
        "<br>".join(_origins(service, catalogue)) or "–",
        ", ".join(dict.fromkeys(_plain_port(text) for text in ports)) or "–",
        "<br>".join(dict.fromkeys(kept)) or "–",
        service.licence,
        "<br>".join(tests) or f"*no*: {why_not or 'no scenario of the tests asks for it'}",
    )


def _plain_port(text: str) -> str:
    return text.replace("@kos:ssh_port@", "sshd's")


def _origins(service: Service, catalogue: Catalogue) -> Iterator[str]:
    substrates = service.substrates
    if substrates.deb:
        yield f"Debian: {', '.join(substrates.deb.packages)}"
    if substrates.container:
        image = catalogue.images[service.image or ""]
        unproven = "" if service.image in _images_run() else "<br>*image never run by our tests*"
        yield f"image: `{image.repository}{f':{image.tag}' if image.tag else ''}`{unproven}"
    if substrates.venv:
        yield f"PyPI: {', '.join(substrates.venv.packages)}"


def _stand_ins(catalogue: Catalogue) -> Iterator[tuple[str, ...]]:
    for name in catalogue.names:
        if name in catalogue.variants:
            service, variant = catalogue.variants[name]
            yield f"`{name}`", f"`{service.name}`", variant.why
        elif instead := catalogue.services[name].instead:
            yield f"`{name}`", f"`{instead.service}`", instead.why


def _shown_by(catalogue: Catalogue) -> dict[str, list[str]]:
    """What exercises each service, read from the scenarios and tests themselves."""
    found: dict[str, list[str]] = {name: [] for name in catalogue.services}
    for path in sorted((ROOT / "molecule").glob("*/molecule.yml")):
        for service in _scenario(path.parent).services:
            found[service.name].append(f"molecule {path.parent.name}")
    for path in sorted((ROOT / "tests/e2e").glob("test_*.py")):
        for name in _deployed_by(path.read_text(), catalogue):
            found[name].append(f"e2e/{path.name}")
    for path in sorted((ROOT / "tests/acceptance").glob("test_*.py")):
        for name in dict.fromkeys(re.findall(r"""planned\(["'](\w+)["']\)""", path.read_text())):
            # On a node without the service this test is skipped, so it shows nothing where nobody deploys it.
            found[name] += [f"acceptance/{path.name}"] if found[name] else []
    return found


@cache
def _images_run() -> frozenset[str]:
    """The images that an end-to-end test builds, to run them."""
    tests = "".join(path.read_text() for path in sorted((ROOT / "tests/e2e").glob("test_*.py")))
    calls = re.findall(r"""images\.build\(([^)]*)\)|"unit", "build", ([^)]*)\)""", tests)
    return frozenset(re.findall(r'"(\w+)"', " ".join(chain.from_iterable(calls))))


def _deployed_by(test: str, catalogue: Catalogue) -> list[str]:
    """The services that an end-to-end test names by a systemd unit, or deploys with a layer that it names."""
    named = [
        service.name
        for service in catalogue.services.values()
        if any(re.search(rf"\b{re.escape(unit.name)}\b", test) for unit in service.units)
    ]
    for path in sorted((ROOT / "configs/overrides").glob("lab-*.yaml")):
        if re.search(rf"\b{re.escape(path.stem)}\b", test):
            named += [service.name for service in _lab_plan("personal_node", path).services]
    return list(dict.fromkeys(named))


def _scenario(folder: Path) -> Plan:
    """The plan that a molecule scenario deploys."""
    variables = yaml.safe_load("".join(path.read_text() for path in sorted((folder / "group_vars").glob("*.yml"))))
    layer = re.search(r"configs/overrides/[\w.-]+", variables.get("kos_site_layer", ""))
    return _lab_plan(variables["kos_profile"], ROOT / layer[0] if layer else None)


def _lab_plan(profile: str, layer: Path | None) -> Plan:
    request = assemble.Request(profile, site=layer)
    return assemble.plan(request, assemble.facts_from({**_BIG, "gpus": []}, "a lab node")).plan


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
    return _commands_page(app, "kai")


def kos_image_page() -> str:
    """Every command of `kos-image` with its options."""
    return _commands_page(image_app, "kos-image")


def kos_install_page() -> str:
    """The options of `kos-install`, how it ends, where answers are left for it, and every key that they may have."""
    reads = install.parser()
    options = [_option_cells(action) for action in reads._actions if action.help != argparse.SUPPRESS]
    schema = json.loads(install_answers.schema())
    files = ", ".join(f"`{name}`" for name in unattended.FILES)
    parts = [
        "# kos-install",
        _MADE,
        f"{reads.description} What it asks, and what it makes of a machine, is in"
        " [the installer's page](../installer.md).",
        "## Options",
        "\n".join(_table(("option", "what"), options)),
        "What does not go together is refused, with what to do:",
        "\n".join([
            *(f"- `--{name}` goes with no other option" for name in install.ALONE),
            *(f"- {_code(sentence)}" for _breaks, sentence in install.RULES),
        ]),
        "## Exit codes",
        "\n".join(_table(("code", "means"), _exits())),
        "They are [those of every command](../exit-codes.md).",
        "## Answers that nobody types",
        "On a medium that starts, answers are looked for in this order; the first that is there counts:",
        "\n".join(_table(("where", "what it takes"), [
            (f"the kernel argument `{unattended.ARGUMENT}`", f"`LABEL=NAME` or a device such as `/dev/sdb1`, a"
             f" partition with one of {files}; `{unattended.OFF}`: nowhere is looked, and the screens ask"),
            (f"the system credential `{unattended.CREDENTIAL}`", "the answers themselves"),
            (f"the partition labelled `{unattended.LABEL}`", f"just one of {files}, and beside it the files that"
             f" its secrets name; the file system is {' or '.join(unattended.TYPES)}. Two partitions of that label are"
             " refused"),
        ])),
        "## Answers",
        "The strict [JSON Schema](../schema/answers.json) is what `kos-install --schema` prints; a key that is not in"
        " it is refused. [An example](../../installer/answers.example.yaml) has every one.",
        "\n".join(_table(("key", "takes", "default", "what"), list(_answer_rows(schema)))),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _option_cells(action: argparse.Action) -> tuple[str, ...]:
    value = f" {action.metavar}" if action.metavar else ""
    return ", ".join(f"`{name}{value}`" for name in action.option_strings), _code(action.help or "")


def _code(sentence: str) -> str:
    """The options in a sentence as code."""
    return re.sub(r"(--[a-z-]+)", r"`\1`", sentence)


def _exits() -> Iterator[tuple[str, ...]]:
    yield str(int(Exit.OK)), "it did what was asked for"
    yield str(int(Exit.UNEXPECTED)), "unexpected; `--verify`: the medium is not proved to be as it was made"
    yield str(int(Exit.USAGE)), _means(install_errors.UsageError)
    yield str(int(Exit.INVALID_CONFIGURATION)), "the answers are not valid: each fault names file, line, key and fix"
    yield str(int(Exit.PREFLIGHT_FAILED)), f"refused, and nothing was touched. {_means(install_errors.Unplannable)}"
    yield str(int(Exit.NOT_REVERTED)), f"{_means(install_errors.ApplyFailed)} {_means(install_errors.VerifyFailed)}"


def _means(error: type[install_errors.InstallError]) -> str:
    """What an error says of itself, in its first paragraph."""
    return " ".join((error.__doc__ or "").split("\n\n")[0].split())


def _answer_rows(schema: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Every key of the answers, also of what is in them, with what it takes; what is alike is told of once."""
    told: dict[str, str] = {}

    def rows(node: dict[str, Any], above: str) -> Iterator[tuple[str, ...]]:
        for name, found in node.get("properties", {}).items():
            kind, inner = _kind(schema, found)
            about = found.get("description") or inner.get("description", "")
            alike = told.setdefault(inner.get("title") or name, f"{above}{name}") if inner else f"{above}{name}"
            first = alike == f"{above}{name}"
            yield f"`{above}{name}`", kind if first else f"as `{alike}`", _default(node, name), about
            if first:
                yield from rows(inner, f"{above}{name}[]." if kind.startswith("list") else f"{above}{name}.")

    yield from rows(schema, "")


def _default(node: dict[str, Any], name: str) -> str:
    if name in node.get("required", ()):
        return "required"
    default = node["properties"][name].get("default")
    return f"`{json.dumps(default)}`" if isinstance(default, str | int) else ""


def _kind(schema: dict[str, Any], node: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """What a value is, in words, and the section that it is or that a list has, if any."""
    if "$ref" in node:
        return "section", schema["$defs"][node["$ref"].rpartition("/")[2]]
    if "anyOf" in node:
        kinds = [_kind(schema, one) for one in node["anyOf"] if one.get("type") != "null"]
        return " or ".join(kind for kind, _inner in kinds), next((inner for _kind, inner in kinds if inner), {})
    if "enum" in node or "const" in node:
        return ", ".join(f"`{value}`" for value in node.get("enum", [node.get("const")])), {}
    if node.get("type") == "array":
        kind, inner = _kind(schema, node.get("items", {}))
        return f"list of {kind}", inner
    if node.get("type") == "integer":
        least, most = node.get("minimum", 0), node.get("maximum")
        return f"{least} to {most}" if most else f"{least} and more", {}
    return {"string": "text", "boolean": "`true`, `false`"}.get(node.get("type", ""), "section"), {}


def _commands_page(application: typer.Typer, name: str) -> str:
    command = typer.main.get_command(application)
    context = typer.Context(command, info_name=name)
    text = get_docs_for_click(obj=command, ctx=context, name=name)
    text = re.sub(r"^#.*\n", "", text, count=1)
    # A docstring shows its examples one a paragraph, so that the terminal does not join them.
    examples = re.compile(r"^Examples?:\n((?:\n+ +\S.*)+)", re.MULTILINE)
    text = examples.sub(lambda found: "\n".join(["```sh", *_commands(found[1]), "```"]), text)
    return f"# {name}\n\n{_MADE}\n{text.strip()}\n"


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


def hardening_page() -> str:
    """Every rule of hardening, and what none does."""
    rules = load_rules(assemble.COLLECTION / "services")
    head = ("rule", "level", "sets", "may break", "CIS")
    parts = [
        "# Rules of hardening",
        _MADE,
        "`security.hardening: {level: none | baseline | strict, off: [rule, …]}`; what it is about is in"
        " [Hardening](../hardening.md). Strict has the rules of baseline too. *Kernel*: set only on a machine with a"
        " kernel of its own, so not in a container. CIS: numbers of its benchmark for Debian 13, 1.0.0.",
        "\n".join(_table(head, [_rule_cells(rule) for rule in rules.rules])),
        "## What no level sets",
        "Benchmarks and scanners ask for these, and this is why no rule does them.",
        "\n".join(
            _table(("what", "why not", "CIS"), [(row.what, row.why, ", ".join(row.cis)) for row in rules.left_out])
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _rule_cells(rule: Rule) -> tuple[str, ...]:
    sets = [f"`{name}={value}`" for name, value in rule.sysctl.items()]
    sets += [f"`{name} {str(value).replace(',', ', ')}`" for name, value in rule.sshd.items()]
    sets += [f"no module `{name}`" for name in rule.modules]
    sets += [f"mode {mode} of `{path}`" for path, mode in rule.modes.items()]
    sets += [f"package `{name}`" for name in rule.packages]
    sets += [f"file `{file.path}`" for file in rule.files]
    where = "<br>*kernel*" if rule.needs else ""
    return (
        f"`{rule.id}`<br>{rule.title}{where}",
        rule.level,
        "<br>".join(sets),
        rule.may_break or "–",
        ", ".join(rule.cis),
    )


PAGES: dict[str, Callable[[], str]] = {
    "profiles.md": profiles_page,
    "services.md": services_page,
    "reference/hardening.md": hardening_page,
    "reference/roles.md": roles_page,
    "reference/modules.md": modules_page,
    "reference/kai.md": kai_page,
    "reference/kos-image.md": kos_image_page,
    "reference/kos-install.md": kos_install_page,
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
    # As a fresh checkout has it: without what was built or resolved here.
    os.environ["KOS_SITE_LOCK"] = os.devnull
    main()
