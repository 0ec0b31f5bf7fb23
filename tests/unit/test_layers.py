# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from catalogues import ROOT, configs
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kind.kos.plugins.plugin_utils.documents import parse_document
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError
from ansible_collections.kind.kos.plugins.plugin_utils.layers import load_deployment, merge, validate_file


def merged(*texts):
    return merge([parse_document(text, f"layer{index}.yaml") for index, text in enumerate(texts)])


def test_later_layers_win_and_mappings_merge():
    data, origins = merged("a: {x: 1, y: 2}\n", "a:\n  y: 3\n")
    assert data == {"a": {"x": 1, "y": 3}}
    assert str(origins[("a", "x")]) == "layer0.yaml:1"
    assert str(origins[("a", "y")]) == "layer1.yaml:2"


def test_lists_replace_unless_the_key_appends():
    assert merged("a: [1, 2]\n", "a: [3]\n")[0] == {"a": [3]}
    data, origins = merged("a: [1, 2]\n", "a+:\n- 3\n")
    assert data == {"a": [1, 2, 3]}
    assert [str(origins[("a", index)]) for index in range(3)] == ["layer0.yaml:1", "layer0.yaml:1", "layer1.yaml:2"]


def test_appending_to_one_value_makes_a_list():
    assert merged("bus: redis\n", "bus+: nats\n")[0] == {"bus": ["redis", "nats"]}


def test_a_mapping_never_silently_replaces_a_value():
    with pytest.raises(ConfigurationError) as caught:
        merged("a: 1\nb: {x: 1}\n", "a: {x: 1}\nb: 2\n")
    assert len(caught.value.faults) == 2
    assert "layer1.yaml:1: a: is a mapping here and a single value in layer0.yaml:1" in str(caught.value)


values = st.recursive(
    st.integers(-(2**63) + 1, 2**63 - 1) | st.text(alphabet="abc", max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("klm"), inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from("klm"), values, max_size=3))
def test_merging_a_layer_with_itself_changes_nothing(data):
    import json

    document = parse_document(json.dumps(data) if data else "{}", "x.yaml")
    assert merge([document])[0] == merge([document, document])[0] == data


def test_site_and_user_layers_are_found_and_ordered(tmp_path):
    tree = configs(
        tmp_path,
        {"logging": {"level": "info"}},
        site={"logging": {"level": "warning"}},
        user={"logging": {"level": "debug"}},
    )
    deployment = load_deployment(tree, "test")
    assert deployment.settings["logging"] == {"level": "debug"}
    assert str(deployment.place(("logging", "level"))).endswith("user_overrides.yaml:2")


def test_an_environment_is_a_layer():
    deployment = load_deployment(ROOT / "configs", "personal_node", environment="production")
    assert deployment.settings["logging"]["level"] == "warning"
    assert str(deployment.place(("logging", "level"))).endswith("production.env:2")


def test_all_faults_come_at_once_with_file_line_key_and_nearest_key(tmp_path):
    tree = configs(tmp_path, {"servces": {}, "services": {"vectordb": "x"}, "logging": {"level": "loud"}})
    with pytest.raises(ConfigurationError) as caught:
        load_deployment(tree, "test")
    text = str(caught.value)
    assert len(caught.value.faults) == 3
    assert "servces: unknown key (did you mean 'services'?)" in text
    assert "services.vectordb: unknown key (did you mean 'vector_db'?)" in text
    assert "'loud'" in text
    assert all(fault.place.file.endswith("test.yaml") and fault.place.line for fault in caught.value.faults)


def test_an_unknown_profile_names_the_nearest():
    with pytest.raises(ConfigurationError, match="did you mean 'personal_node'"):
        load_deployment(ROOT / "configs", "personal_nod")


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "profiles").iterdir()), ids=lambda path: path.stem)
def test_every_profile_of_the_specification_is_valid(path):
    assert validate_file(path) == "profile"


def test_modes_are_valid():
    for path in (ROOT / "configs" / "modes").iterdir():
        assert validate_file(path) == "mode"
        load_deployment(ROOT / "configs", path.stem)


def test_the_server_mode_brings_its_features_and_options(tmp_path):
    site = tmp_path / "site.yaml"
    site.write_text("server: {vector_store: chroma}\n")
    plain = load_deployment(ROOT / "configs", "server")
    chosen = load_deployment(ROOT / "configs", "server", site=site)
    assert (plain.mode, plain.minimum.gpu, plain.minimum.cpu) == ("server", True, 8)
    assert plain.settings["services"]["database"] == "postgresql"
    assert chosen.settings["services"]["vector_db"] == "chroma"
    assert str(chosen.place(("services", "vector_db"))).endswith("site.yaml:1")
