# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai config explain|show|set`, `kai facts`, and `kai validate` of an inventory, through the real program."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from catalogues import ROOT

from ansible_collections.kind.kos.plugins.plugin_utils.layers import load_deployment

KAI = Path(sys.executable).with_name("kai")
LAYERS = {
    "yaml": "# mine\nlogging:\n  level: info   # for now\n\nservices:\n  monitoring: [prometheus]\n",
    "json": json.dumps({"logging": {"level": "info"}, "services": {"monitoring": ["prometheus"]}}, indent=2) + "\n",
    "toml": '# mine\n[logging]\nlevel = "info"   # for now\n\n[services]\nmonitoring = ["prometheus"]\n',
}  # fmt: skip


def kai(*arguments, tree=None, code=0):
    environment = {**os.environ, "COLUMNS": "200", **({"KOS_CONFIGS": str(tree)} if tree else {})}
    done = subprocess.run(
        [KAI, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def tree(tmp_path):
    return shutil.copytree(ROOT / "configs", tmp_path / "configs")


def user_layer(tree, suffix="yaml"):
    path = tree / "overrides" / f"user_overrides.{suffix}"
    path.write_text(LAYERS[suffix])
    return path


def test_explain_names_the_line_that_set_a_key_and_what_it_overrode(tree):
    path = user_layer(tree)
    said = json.loads(
        kai("config", "explain", "logging.level", "-p", "personal_node", "--env", "production", "--json", tree=tree)
    )
    assert said["value"] == "info"
    rows = [
        (row["layer"], row["value"], Path(row["file"]).name, row["line"], row["overridden"]) for row in said["layers"]
    ]
    assert rows == [
        ("user", "info", path.name, 3, False),
        ("environment", "warning", "production.env", 2, True),
    ]
    text = kai("config", "explain", "logging.level", "-p", "personal_node", "--env", "production", tree=tree)
    assert "logging.level is info" in text
    assert f"{path}:3" in text
    assert "overridden" in text


def test_explain_follows_an_option_of_a_mode_and_what_appends(tree):
    (tree / "overrides" / "site_overrides.toml").write_text(
        'server.vector_store = "chroma"\nservices."message_bus+" = "nats"\n'
    )
    said = json.loads(kai("config", "explain", "services.vector_db", "-p", "server", "--json", tree=tree))
    assert [(row["layer"], row["value"], row["line"]) for row in said["layers"]] == [
        ("site", "chroma", 1),
        ("profile", "qdrant", 11),
    ]
    said = json.loads(kai("config", "explain", "services.message_bus", "-p", "server", "--json", tree=tree))
    assert said["value"] == ["redis", "nats"]
    assert [(row["layer"], row["verb"], row["overridden"]) for row in said["layers"]] == [
        ("site", "appends", False), ("mode", "sets", False), ("profile", "sets", True),
    ]  # fmt: skip


def test_explain_knows_what_a_key_is_not(tree):
    assert "did you mean 'vector_db'?" in kai("config", "explain", "services.vectordb", "-p", "desktop", code=3)
    assert "is not set" in kai("config", "explain", "services.graph_db", "-p", "desktop")
    kai("config", "explain", "services..x", "-p", "desktop", code=2)


def test_show_prints_yaml_that_reads_back_as_the_settings(tree):
    user_layer(tree)
    settings = load_deployment(tree, "server", "production").settings
    assert yaml.safe_load(kai("config", "show", "-p", "server", "--env", "production", tree=tree)) == settings
    with_origins = kai("config", "show", "-p", "server", "--env", "production", "--origins", tree=tree)
    assert yaml.safe_load(with_origins) == settings
    assert "user_overrides.yaml:3" in with_origins
    assert json.loads(kai("config", "show", "-p", "server", "--env", "production", "--json", tree=tree)) == settings
    said = json.loads(kai("config", "show", "-p", "server", "--origins", "--json", tree=tree))
    assert said["origins"]["logging.level"].endswith("user_overrides.yaml:3")


@pytest.mark.parametrize("suffix", LAYERS)
def test_set_changes_one_key_and_leaves_the_rest_of_the_file(tree, suffix):
    path = user_layer(tree, suffix)
    path.chmod(0o640)
    kai("config", "set", "logging.level", "debug", tree=tree)
    # A comment keeps its column where it can.
    spaced = re.compile(r" +#")
    assert spaced.sub(" #", path.read_text()) == spaced.sub(" #", LAYERS[suffix].replace("info", "debug"))
    kai("config", "set", "services.monitoring+", "alertmanager", tree=tree)
    kai("config", "set", "networking.ports.frontend", "8443", "-p", "desktop", tree=tree)
    settings = load_deployment(tree, "desktop").settings
    assert settings["services"]["monitoring"] == ["prometheus", "alertmanager"]
    assert settings["networking"]["ports"]["frontend"] == 8443
    assert path.stat().st_mode & 0o777 == 0o640
    assert [found.name for found in path.parent.iterdir() if found.name.startswith(".")] == []
    if suffix != "json":
        assert "# mine" in path.read_text()
        assert "# for now" in path.read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["logging.level", "loud"], "'loud' is not a value of this key"),
        (["loging.level", "info"], "did you mean 'logging'?"),
        (["logging.level.deep", "info"], "'level' is a single value there"),
        (["networking.ports.frontend", "99999"], "less than or equal to 65535"),
        (["ui.theme", "a\nb"], "one line of plain text"),
        (["services.cache", "[a, *b]"], "aliases"),
    ],
)
def test_set_refuses_what_would_not_be_valid_and_writes_nothing(tree, arguments, says):
    path = user_layer(tree)
    assert says in kai("config", "set", *arguments, tree=tree, code=3)
    assert path.read_text() == LAYERS["yaml"]
    assert len(list(path.parent.glob(".*"))) == 0


