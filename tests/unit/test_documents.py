# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from ansible_collections.kind.kos.plugins.plugin_utils.documents import parse_document, read_document
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError


def fault(text):
    with pytest.raises(ConfigurationError) as caught:
        parse_document(text, "file.yaml")
    return str(caught.value)


def test_every_value_knows_its_line():
    document = parse_document("a: 1\nb:\n  - x\n  - y: 2\n", "file.yaml")
    assert document.data == {"a": 1, "b": ["x", {"y": 2}]}
    assert [document.place(path).line for path in (("a",), ("b",), ("b", 0), ("b", 1, "y"))] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("# only a comment\n", "empty"),
        ("- a\n- b\n", "must be a mapping"),
        ("a: 1\na: 2\n", "written twice"),
        ("a: &x 1\nb: *x\n", "aliases"),
        ("a: &a [*a]\n", "aliases"),
        ("a: !!python/object/apply:os.system ['true']\n", "tag"),
        ("a: !vault x\n", "tag"),
        ("a: [\n", "not valid YAML"),
        ("a: " + "[" * 60 + "]" * 60, "nested deeper"),
        ("? [a, b]\n: 1\n", "a key must be a word"),
        ("a: 1\n---\nb: 2\n", "single document"),
    ],
)
def test_bad_text_is_one_clear_fault(text, says):
    message = fault(text)
    assert says in message
    assert message.startswith("file.yaml")
    assert "\n" not in message


def test_what_looks_like_a_date_or_a_template_stays_text():
    document = parse_document('a: 2024-01-01\nb: \'{{ lookup("pipe", "id") }}\'\n', "file.yaml")
    assert document.data == {"a": "2024-01-01", "b": '{{ lookup("pipe", "id") }}'}


def unreadable(path):
    with pytest.raises(ConfigurationError) as caught:
        read_document(path)
    return str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    assert "No such file" in unreadable(tmp_path / "absent.yaml")
    assert "not a regular file" in unreadable(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    assert "latin.yaml:2: not UTF-8" in unreadable(tmp_path / "latin.yaml")
    (tmp_path / "huge.yaml").write_bytes(b"a: " + b"x" * (10 << 20))
    assert "larger than" in unreadable(tmp_path / "huge.yaml")


def test_an_endless_device_and_a_pipe_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    results = []
    worker = threading.Thread(
        target=lambda: results.extend([unreadable(tmp_path / "pipe"), unreadable(Path("/dev/zero"))]), daemon=True
    )
    worker.start()
    worker.join(20)
    assert ["not a regular file" in text for text in results] == [True, True]
