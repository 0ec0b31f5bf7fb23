# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation says is true: made pages are in step, links lead somewhere, commands parse, YAML is valid."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import chains
import pytest
import typer
import yaml

from ansible_collections.kind.kos.cli.main import app
from ansible_collections.kind.kos.plugins.plugin_utils import assemble
from ansible_collections.kind.kos.plugins.plugin_utils.documents import parse_document

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def _tracked():
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-co", "--exclude-standard", "*.md"], capture_output=True, text=True, check=True
    ).stdout
    return [ROOT / name for name in listed.splitlines() if (ROOT / name).is_file()]


PAGES = _tracked()


def _name(path):
    return str(path.relative_to(ROOT))


def _render():
    spec = importlib.util.spec_from_file_location("docs_render", ROOT / "docs/render.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_made_pages_are_in_step_with_their_sources():
    stale = [_name(path) for path, text in _render().pages() if not path.exists() or path.read_text() != text]
    assert not stale, "run `make docs`"


def _anchors(path):
    headings = re.findall(r"^#+ +(.*)$", re.sub(_FENCE, "", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page):
    broken = []
    for link in _LINK.findall(re.sub(_FENCE, "", page.read_text())):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in _anchors(target)):
            broken.append(link)
    assert not broken


def _kai_lines(page):
    for language, block in _FENCE.findall(page.read_text()):
        if language not in ("sh", "bash"):
            continue
        for line in block.replace("\\\n", " ").splitlines():
            found = re.match(r"(?:\.venv/bin/|sudo )*kai (.*)", line.strip())
            if found:
                words = shlex.split(re.split(r"[|;>&]", found[1])[0], comments=True)
                # A line that talks of any command (`kai COMMAND --help`) has nothing to parse.
                if words and not words[0].isupper():
                    yield line.strip(), words


def _fault(words):
    """What the command line's own parser says of `words`; nothing runs, and no file has to exist."""
    command, context = typer.main.get_command(app), None
    while hasattr(command, "commands") and words and words[0] in command.commands:
        context = command.context_class(command, parent=context, info_name="kai")
        command, words = command.commands[words[0]], words[1:]
    if hasattr(command, "commands"):
        return f"no such command: {words}" if words and words != ["--help"] else None
    context = command.context_class(command, parent=context, info_name="kai", **command.context_settings)
    try:
        command.make_parser(context).parse_args(args=list(words))
    except Exception as error:
        return str(error) or type(error).__name__
    return None


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_kai_command_exists_with_its_options(page):
    wrong = {line: fault for line, words in _kai_lines(page) if (fault := _fault(words))}
    assert wrong == {}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_yaml_example_can_be_read(page):
    for language, block in _FENCE.findall(page.read_text()):
        if language == "yaml" and not block.lstrip().startswith("-"):
            parse_document(re.sub(r"\{\{.*?\}\}", "x", block), _name(page))


def test_every_sentence_of_the_errors_page_is_one_that_the_code_says():
    """The page quotes messages; a message that was reworded must be reworded there."""
    folders = ("plugins", "cli", "lab", "playbooks")
    source = "".join(path.read_text() for folder in folders for path in (ROOT / folder).rglob("*.[py]*"))
    said = re.sub(r'"\s*\n\s*f?"', "", source)
    quoted = re.findall(r"^### `([^`]+)`", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    missing = [text for text in quoted if any(part.strip() not in said for part in text.split("…") if part.strip())]
    assert len(quoted) > 10
    assert not missing


def test_the_table_of_who_notices_tampering_is_the_one_that_is_tried():
    assert "\n".join(chains.table()) in (ROOT / "docs" / "media.md").read_text()


def test_the_service_of_the_tutorial_is_planned_and_rendered(tmp_path):
    page = (ROOT / "docs/adding-a-service.md").read_text()
    manifest, layer, container = [block for language, block in _FENCE.findall(page) if language == "yaml"]
    services = tmp_path / "services"
    shutil.copytree(ROOT / "services", services)
    (services / "memcached").mkdir()
    (services / "memcached/service.yaml").write_text(manifest)
    (services / "dashboard").mkdir()
    (services / "dashboard/service.yaml").write_text(container)
    row = {"repository": "registry.example/dashboard", "licence": "Apache-2.0", "source": "x"}
    lock = yaml.safe_load((services / "images.lock").read_text())
    lock["images"]["dashboard"] = {**row, "digests": {"amd64": f"sha256:{64 * 'a'}"}}
    (services / "images.lock").write_text(yaml.safe_dump(lock))
    site = tmp_path / "site.yaml"
    site.write_text(layer + "  monitoring: [dashboard]\n")
    facts = {
        "os": {"id": "debian", "version": "13"},
        "architecture": "amd64",
        "cpu": 8,
        "memory_mb": 9999,
        "disk_gb": 99,
    }
    planned = assemble.plan(
        assemble.Request("development", site=site, services=services), assemble.facts_from(facts, "test")
    )
    row = next(service for service in planned.plan.services if service.name == "memcached")
    assert row.capabilities == ("cache",) and "site.yaml:2" in row.why
    files = assemble.generation(planned).files
    assert "PublishPort=127.0.0.1:3456:3456" in files["tree/etc/containers/systemd/kos-dashboard.container"].decode()
    unit = files["tree/etc/systemd/system/kos-memcached.service"].decode()
    assert "User=kos-memcached" in unit and "ProtectSystem=strict" in unit
