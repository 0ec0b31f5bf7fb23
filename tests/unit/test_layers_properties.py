# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the merge of layers promises, for any layers."""

from __future__ import annotations

import json

from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.kind.kos.plugins.plugin_utils.documents import Document, parse_document
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError
from ansible_collections.kind.kos.plugins.plugin_utils.layers import merge

names = st.sampled_from("klm")
plain = st.integers(0, 9) | st.sampled_from(["x", "y"])
lists = st.lists(plain, max_size=3)


def trees(leaf, keys=names):
    inner = st.recursive(leaf, lambda deeper: st.dictionaries(keys, deeper, max_size=3), max_leaves=6)
    return st.dictionaries(keys, inner, max_size=3)


settings = trees(plain | lists)
appending = trees(plain | lists, st.sampled_from(["k", "l", "m", "k+", "l+"])).filter(
    lambda data: all(not {"k", "k+"} <= set(node) and not {"l", "l+"} <= set(node) for node in nodes(data))
)


def nodes(value):
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from nodes(inner)


def layer(data, name="x.json"):
    return parse_document(json.dumps(data, indent=1), name)


def merged(*documents):
    try:
        return merge(documents)
    except ConfigurationError:
        assume(False)


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    else:
        yield path, value


def at(data, path):
    for key in path:
        data = data[key]
    return data


@given(settings, settings, settings)
def test_layers_may_be_grouped_as_one_likes(first, second, third):
    documents = [layer(data) for data in (first, second, third)]
    left = merged(Document("l", merged(*documents[:2])[0]), documents[2])[0]
    right = merged(documents[0], Document("r", merged(*documents[1:])[0]))[0]
    assert left == right == merged(*documents)[0]


@given(settings, settings)
def test_the_later_layer_wins_and_nothing_else_of_the_earlier_is_lost(first, second):
    result, _origins = merged(layer(first), layer(second))
    for path, value in leaves(second):
        assert at(result, path) == value
    later = dict(leaves(second))
    for path, value in leaves(first):
        if path not in later:
            assert at(result, path) == value


@given(lists | plain, lists | plain, lists | plain)
def test_plus_appends_in_the_order_of_the_layers(first, second, third):
    def listed(value):
        return value if isinstance(value, list) else [value]

    result, origins = merge([layer({"k": first}, "0"), layer({"k+": second}, "1"), layer({"k+": third}, "2")])
    assert result == {"k": listed(first) + listed(second) + listed(third)}
    files = [origins[("k", index)].file for index in range(len(result["k"]))]
    assert files == ["0"] * len(listed(first)) + ["1"] * len(listed(second)) + ["2"] * len(listed(third))


@given(settings, names)
def test_null_unsets(data, name):
    result, _origins = merged(layer(data), layer({name: None}))
    assert result[name] is None


@given(st.lists(appending, min_size=1, max_size=4))
def test_every_value_names_the_line_that_set_it(layers):
    documents = [layer(data, str(index)) for index, data in enumerate(layers)]
    result, origins = merged(*documents)
    texts = [json.dumps(data, indent=1).split("\n") for data in layers]
    for path, value in leaves(result):
        items = [((*path, index), item) for index, item in enumerate(value)] if isinstance(value, list) else []
        for where, single in items or [(path, value)]:
            place = origins[where]
            line = texts[int(place.file)][place.line - 1]
            assert isinstance(single, list) or json.dumps(single) in line


@given(st.lists(appending, min_size=1, max_size=4))
def test_no_origin_is_left_of_what_is_gone(layers):
    result, origins = merged(*[layer(data, str(index)) for index, data in enumerate(layers)])
    for path in origins:
        at(result, path)


@given(st.lists(settings, max_size=3))
def test_merging_changes_no_layer(layers):
    documents = [layer(data) for data in layers]
    merged(*documents)
    assert [document.data for document in documents] == layers
