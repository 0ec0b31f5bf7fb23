# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Members of a cluster: what each is told, what its files become, and what they share."""

from __future__ import annotations

import re
import stat
import subprocess

import pytest

from ansible_collections.kind.kos.plugins.module_utils.node import cluster, join
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.plugin_utils import assemble, clusters
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError
from ansible_collections.kind.kos.plugins.plugin_utils.hardware import Facts

HOSTS = {"a": {"ansible_host": "10.0.0.1"}, "b": {"ansible_host": "10.0.0.2"}, "c": {"kos_address": "fd00::3"}}
GROUPS = {"bus": ["c", "b", "a"], "other": ["a"]}
FACTS = Facts.model_validate(
    {
        "os": {"id": "debian", "version": "13"},
        "architecture": "amd64",
        "cpu": 64,
        "memory_mb": 262144,
        "disk_gb": 4000,
        "gpus": [],
        "network_mbps": 10000,
        "disk_encrypted": True,
    }
)


def told(host, group="bus"):
    return {"cluster": clusters.membership(host, group, GROUPS, HOSTS)}


def faults(host, group, groups, hosts):
    with pytest.raises(ConfigurationError) as caught:
        clusters.membership(host, group, groups, hosts)
    return str(caught.value)


@pytest.fixture(scope="module")
def nats():
    """The files of the service nats in a generation of federation_node, by path."""
    built = assemble.generation(assemble.plan(assemble.Request("federation_node"), FACTS))
    rows = {row["path"]: row for row in built.manifest["files"]}
    return lambda path: built.files[rows[path]["source"]]


def joined(content, node):
    return join.Joiner(Root(), cluster=cluster.of(node)).join(content).decode()


def test_every_member_is_told_of_itself_and_of_the_others():
    assert told("b")["cluster"] == {
        "name": "bus",
        "own": {"name": "b", "address": "10.0.0.2"},
        "peers": [{"name": "a", "address": "10.0.0.1"}, {"name": "c", "address": "fd00::3"}],
    }
    assert clusters.membership("a", "", GROUPS, HOSTS) is None


def test_what_is_no_cluster_is_refused_with_its_mending():
    assert "did you mean 'other'?" in faults("a", "othr", GROUPS, HOSTS)
    assert "put b into it" in faults("b", "other", GROUPS, HOSTS)
    twice = {"a": {"ansible_host": "10.0.0.1"}, "b": {"ansible_host": "10.0.0.1"}}
    assert "a and b have the same address, 10.0.0.1" in faults("a", "bus", {"bus": ["a", "b"]}, twice)
    named = {"a": {"ansible_host": "a.example.org"}}
    assert "set kos_address of a to an IPv4 or IPv6 address" in faults("a", "bus", {"bus": ["a"]}, named)
    assert "cannot name a cluster" in faults("a", "../bus", {"../bus": ["a"]}, HOSTS)


def test_lines_for_a_cluster():
    text = b"one\n@kos:if:cluster@\n[\n  @kos:for:peer@\n  @kos:peer:host@ @kos:peer:family@\n  @kos:end:peer@\n]\n"
    text += b"@kos:end:cluster@\n@kos:if:alone@\nalone @kos:cluster:size@\n@kos:end:alone@\n"
    assert joined(text, told("b")) == "one\n[\n  10.0.0.1 ip\n  [fd00::3] ip6\n]\n"
    assert joined(text, {}) == "one\nalone 1\n"


@pytest.mark.parametrize("text", [b"@kos:if:cluster@\nx\n", b"@kos:for:peer@\n@kos:end:cluster@\n"])
def test_lines_without_an_end_are_refused(text):
    with pytest.raises(cluster.NotAMember, match="no end"):
        joined(text, told("a"))


def test_a_node_that_stands_alone_has_no_address_for_peers():
    assert joined(b"@kos:cluster:peers@|@kos:cluster:quorum@", {}) == "|1"
    with pytest.raises(cluster.NotAMember, match="in no cluster"):
        joined(b"@kos:cluster:address@", {})


def test_sealed_files_have_no_part_of_the_cluster():
    joiner = join.Joiner(Root(), lambda _name: "s", cluster.of(told("a")))
    with pytest.raises(join.UnknownToken):
        joiner.join(b"@kos:for:peer@\n@kos:peer:name@\n@kos:end:peer@\n", sealed=True)


def test_quorum():
    assert [cluster.of(told(host, group)).quorum for host, group in (("a", "other"), ("a", "bus"))] == [1, 2]


def test_nats_alone_and_as_one_of_three(nats):
    alone, member = (joined(nats("/etc/kos/nats/nats.conf"), node) for node in ({}, told("b")))
    assert "cluster {" not in alone
    assert re.findall(r"nats-route://(\S+)\"", member) == ["10.0.0.1:6222", "[fd00::3]:6222"]
    assert 'server_name: "b"' in member and 'listen: "10.0.0.2:6222"' in member
    unit = nats("/etc/systemd/system/kos-nats.service")
    assert "IPAddressAllow=localhost \n" in joined(unit, {})
    assert "IPAddressAllow=localhost 10.0.0.1 fd00::3\n" in joined(unit, told("b"))
    script = joined(nats("/etc/kos/nats/cluster.py"), told("b"))
    assert "SIZE = 3\nQUORUM = 2\n" in script
    compile(script, "cluster.py", "exec")


