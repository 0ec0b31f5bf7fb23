# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""YAML, JSON and TOML: the same meaning, the same generation, and every value knows its line."""

from __future__ import annotations

import json
import shutil

import pytest
import tomlkit
import yaml
from catalogues import ROOT, machine
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kind.kos.plugins.plugin_utils import assemble
from ansible_collections.kind.kos.plugins.plugin_utils.documents import parse_document, read_document
from ansible_collections.kind.kos.plugins.plugin_utils.environments import parse_environment
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError
from ansible_collections.kind.kos.plugins.plugin_utils.layers import load_deployment

WRITE = {
    "yaml": lambda data: yaml.safe_dump(data, allow_unicode=True, sort_keys=False),
    "json": lambda data: json.dumps(data, indent=1),
    "toml": lambda data: tomlkit.dumps(data),
}

keys = st.text(alphabet="abc_-.+ é\"'#=[]", min_size=1, max_size=5).filter(lambda key: not key.endswith("+"))
texts = st.text(
    alphabet=st.characters(min_codepoint=32, max_codepoint=0x1F600, exclude_categories=["C", "Z"]), max_size=9
)
scalars = (
    st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | texts
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
mappings = st.dictionaries(keys, values, min_size=1, max_size=4)


def leaves(value, path=()):
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from leaves(item, (*path, key))


@given(mappings)
def test_toml_and_json_mean_what_was_written_and_every_value_has_a_line(data):
    for suffix in ("toml", "json"):
        text = WRITE[suffix](data)
        document = parse_document(text, f"x.{suffix}")
        assert document.data == data
        last = text.count("\n") + 1
        lines = [document.lines[path] for path in leaves(data)]
        assert all(1 <= line <= last for line in lines)


@given(mappings)
def test_the_line_of_a_value_in_json_is_the_one_that_holds_it(data):
    text = WRITE["json"](data).split("\n")
    document = parse_document("\n".join(text), "x.json")
    for path in leaves(data):
        if path and isinstance(path[-1], str):
            assert json.dumps(path[-1]) in text[document.lines[path] - 1]


TOML = """\
# a comment with [brackets] and = signs
title = "x # no comment"   # a comment
dotted.key."with space" = 1
day = 1979-05-27
moment = 1979-05-27 07:32:00Z

[table]
list = [
  "a",
  # between
  [1, 2],
  { b = 1, c = ["]"] },
]
text = \"\"\"
[not.a.table]
key = "no key"
\"\"\"
raw = '''
it's
'''
last = true

[[many]]
n = 1
[[many]]
n = 2
[many.inner]
deep = 3
[[many.more]]
x = 1
"""


def test_the_lines_of_toml():
    document = parse_document(TOML, "x.toml")
    assert document.data["day"] == "1979-05-27"
    assert document.data["moment"] == "1979-05-27 07:32:00Z"
    expected = {
        ("title",): 2, ("dotted", "key", "with space"): 3, ("table",): 7, ("table", "list", 0): 9,
        ("table", "list", 1, 1): 11, ("table", "list", 2, "c", 0): 12, ("table", "text"): 14, ("table", "last"): 21,
        ("many", 0, "n"): 24, ("many", 1): 25, ("many", 1, "n"): 26, ("many", 1, "inner", "deep"): 28,
        ("many", 1, "more", 0, "x"): 30,
    }  # fmt: skip
    assert {path: document.lines[path] for path in expected} == expected


@pytest.mark.parametrize(
    "text", ['a = "x', "a = '''x", 'a = """' + "\\n" * 5000, "[a", "a", "= 1", "a = [1, ", "a = {b"]
)
def test_broken_toml_is_one_fault_at_once(text):
    with pytest.raises(ConfigurationError, match="not valid TOML"):
        parse_document(text, "x.toml")


LAYER = {
    "services": {"message_bus": "nats", "monitoring+": ["prometheus", "alertmanager"]},
    "monitoring": {"metrics": {"prometheus": {"retention": "15d"}}},
    "logging": {"level": "debug"},
    "security": {"authentication": ["ldap"]},
    "networking": {"ports": {"frontend": 9443}},
}


def tree_in(folder, suffix):
    """The tree of configurations with the profile and the mode that are used, and both layers, in one format."""
    shutil.copytree(ROOT / "configs", folder)
    for kind, name in (("profiles", "personal_node"), ("modes", "server")):
        source = folder / kind / f"{name}.yaml"
        data = read_document(source).data
        source.unlink()
        (folder / kind / f"{name}.{suffix}").write_text(WRITE[suffix](data))
    (folder / "environments" / "staging.env").unlink()
    (folder / "environments" / f"staging.{suffix}").write_text(WRITE[suffix]({"logging": {"level": "info"}}))
    (folder / "overrides" / f"site_overrides.{suffix}").write_text(WRITE[suffix](LAYER))
    (folder / "overrides" / f"user_overrides.{suffix}").write_text(
        WRITE[suffix]({"server": {"vector_store": "chroma"}})
    )
    return folder


@pytest.mark.parametrize("name", ["personal_node", "server"])
def test_every_format_makes_the_same_generation_at_every_layer(tmp_path, name):
    ids, settings = set(), []
    for suffix in WRITE:
        configs = tree_in(tmp_path / suffix, suffix)
        settings.append(load_deployment(configs, name, "staging").settings)
        planned = assemble.plan(assemble.Request(name, "staging", configs=configs), machine())
        ids.add(assemble.generation(planned).id)
    assert settings[0] == settings[1] == settings[2]
    assert settings[0]["logging"]["level"] == "debug"
    assert len(ids) == 1


@pytest.mark.parametrize("suffix", WRITE)
def test_a_fault_names_the_line_in_every_format(tmp_path, suffix):
    text = WRITE[suffix]({"logging": {"level": "info"}, "services": {"cach": "valkey"}})
    (tmp_path / f"x.{suffix}").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load_deployment(ROOT / "configs", "desktop", site=tmp_path / f"x.{suffix}")
    (fault,) = caught.value.faults
    assert "cach" in text.split("\n")[fault.place.line - 1]
    assert "did you mean 'cache'?" in fault.fix


def test_an_environment_holds_lists_numbers_and_text():
    values = ["a__list=[x, 2]", "a__n=7", "a__f=0.5", "a__t=true", "a__s=x=y: {{ z }}", 'a__q="7"', "b+=x"]
    text = "".join(f"KOS__{value}\n" for value in values)
    document = parse_environment(text, "x.env")
    assert document.data == {
        "a": {"list": ["x", 2], "n": 7, "f": 0.5, "t": True, "s": "x=y: {{ z }}", "q": "7"},
        "b+": "x",
    }
    assert document.lines[("a", "s")] == 5
