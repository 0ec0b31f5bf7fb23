# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's language models: real files, a plain directory as the node, a web server of the test's own."""

from __future__ import annotations

import fcntl
import hashlib
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ansible_collections.kind.kos.plugins.module_utils.node import ledger, models, space
from ansible_collections.kind.kos.plugins.module_utils.node.files import Busy, Root
from ansible_collections.kind.kos.plugins.module_utils.node.models import Refused, Wanted

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "models"))
import fixed_answer

GGUF = b"GGUF\x03\0\0\0"


@pytest.fixture
def root(tmp_path):
    return Root(str(tmp_path / "node"))


def content(seed):
    return GGUF + seed.encode() * 1000


def wanted(name, data=None, default=False):
    return Wanted(name, hashlib.sha256(data if data is not None else content(name)).hexdigest(), default)


def add(root, asked, data):
    """As the controller does it: offered, written, taken."""
    part = models.offer(root, asked, len(data))
    if part is not None:
        Path(part).write_bytes(data)
    return models.take(root, asked, part)


def folder(root):
    return Path(root.join(models.MODELS))


def seen(root):
    return sorted(str(path.relative_to(folder(root))) for path in folder(root).rglob("*") if not path.is_dir())


def test_a_model_is_kept_under_its_sum_and_the_first_is_the_default(root):
    assert add(root, wanted("a"), content("a")) is True
    assert add(root, wanted("b"), content("b")) is True
    kept = [f"sha256/{wanted(name).sha256}" for name in "ab"]
    assert seen(root) == sorted(["a.gguf", "b.gguf", "default.gguf", *kept])
    assert [(row["name"], row["default"], row["size"]) for row in models.listing(root)] == [
        ("a", True, 1008),
        ("b", False, 1008),
    ]
    blob = folder(root) / "a.gguf"
    assert blob.read_bytes() == content("a") and os.readlink(blob) == kept[0]
    assert [path.stat().st_mode & 0o777 for path in (blob, folder(root))] == [0o644, 0o755]


def test_a_second_time_nothing_is_sent_or_changed(root):
    add(root, wanted("a"), content("a"))
    assert models.offer(root, wanted("a"), 1008) is None
    assert models.take(root, wanted("a"), None) is False


def test_one_content_under_two_names_is_one_file(root):
    add(root, wanted("a"), content("a"))
    assert add(root, wanted("c", content("a")), content("a")) is True
    assert len([name for name in seen(root) if name.startswith("sha256/")]) == 1
    assert models.remove(root, "a") is True
    assert (folder(root) / "c.gguf").read_bytes() == content("a")


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (content("x"), "the file's SHA-256 is .* nothing was added"),
        (content("a")[:-1], "the file's SHA-256 is .* nothing was added"),
        (b"", "not a GGUF file"),
        (b"GGUF\x01\0\0\0", "not a GGUF file"),
        (b"<!doctype html>", "not a GGUF file"),
    ],
)
def test_what_is_not_what_was_announced_is_deleted_and_the_rest_stays(root, data, sentence):
    add(root, wanted("other"), content("other"))
    before = seen(root)
    with pytest.raises(Refused, match=sentence):
        add(root, wanted("a"), data)
    assert seen(root) == before


def test_a_name_that_is_taken_is_not_given_to_another_model(root):
    add(root, wanted("a"), content("a"))
    with pytest.raises(Refused, match="'a' names another model here: remove that one first, or choose another --name"):
        models.offer(root, wanted("a", content("b")), 1008)


@pytest.mark.parametrize("name", ["default", "", "../a", "A", "a/b", ".a", "x" * 64, "a b"])
def test_a_name_is_a_plain_word(name):
    with pytest.raises(Refused, match="is not a name for a model"):
        wanted(name, b"")


def test_one_part_of_several_and_half_a_sum_are_refused():
    with pytest.raises(Refused, match="one part of several: join them first"):
        wanted("big-00001-of-00003", b"")
    with pytest.raises(Refused, match="a SHA-256 is 64 digits"):
        Wanted("a", "abc")


def test_the_default_is_not_removed_until_there_is_another_or_none(root):
    add(root, wanted("a"), content("a"))
    with pytest.raises(Refused, match="'a' is the default, which programs ask for: choose another"):
        models.remove(root, "a")
    add(root, wanted("b", default=True), content("b"))
    assert models.remove(root, "a") is True and models.remove(root, "a") is False
    assert models.choose(root, None) is True and models.choose(root, None) is False
    assert models.remove(root, "b") is True
    # An empty directory is one that an uninstall drops.
    assert os.listdir(folder(root)) == []


def test_only_a_model_that_is_here_becomes_the_default(root):
    add(root, wanted("a"), content("a"))
    for name in ("b", "../a", "default2"):
        with pytest.raises(Refused, match=r"no model called .* \(it has: a\)"):
            models.choose(root, name)
    assert models.choose(root, "a") is False