def test_the_firewall_opens_the_routes_to_members_alone(nats):
    rules = nats("/etc/kos/nftables/firewall.nft")
    assert "6222" not in joined(rules, {})
    opened = [line.strip() for line in joined(rules, told("b")).splitlines() if "6222" in line]
    assert opened == [
        'ip saddr 10.0.0.1 tcp dport 6222 accept comment "nats routes, from a"',
        'ip6 saddr fd00::3 tcp dport 6222 accept comment "nats routes, from c"',
    ]


def test_the_secret_of_a_cluster_is_made_once_and_is_its_users_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    made = clusters.secret("bus")
    assert clusters.secret("bus") == made != clusters.secret("other") and len(made) == 64
    assert stat.S_IMODE((tmp_path / "kos" / "clusters" / "bus").stat().st_mode) == 0o600


def issued(nats, folder, secret):
    """The directory in which the node's authority made its certificates, as `issue.sh` is run on a member."""
    for name in ("state", "run", "etc", "credentials"):
        (folder / name).mkdir(parents=True)
    (folder / "credentials" / "cluster").write_text(secret)
    (folder / "etc" / "wanted").write_text("nats-peers serverAuth,clientAuth peers peers\n")
    (folder / "etc" / "names").write_text(joined(nats("/etc/kos/certificates/names"), told("a")))
    script = nats("/etc/kos/certificates/issue.sh").decode()
    for place, name in (("/var/lib", "state"), ("/run", "run"), ("/etc/kos", "etc")):
        script = script.replace(f"{place}/{'kos-' if name != 'etc' else ''}certificates", str(folder / name))
    environment = {"PATH": "/usr/bin:/bin", "CREDENTIALS_DIRECTORY": str(folder / "credentials")}
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, text=True, check=False)
    return folder / "state", done


def verified(authority, certificate):
    argv = ["openssl", "verify", "-CAfile", str(authority), str(certificate)]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def test_members_trust_each_others_certificates_and_no_strangers(nats, tmp_path):
    one, other, stranger = (
        issued(nats, tmp_path / name, secret)[0]
        for name, secret in (("one", "s" * 40), ("other", "s" * 40), ("stranger", "t" * 40))
    )
    assert verified(one / "peers-ca.crt", other / "nats-peers.crt")
    assert not verified(one / "peers-ca.crt", stranger / "nats-peers.crt")
    assert not verified(one / "ca.crt", one / "nats-peers.crt")
    text = subprocess.run(
        ["openssl", "x509", "-in", str(one / "nats-peers.crt"), "-noout", "-ext", "subjectAltName"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "IP Address:10.0.0.1" in text


def test_a_node_without_a_secret_signs_for_itself_and_a_short_one_is_refused(nats, tmp_path):
    alone, done = issued(nats, tmp_path / "alone", "")
    assert done.returncode == 0 and verified(alone / "ca.crt", alone / "nats-peers.crt")
    _folder, done = issued(nats, tmp_path / "short", "s" * 31)
    assert done.returncode == 1 and "needs 32 characters" in done.stderr


@pytest.mark.parametrize(
    ("node", "there", "refused"),
    [
        ({}, "$G/streams/old", None),
        ({}, "$SYS/_js_/_meta_", "belongs to a member of a cluster"),
        (told("b"), "$SYS/_js_/_meta_", None),
        (told("b"), "$G/streams/old", "of a node that stood alone"),
        (told("b"), "$G", None),
    ],
)
def test_a_start_that_would_cost_streams_is_refused(nats, tmp_path, node, there, refused):
    (tmp_path / there).mkdir(parents=True)
    script = joined(nats("/etc/kos/nats/cluster.py"), node).replace("/var/lib/kos-nats/jetstream", str(tmp_path))
    done = subprocess.run(["python3", "-I", "-c", script, "join"], capture_output=True, text=True, check=False)
    assert done.returncode == (1 if refused else 0)
    assert (refused or "") in done.stderr


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"size": 3, "healthy": 3, "quorum": 2, "leader": "a"}, "all 3 members are there, 1 more may be away; a leads"),
        (
            {"size": 3, "healthy": 2, "quorum": 2, "leader": None},
            "2 of 3 members are there, and none more may be away; they are choosing a leader",
        ),
        (
            {"size": 3, "healthy": 1, "quorum": 2, "leader": None},
            "1 of 3 members are there, and 2 must be: nothing can be written",
        ),
        ({"size": 6, "healthy": 6, "says": "every key is served"}, "all 6 members are there; every key is served"),
    ],
)
def test_what_a_person_is_told_of_a_cluster(told, says):
    assert cluster.sentence(told) == says


def test_a_plan_says_the_same_of_a_cluster_for_every_member():
    shown = [clusters.shown(told(host)["cluster"]) for host in "abc"]
    assert shown == [{"name": "bus", "members": ["a", "b", "c"]}] * 3
    assert clusters.shown(None) is None