def test_set_makes_a_layer_that_is_not_there_and_writes_through_a_link(tree, tmp_path):
    kai("config", "set", "services.monitoring", "[prometheus, grafana]", "--layer", "site", tree=tree)
    made = tree / "overrides" / "site_overrides.yaml"
    assert yaml.safe_load(made.read_text()) == {"services": {"monitoring": ["prometheus", "grafana"]}}
    (tmp_path / "real.yaml").write_text("logging: {level: info}\n")
    (tree / "overrides" / "user_overrides.yaml").symlink_to(tmp_path / "real.yaml")
    kai("config", "set", "logging.level", "debug", tree=tree)
    assert yaml.safe_load((tmp_path / "real.yaml").read_text()) == {"logging": {"level": "debug"}}
    assert (tree / "overrides" / "user_overrides.yaml").is_symlink()


def test_facts_are_one_document_that_plan_reads(tmp_path):
    facts = kai("facts")
    assert set(json.loads(facts)) >= {"os", "architecture", "cpu", "memory_mb", "disk_gb", "gpus", "disk_encrypted"}
    (tmp_path / "facts.json").write_text(facts)
    done = subprocess.run(
        [KAI, "plan", "-p", "desktop", "--facts", tmp_path / "facts.json", "--json"], capture_output=True, text=True
    )
    assert done.returncode in (0, 4)
    assert json.loads(done.stdout)["profile"] == "desktop"


INVENTORY = """
kos:
  hosts:
    good: {kos_profile: desktop, ansible_host: 192.0.2.1}
    odd: {kos_profile: development, ansible_host: 192.0.2.2, kos_site_layer: "{{ inventory_dir }}/odd.yaml"}
"""


def test_validate_reads_an_inventory_and_asks_no_node(tmp_path):
    (tmp_path / "hosts.yaml").write_text(INVENTORY)
    (tmp_path / "odd.yaml").write_text("services:\n  monitoring: prometheus\nnetworking:\n  ports: {frontend: 9090}\n")
    said = json.loads(kai("validate", "-i", tmp_path / "hosts.yaml", "--json", code=3))
    (fault,) = said["faults"]
    assert (Path(fault["file"]).name, fault["line"]) == ("odd.yaml", 4)
    assert "tcp port 9090 is wanted by" in fault["message"]
    said = json.loads(kai("validate", "-i", tmp_path / "hosts.yaml", "--limit", "good", "--json"))
    assert said["valid"] == [{"file": "good", "kind": "deployment of desktop"}]
