# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How nodes inherit this machine's way to packages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ansible_collections.kind.kos.plugins.plugin_utils import apt

DEFAULTS = """\
Acquire "";
Acquire::Languages "";
Acquire::Languages:: "environment";
Acquire::Languages:: "en";
Acquire::Retries "3";
"""


def target(uri: str, release: str, component: str = "main", origin: str = "", file: str = "debian.sources") -> str:
    lines = [f"Repo-URI: {uri}", f"Release: {release}", f"Component: {component}", "Created-By: Packages"]
    lines += [f"Sourcesentry: /etc/apt/sources.list.d/{file}:1", *([f"Origin: {origin}"] if origin else [])]
    return "\n".join(lines)


def targets(*stanzas: str) -> str:
    return "\n\n".join(stanzas) + "\n"


@pytest.fixture(autouse=True)
def on_bookworm(monkeypatch):
    monkeypatch.setattr(apt, "_codename", lambda: "bookworm")


def test_mirrors_are_debians_own_and_lose_their_slash():
    listed = targets(
        target("http://mirror.example/debian/", "bookworm", origin="Debian"),
        target("http://mirror.example/debian/", "bookworm-updates", origin="Debian"),
        target("http://mirror.example/debian-security/", "bookworm-security", origin="Debian"),
    )
    assert apt.mirrors(listed) == ("http://mirror.example/debian", "http://mirror.example/debian-security")


@pytest.mark.parametrize("origin", ["", "Debian"], ids=["lists never fetched", "lists fetched"])
def test_third_party_with_debians_suite_name_is_passed_over(origin: str):
    stranger = "Stranger" if origin else ""
    listed = targets(
        target("https://packages.example/debian/", "bookworm", origin=stranger, file="aaa.sources"),
        target("https://mirror.example/debian/", "bookworm", origin=origin),
    )
    assert apt.mirrors(listed)[0] == "https://mirror.example/debian"


@pytest.mark.parametrize(
    "stanza",
    [
        target("cdrom://disc/", "bookworm"),
        target("file:/srv/debian/", "bookworm"),
        target("http://mirror.example/debian/", "bookworm", component="contrib"),
        target("http://mirror.example/debian/", "bookworm-pgdg"),
    ],
)
def test_what_a_node_cannot_use_is_no_mirror(stanza: str):
    assert apt.mirrors(targets(stanza)) == (None, None)


def test_suite_by_its_alias_counts():
    assert apt.mirrors(targets(target("http://mirror.example/debian/", "stable")))[0] == "http://mirror.example/debian"


@pytest.mark.parametrize(
    "line",
    [
        'Acquire::AllowInsecureRepositories "true";',
        'Acquire::AllowWeakRepositories "true";',
        'Acquire::AllowDowngradeToInsecureRepositories "1";',
        'acquire::allowinsecurerepositories "yes";',
        'Acquire::gpgv::Options:: "--ignore-time-conflict";',
    ],
)
def test_what_makes_apt_careless_is_not_inherited(line: str):
    assert apt.option_lines(f"{DEFAULTS}{line}\n", DEFAULTS) == ()


def test_how_old_an_index_may_be_is_inherited():
    """A mirror that keeps all versions has indexes that have run out."""
    line = 'Acquire::Check-Valid-Until "false";'
    assert apt.option_lines(f"{DEFAULTS}{line}\n", DEFAULTS) == (line,)


def test_only_what_somebody_set_is_inherited():
    configured = DEFAULTS.replace('Retries "3"', 'Retries "9"') + 'Acquire::http::Proxy "http://proxy.example:3128";\n'
    assert apt.option_lines(configured, DEFAULTS) == (
        'Acquire::Retries "9";',
        'Acquire::http::Proxy "http://proxy.example:3128";',
    )
    assert apt.option_lines(DEFAULTS, DEFAULTS) == ()


def test_a_list_replaces_the_list_of_the_node():
    both = 'Acquire::Languages:: "environment";\nAcquire::Languages:: "en";'
    configured = DEFAULTS.replace(both, 'Acquire::Languages:: "none";')
    assert apt.option_lines(configured, DEFAULTS) == ("#clear Acquire::Languages;", 'Acquire::Languages:: "none";')


def test_indexes_of_programs_installed_here_are_not_inherited():
    configured = DEFAULTS + 'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\n'
    assert apt.option_lines(configured, DEFAULTS) == ()


def test_files_that_options_name_go_along():
    options = (
        'Acquire::https::CAInfo "/etc/ssl/own.pem";',
        'Acquire::Check-Date "false";',
        "#clear Acquire::Languages;",
    )
    assert apt.named_files(options) == ["/etc/ssl/own.pem"]


def test_proxy_of_the_environment_becomes_an_option():
    environ = {"http_proxy": "http://proxy.example:3128", "https_proxy": ""}
    assert apt.proxy_lines(environ) == ('Acquire::http::Proxy "http://proxy.example:3128";',)


def test_sources_name_updates_and_security():
    configuration = apt.AptConfiguration("http://m.example/debian", "http://m.example/debian-security", ())
    sources = configuration.sources("trixie")
    assert "URIs: http://m.example/debian\nSuites: trixie trixie-updates\n" in sources
    assert "URIs: http://m.example/debian-security\nSuites: trixie-security\n" in sources


def test_no_security_archive_no_entry():
    assert "security" not in apt.AptConfiguration("http://m.example/debian", None, ()).sources("trixie")


@pytest.fixture
def silent_apt(monkeypatch):
    monkeypatch.setattr(apt, "_run", lambda *_, **__: "")


def test_option_wins_over_this_machine(silent_apt):
    environ = {apt.MIRROR: "http://given.example/debian/", apt.SECURITY_MIRROR: "http://given.example/security"}
    inherited = apt.inherit(environ)
    assert (inherited.mirror, inherited.security_mirror) == (
        "http://given.example/debian",
        "http://given.example/security",
    )


def test_no_mirror_anywhere_is_said(silent_apt):
    with pytest.raises(apt.NoMirror, match="set KOS_APT_MIRROR"):
        apt.inherit({})


def test_no_mirror_stands_in_the_code():
    root = Path(apt.__file__).parents[2]
    rooms = [root / name for name in ("plugins", "lab", "cli", "image-builder", "installer")]
    for path in [path for room in rooms for kind in ("py", "sh", "yaml") for path in room.rglob(f"*.{kind}")]:
        assert not re.search(r"\bdeb\.debian\b", path.read_text()), path
