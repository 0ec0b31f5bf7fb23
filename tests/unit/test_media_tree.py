# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A root with files laid over it: what stays, what gives way, and that it is the same bytes wherever it is made."""

from __future__ import annotations

import io
import tarfile

import pytest

from kos_image import tree
from kos_image.errors import ImageError

EPOCH = 1750000000
CAPABILITY = {"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20"}


@pytest.fixture
def root(tmp_path):
    """A small root with what is easily lost: owners, capabilities, devices, links."""
    path = tmp_path / "root.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("./etc", "./usr", "./usr/bin", "./boot", "./var"):
            _add(tar, name, tarfile.DIRTYPE)
        _add(tar, "./etc/hostname", content=b"debian\n")
        _add(tar, "./usr/bin/ping", content=b"elf", mode=0o4755, pax_headers=CAPABILITY)
        _add(tar, "./var/mail", tarfile.DIRTYPE, uid=8, gid=42, mode=0o2775)
        _add(tar, "./bin", tarfile.SYMTYPE, linkname="usr/bin")
        _add(tar, "./null", tarfile.CHRTYPE, devmajor=1, devminor=3)
        _add(tar, "./usr/bin/perl", content=b"perl")
        _add(tar, "./usr/bin/perl5", tarfile.LNKTYPE, linkname="./usr/bin/perl")
        _add(tar, "./boot/vmlinuz-6", content=b"kernel")
    return path


def _add(tar, name, kind=tarfile.REGTYPE, content=b"", **attributes):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mtime = kind, len(content), EPOCH
    for key, value in attributes.items():
        setattr(info, key, value)
    tar.addfile(info, io.BytesIO(content))


def _own(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def _merged(root, target, *overlays, **options):
    tree.merge(root, overlays, EPOCH, target, **options)
    with tarfile.open(target) as tar:
        return {member.name: member for member in tar}


def test_a_root_alone_stays_what_it_is(root, tmp_path):
    found = _merged(root, tmp_path / "out.tar")
    assert found["./usr/bin/ping"].mode == 0o4755
    assert found["./usr/bin/ping"].pax_headers == CAPABILITY
    assert (found["./var/mail"].uid, found["./var/mail"].gid) == (8, 42)
    assert found["./null"].ischr()
    assert found["./usr/bin/perl5"].linkname == "./usr/bin/perl"


def test_own_files_win_and_belong_to_root(root, tmp_path):
    own = _own(tmp_path / "own", {"etc/hostname": "kos\n", "etc/kos/deep/file": "x"})
    found = _merged(root, tmp_path / "out.tar", own)
    assert [name for name in found if name == "./etc/hostname"] == ["./etc/hostname"]
    assert (found["./etc/hostname"].uid, found["./etc/hostname"].mtime) == (0, EPOCH)
    assert found["./etc/kos/deep"].isdir()
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert tar.extractfile("./etc/hostname").read() == b"kos\n"


def test_a_later_overlay_wins(root, tmp_path):
    first = _own(tmp_path / "first", {"etc/x": "1", "etc/hostname": "1"})
    second = _own(tmp_path / "second", {"etc/x": "2"})
    _merged(root, tmp_path / "out.tar", first, second)
    with tarfile.open(tmp_path / "out.tar") as tar:
        assert tar.extractfile("./etc/x").read() == b"2"
        assert tar.extractfile("./etc/hostname").read() == b"1"


def test_the_umask_of_the_build_machine_decides_nothing(root, tmp_path):
    made = []
    for number, (file, program) in enumerate(((0o644, 0o755), (0o600, 0o700))):
        own = _own(tmp_path / f"own{number}", {"etc/file": "x", "usr/bin/program": "x"})
        (own / "etc/file").chmod(file)
        (own / "usr/bin/program").chmod(program)
        found = _merged(root, tmp_path / f"{number}.tar", own)
        made.append((tmp_path / f"{number}.tar").read_bytes())
    assert made[0] == made[1]
    modes = [found[f"./{name}"].mode for name in ("etc/file", "usr/bin/program")]
    assert modes == [0o644, 0o755]


@pytest.mark.parametrize("name", ["bin/tool", "etc"])
def test_a_folder_and_a_file_of_one_name_are_refused(root, tmp_path, name):
    own = _own(tmp_path / "own", {name: "x"})
    with pytest.raises(ImageError, match="folder on one side only"):
        _merged(root, tmp_path / "out.tar", own)


def test_a_hard_link_does_not_come_to_point_at_something_else(root, tmp_path):
    own = _own(tmp_path / "own", {"usr/bin/perl": "other"})
    with pytest.raises(ImageError, match="/usr/bin/perl5 is a hard link"):
        _merged(root, tmp_path / "out.tar", own)


def test_folders_can_be_left_empty(root, tmp_path):
    found = _merged(root, tmp_path / "out.tar", without=["boot"])
    assert "./boot" in found
    assert "./boot/vmlinuz-6" not in found


def test_single_files_come_out(root, tmp_path):
    tree.extract(root, {"usr/bin/perl": "EFI/a", "etc/hostname": "name"}, tmp_path / "out")
    assert (tmp_path / "out/EFI/a").read_bytes() == b"perl"
    with pytest.raises(ImageError, match=r"no /usr/lib/shim/shimx64\.efi"):
        tree.extract(root, {"usr/lib/shim/shimx64.efi": "x"}, tmp_path / "out")


def test_sizes_are_counted_in_blocks(root):
    assert tree.size(root, 4096) == (4 * 4096, 13)
