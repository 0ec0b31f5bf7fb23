# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A value of a layer is data: it is never executed, expanded or followed, here or through Ansible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from catalogues import ROOT, catalogue, configs, machine, manifest

from ansible_collections.kind.kos.cli.ansible import as_data
from ansible_collections.kind.kos.plugins.plugin_utils import assemble
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError

KAI = Path(sys.executable).with_name("kai")
HOSTILE = [
    "{{ lookup('pipe', 'touch EXECUTED') }}",
    "{% raw %}{{ 7 * 7 }}",
    "%h %n $HOME ${PATH}",
    "$(touch EXECUTED) `touch EXECUTED`",
    "../../../../etc/shadow",
    "'; touch EXECUTED; '",
    "!!python/object/apply:os.system [touch EXECUTED]",
]
# Every setting that takes any text.
FREE = [("ui", "theme"), ("federation", "trust_network"), ("orchestration", "helm_charts"),
        ("orchestration", "service_mesh"), ("networking", "host"), ("services", "llm_backend")]  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_reaches_a_file_as_it_was_typed(tmp_path, value):
    service = manifest("db", files=[{"template": "x.j2", "path": "/etc/kos/db/x"}])
    request = assemble.Request(
        "test",
        configs=configs(tmp_path, {"services": {"database": "db"}, "ui": {"theme": value}}),
        services=catalogue(tmp_path, service, templates={"db/templates/x.j2": "{{ settings.ui.theme }}"}),
    )
    generation = assemble.generation(assemble.plan(request, machine()))
    assert generation.files["tree/etc/kos/db/x"] == value.encode()


@pytest.mark.parametrize("path", FREE, ids=".".join)
@pytest.mark.parametrize("value", HOSTILE)
def test_nothing_of_the_catalogue_puts_free_text_into_a_generation(tmp_path, path, value):
    """Each such value is refused, or leaves every file of the generation as it was, units and paths included."""
    section, key = path
    (tmp_path / "site.yaml").write_text(yaml.safe_dump({section: {key: value}}))
    plain = assemble.generation(assemble.plan(assemble.Request("desktop"), machine()))
    try:
        planned = assemble.plan(assemble.Request("desktop", site=tmp_path / "site.yaml"), machine())
    except ConfigurationError as error:
        assert section in str(error)
        return
    changed = assemble.generation(planned)
    assert set(changed.files) == set(plain.files)
    assert {name for name in changed.files if changed.files[name] != plain.files[name]} <= {"manifest.json"}


@pytest.mark.parametrize(
    "value", ["@kos:secret:valkey.password@", "a\nExecStart=/bin/sh", "a\u2028b", "a\u0085b", "a\tb"]
)
def test_what_could_leave_its_line_or_take_a_secret_is_refused(tmp_path, value):
    (tmp_path / "site.json").write_text(json.dumps({"ui": {"theme": value}}))
    with pytest.raises(ConfigurationError, match=r"site.json:1: ui.theme: "):
        assemble.plan(assemble.Request("desktop", site=tmp_path / "site.json"), machine())


@pytest.mark.parametrize("value", [*HOSTILE, "è 😀 \u2028", "13", "true", "null", {"a": ["{{ 1 }}", 2, None, True]}])
def test_what_kai_hands_to_ansible_is_no_template(tmp_path, value):
    (tmp_path / "vars.json").write_text(as_data({"given": value}), encoding="utf-8")
    (tmp_path / "wanted.json").write_text(json.dumps(value))
    (tmp_path / "show.yml").write_text(
        "- hosts: localhost\n  gather_facts: false\n  tasks:\n"
        "    - copy: {content: '{{ given | to_json }}', dest: '{{ playbook_dir }}/got.json'}\n"
    )
    done = subprocess.run(
        [KAI.with_name("ansible-playbook"), "-i", "localhost,", "-c", "local", "-e", "@vars.json", "show.yml",
         "-e", f"ansible_python_interpreter={sys.executable}"],
        cwd=tmp_path, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((tmp_path / "got.json").read_text()) == value
    assert not (tmp_path / "EXECUTED").exists()


def test_a_layer_that_ansible_reads_and_a_path_with_an_expression_execute_nothing(tmp_path):
    name = "{{ lookup('pipe', 'touch EXECUTED') }}.yaml"
    (tmp_path / name).write_text(yaml.safe_dump({"ui": {"theme": HOSTILE[0]}, "networking": {"host": "localhost"}}))
    (tmp_path / "hosts.yaml").write_text("kos: {hosts: {one: {kos_profile: desktop}}}\n")
    done = subprocess.run(
        [KAI, "validate", "-i", "hosts.yaml", "--site", name, "--json"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(tmp_path.rglob("EXECUTED")) == []
    assert not (ROOT / "playbooks" / "EXECUTED").exists()