def test_a_model_that_was_altered_here_is_asked_for_again(root):
    add(root, wanted("a"), content("a"))
    (folder(root) / "a.gguf").write_bytes(content("evil"))
    assert add(root, wanted("a"), content("a")) is True
    assert (folder(root) / "a.gguf").read_bytes() == content("a")


def test_what_a_killed_run_left_is_swept_once_nobody_can_be_writing_it(root):
    dead = Path(models.offer(root, wanted("a"), 1008))
    busy = Path(models.offer(root, wanted("b"), 1008))
    os.utime(dead, (1, 1))
    orphan = folder(root) / "sha256" / wanted("c").sha256
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(content("c"))
    add(root, wanted("d"), content("d"))
    assert not dead.exists() and not orphan.exists() and busy.exists()
    busy.write_bytes(content("b"))
    assert models.take(root, wanted("b"), str(busy)) is True


def test_two_at_once_do_not_meet(root):
    parts = [models.offer(root, wanted("a"), 1008) for _ in range(2)]
    assert parts[0] != parts[1]
    for part in parts:
        Path(part).write_bytes(content("a"))
    assert models.take(root, wanted("a"), parts[0]) is True
    models.take(root, wanted("a"), parts[1])
    assert [row["name"] for row in models.listing(root)] == ["a"]
    with open(folder(root) / "a.gguf", "rb"):
        holder = os.open(folder(root), os.O_RDONLY)
        fcntl.flock(holder, fcntl.LOCK_EX)
        with pytest.raises(Busy, match="another kai model run is at work"):
            models.remove(root, "a")
        os.close(holder)


@pytest.mark.parametrize("part", ["/etc/passwd", "../../../../etc/passwd"])
def test_nothing_but_what_was_offered_is_taken(root, part):
    models.offer(root, wanted("a"), 1008)
    with pytest.raises(Refused, match="what was written is gone"):
        models.take(root, wanted("a"), part)
    assert os.path.exists("/etc/passwd")


def test_a_model_that_does_not_fit_is_refused_before_a_byte_is_sent(root):
    with pytest.raises(space.NoRoom, match=r"no room on the disk of /var/lib/kos-models: .* of the model"):
        models.offer(root, wanted("a"), 2**60)
    assert seen(root) == []


def test_the_ledger_knows_the_models_so_that_an_uninstall_finds_them(root):
    add(root, wanted("a"), content("a"))
    add(root, wanted("b"), content("b"))
    assert [row["path"] for row in ledger.load(root).volumes] == [models.MODELS]


class Web(BaseHTTPRequestHandler):
    """A file, one that ends early, one that points at a local file, and nothing else."""

    def do_GET(self):
        data = content("a")
        status = {"/a.gguf": 200, "/short": 200, "/page": 200, "/local": 302}.get(self.path, 404)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "file:///etc/passwd")
        self.send_header("Content-Length", str(len(data) if status == 200 else 0))
        self.end_headers()
        if status == 200:
            self.wfile.write({"/short": data[:500], "/page": b"<html>" * 168}.get(self.path, data))

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def web(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_model_is_fetched_by_the_node_once(root, web):
    assert models.fetch(root, wanted("a"), f"{web}/a.gguf") is True
    assert models.fetch(root, wanted("a"), "https://nowhere.invalid/a.gguf") is False
    assert (folder(root) / "a.gguf").read_bytes() == content("a")


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/short", r"ended after 500 of 1008 bytes|cannot fetch"),
        ("/page", "not a GGUF file"),
        ("/none", r"/none answers 404 \(Not Found\): check the address"),
        ("/local", "answers 302|cannot fetch"),
    ],
)
def test_what_the_web_gives_instead_of_a_model_is_refused(root, web, path, sentence):
    with pytest.raises(Refused, match=sentence):
        models.fetch(root, wanted("a"), web + path)
    assert seen(root) == []


def test_a_node_without_network_says_what_to_do(root, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(Refused, match=r"cannot fetch http://127.0.0.1:9/a .*: connect it, or fetch the file elsewhere"):
        models.fetch(root, wanted("a"), "http://127.0.0.1:9/a?token=secret")
    with pytest.raises(Refused, match="neither a file nor an address"):
        models.fetch(root, wanted("a"), "file:///etc/passwd")


def test_the_tests_model_is_the_same_bytes_each_time(tmp_path):
    for name in ("one", "two"):
        fixed_answer.write(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    models.require_gguf(str(tmp_path / "one"))
    assert (tmp_path / "one").stat().st_size < 2.5e6
    with pytest.raises(ValueError, match="no two may be alike"):
        fixed_answer.write(tmp_path / "one", ["no", "no"])
