# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The node's image store on a plain directory: what comes in, what is refused, what goes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from types import SimpleNamespace

import pytest

from ansible_collections.kind.kos.plugins.module_utils.node import images
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root


def name_of(content):
    return hashlib.sha256(content).hexdigest()


CONFIG, LAYER = b'{"architecture": "amd64"}', b"a layer"
MANIFEST = json.dumps(
    {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"digest": f"sha256:{name_of(CONFIG)}"},
        "layers": [{"digest": f"sha256:{name_of(LAYER)}"}],
    }
).encode()
DIGEST = f"sha256:{name_of(MANIFEST)}"
ROW = {"service": "store", "user": "kos-store", "repository": "registry.example/store", "digest": DIGEST}


def archive(*members, kind=tarfile.REGTYPE):
    """A tar archive of (name, content)."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size, member.type = len(content), kind
            tar.addfile(member, io.BytesIO(content))
    raw.seek(0)
    return raw


def blobs(*contents):
    return archive(*((f"blobs/sha256/{name_of(content)}", content) for content in contents))


@pytest.fixture
def root(tmp_path):
    (tmp_path / "var/lib/kos").mkdir(parents=True)
    return Root(str(tmp_path))


def storage(root, user, *names):
    """What Podman has written down of the user's images."""
    path = root.join(f"/var/lib/containers/{user}/storage/overlay-images/images.json")
    os.makedirs(os.path.dirname(path))
    with open(path, "w") as stream:
        json.dump([{"id": "1", "names": list(names)}, {"id": "2"}], stream)


def test_an_image_is_whole_once_every_blob_is_there(root):
    assert images.not_stored(root, [ROW]) == [ROW]
    images.take(root, blobs(MANIFEST, CONFIG))
    assert images.not_stored(root, [ROW]) == [ROW]
    images.take(root, blobs(LAYER))
    assert images.not_stored(root, [ROW]) == []


def test_a_blob_that_is_not_its_digest_is_refused_and_leaves_nothing(root):
    with pytest.raises(images.NoImage, match="it claims to be"):
        images.take(root, archive((f"blobs/sha256/{name_of(LAYER)}", b"another layer")))
    assert os.listdir(root.state("images", "blobs", "sha256")) == []


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "blobs/sha256/../x", "index.json", "blobs/sha256/x"]
)
def test_nothing_but_blobs_is_taken(root, name):
    with pytest.raises(images.NoImage, match="is no blob of an image"):
        images.take(root, archive((name, b"x")))


def test_a_link_is_no_blob(root):
    with pytest.raises(images.NoImage, match="is no blob of an image"):
        images.take(root, archive((f"blobs/sha256/{name_of(LAYER)}", b""), kind=tarfile.SYMTYPE))


def test_half_an_archive_is_refused(root):
    whole = blobs(LAYER * 4096).getvalue()
    with pytest.raises(images.NoImage):
        images.take(root, io.BytesIO(whole[:9000]))


def test_a_manifest_altered_in_the_store_is_not_believed(root):
    images.take(root, blobs(MANIFEST, CONFIG, LAYER))
    with open(root.state("images", "blobs", "sha256", DIGEST[7:]), "wb") as stream:
        stream.write(MANIFEST.replace(b"layers", b"Layers"))
    assert images.not_stored(root, [ROW]) == [ROW]


def test_what_the_storage_holds_is_not_missing(root):
    generation = SimpleNamespace(manifest={"images": [ROW]})
    assert images.missing(root, generation) == [ROW]
    os.makedirs(root.state("images"))
    storage(root, "kos-store", f"registry.example/store@{DIGEST}")
    # Its user may write such a name for any image: only what root has unpacked counts.
    assert images.missing(root, generation) == [ROW]
    with open(root.state("images", "loaded.json"), "w") as stream:
        json.dump({"kos-store": [f"registry.example/store@{DIGEST}"]}, stream)
    assert images.missing(root, generation) == []
    os.remove(root.join("/var/lib/containers/kos-store/storage/overlay-images/images.json"))
    assert images.missing(root, generation) == [ROW]
    assert images.missing(root, SimpleNamespace(manifest={})) == []


def test_an_image_of_ours_that_nobody_sent_names_the_way_out(root):
    row = {**ROW, "repository": "localhost/kos/store"}
    generation = SimpleNamespace(manifest={"files": []})
    with pytest.raises(images.NoImage, match="kai unit build store"):
        images.fetch(root, generation, [row])


def test_blobs_and_storages_that_nothing_names_go(root):
    images.take(root, blobs(MANIFEST, CONFIG, LAYER))
    storage(root, "kos-gone")
    os.makedirs(root.join("/var/lib/containers/storage"))
    assert images.leftovers(root, {"images": [ROW]}) == ["/var/lib/containers/kos-gone"]
    images.prune(root)
    assert os.listdir(root.state("images", "blobs", "sha256")) == []
    # Root's own Podman is nobody's business of ours.
    assert os.listdir(root.join("/var/lib/containers")) == ["storage"]


def test_no_digest_leaves_the_store(root):
    with pytest.raises(images.NoImage, match="is no digest"):
        images.not_stored(root, [{**ROW, "digest": "sha256:../../../etc/passwd"}])


def test_a_service_cannot_fool_or_stop_the_reader_of_its_storage(root):
    path = root.join("/var/lib/containers/kos-store/storage/overlay-images/images.json")
    os.makedirs(os.path.dirname(path))
    os.symlink("/etc/passwd", path)
    assert images.loaded(root, "kos-store") == set()
    os.remove(path)
    os.mkfifo(path)
    assert images.loaded(root, "kos-store") == set()
    os.remove(path)
    for content in ("no JSON", "[1]", '{"names": 1}', "null"):
        with open(path, "w") as stream:
            stream.write(content)
        assert images.loaded(root, "kos-store") == set()
