# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gateways are told, from the catalogue as it is and from hostile ones."""

from __future__ import annotations

import json
import re

import pytest
from catalogues import ROOT, catalogue, configs, machine, manifest, plan

from ansible_collections.kind.kos.plugins.plugin_utils import assemble
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError

WATCHED = {"monitoring": ["prometheus", "alertmanager", "node_exporter"]}


def rendered(folder, services=None, **settings):
    """path -> text of the real catalogue's generation for a test profile."""
    tree = configs(folder, {"services": {**WATCHED, **(services or {})}, **settings})
    planned = assemble.plan(assemble.Request("test", configs=tree), machine())
    files = assemble.generation(planned).files
    return {path.removeprefix("tree"): content.decode() for path, content in files.items() if path.startswith("tree/")}


def routed(name, **route):
    return manifest(name, routes=[{"port": 9000, **route}])


def refused(folder, *services, profile=None):
    with pytest.raises(ConfigurationError) as caught:
        plan(folder, profile or {"services": {"monitoring": [service["name"] for service in services]}}, *services)
    return str(caught.value)


def test_routes_are_sorted_hosts_first_and_long_prefixes_before_short_ones(tmp_path):
    services = [routed("b", path="/b"), routed("a", path="/b/deep"), routed("c", host="git"), routed("d", path="/a")]
    planned = plan(tmp_path, {"services": {"monitoring": ["d", "c", "b", "a"]}}, *services)
    assert [route.manifest.host or route.manifest.path for route in planned.plan.gateway.routes] == [
        "git", "/b/deep", "/a", "/b",
    ]  # fmt: skip


def test_two_services_for_one_path_are_a_fault_that_names_both_files(tmp_path):
    said = refused(tmp_path, routed("a", path="/same"), routed("b", path="/same"))
    assert "/same is routed by services/a/service.yaml and services/b/service.yaml" in said


@pytest.mark.parametrize("path", ["/healthz", "/ca.crt", "/status", "/status/deep"])
def test_the_gateways_own_paths_stay_its_own(tmp_path, path):
    if "." in path:
        assert "string should match pattern" in refused(tmp_path, routed("a", path=path))
    else:
        assert "which the gateway answers itself" in refused(tmp_path, routed("a", path=path))


@pytest.mark.parametrize(
    "path",
    ["/", "a", "//a", "/a/", "/../etc", "/a b", "/a{x}", "/a;}", '/a"', "/a\n", "/A", "/%61", "/a*", "/{{ 7 * 7 }}"],
)
def test_a_hostile_path_is_refused(tmp_path, path):
    assert "routes" in refused(tmp_path, routed("a", path=path))


@pytest.mark.parametrize("host", ["a.b", "-a", "a_b", "*", "a;", "", "a" * 64])
def test_a_hostile_host_is_refused(tmp_path, host):
    assert "routes" in refused(tmp_path, routed("a", host=host))


def test_a_route_without_authentication_needs_a_reason(tmp_path):
    assert "needs a `reason`" in refused(tmp_path, routed("a", path="/a", authentication=False))


@pytest.mark.parametrize("gateway", ["caddy", "nginx"])
def test_both_gateways_route_the_plan_behind_the_password(tmp_path, gateway):
    files = rendered(tmp_path, {"gateway": gateway})
    if gateway == "caddy":
        served = json.loads(files["/etc/kos/caddy/caddy.json"].replace("@kos:hostname@", "n"))
        doors = served["apps"]["http"]["servers"]["gateway"]["routes"]
        routes = {
            str(door["match"][0]["path"]): json.dumps(door)
            for door in doors
            if "prom" in str(door) or "alertm" in str(door)
        }
        assert list(routes) == ["['/alertmanager', '/alertmanager/*']", "['/prometheus', '/prometheus/*']"]
        assert all('"http_basic"' in text for text in routes.values())
    else:
        text = files["/etc/kos/nginx/nginx.conf"]
        proxied = re.findall(r"location \^~ (\S+) \{(.*?)\}", text, re.DOTALL)
        assert [path for path, _ in proxied] == ["/alertmanager/", "/prometheus/"]
        assert all("auth_basic_user_file" in body for _, body in proxied)
    assert not any("@kos:secret" in text for text in files.values())
    assert "/etc/kos/caddy/caddy.json" not in files or "/etc/kos/nginx/nginx.conf" not in files


@pytest.mark.parametrize("gateway", ["caddy", "nginx"])
def test_both_gateways_send_the_same_headers(tmp_path, gateway):
    files = rendered(tmp_path, {"gateway": gateway, "load_balancer": "haproxy"})
    text = files["/etc/kos/caddy/caddy.json" if gateway == "caddy" else "/etc/kos/nginx/nginx.conf"]
    for name in (
        "Content-Security-Policy", "X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy", "Permissions-Policy",
        "Cross-Origin-Opener-Policy", "Strict-Transport-Security",
    ):  # fmt: skip
        assert name in text and name in files["/etc/kos/haproxy/haproxy.cfg"]
    assert "frame-ancestors 'none'" in text.replace("\\u0027", "'")


def test_limits_reach_the_packet_filter_whatever_the_gateway(tmp_path):
    limits = {"requests_per_minute": 7, "burst": 3, "connections_per_minute": 11, "connections": 5}
    for number, gateway in enumerate(("caddy", "nginx")):
        files = rendered(tmp_path / str(number), {"gateway": gateway}, networking={"rate_limits": limits})
        rules = files["/etc/kos/nftables/firewall.nft"]
        assert "limit rate over 11/minute burst 3 packets" in rules and "ct count over 5 " in rules
        assert "tcp dport { 80, 443 } jump clients" in rules
    assert "rate=7r/m" in files["/etc/kos/nginx/nginx.conf"]


def test_on_loopback_nothing_is_limited_or_opened(tmp_path):
    rules = rendered(tmp_path, networking={"host": "localhost"})["/etc/kos/nftables/firewall.nft"]
    assert "clients" not in rules and "443" not in rules


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"security": {"tls": "acme"}}, "security.tls: 'acme' needs a name that the authority can look up"),
        ({"networking": {"public_name": "a.example.org", "host": "localhost"}}, "would not reach this gateway"),
        ({"networking": {"public_name": "a.example.org", "ports": {"frontend": 8443}}}, "would not reach this gateway"),
        ({"networking": {"acme": {"email": "a@example.org"}}}, "nothing asks that authority"),
        ({"services": {"gateway": "nginx"}, "networking": {"public_name": "a.example.org"}},
         "nginx of Debian 13 cannot fetch a certificate by ACME itself"),
        ({"services": {"gateway": ["nginx", "caddy"]}}, "tcp port 443 is wanted by"),
        ({"networking": {"public_name": "a.example.org; }"}}, "public_name"),
        ({"networking": {"peers": ["10.0.0.1\n    bind :1"]}}, "peers"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_on_the_laptop(tmp_path, settings, says):
    with pytest.raises(ConfigurationError) as caught:
        rendered(tmp_path, settings.pop("services", None), **settings)
    assert says in str(caught.value)


def test_a_public_name_brings_acme_and_internal_ca_keeps_the_nodes_own(tmp_path):
    named = {"public_name": "a.example.org"}
    by_acme = rendered(tmp_path / "1", networking={**named, "acme": {"directory": "https://ca.example.org/dir"}})
    tls = json.loads(by_acme["/etc/kos/caddy/caddy.json"].replace("@kos:hostname@", "n"))["apps"]["tls"]
    assert tls["certificates"]["automate"] == ["a.example.org"]
    assert tls["automation"]["policies"][0]["issuers"] == [{"module": "acme", "ca": "https://ca.example.org/dir"}]
    assert "a.example.org" not in by_acme["/etc/kos/certificates/names"]
    own = rendered(tmp_path / "2", networking=named, security={"tls": "internal_ca"})
    assert "automat" not in json.loads(own["/etc/kos/caddy/caddy.json"].replace("@kos:hostname@", "n"))["apps"]["tls"]
    assert own["/etc/kos/certificates/names"].splitlines()[1].endswith(" a.example.org")


def test_self_signed_means_that_the_gateways_certificate_signs_itself(tmp_path):
    wanted = rendered(tmp_path, {"message_bus": "nats"}, security={"tls": "self_signed"})[
        "/etc/kos/certificates/wanted"
    ]
    assert "gateway serverAuth public itself" in wanted.splitlines()
    assert [line for line in wanted.splitlines() if line.endswith("itself")] == ["gateway serverAuth public itself"]


def test_the_load_balancer_takes_its_backends_from_the_plan(tmp_path):
    database = manifest(
        "db",
        balanced=[{"name": "db_primary", "listen": 5000, "port": 5433, "check_port": 8008, "check_path": "/primary"}],
    )
    asked = {
        "services": {"load_balancer": "haproxy", "database": "db"},
        "networking": {"peers": ["10.0.0.2", "fd00::2"]},
    }
    balancer = manifest("haproxy", provides=["load_balancer"], files=[{"template": "haproxy.cfg.j2", "path": "/etc/x"}])
    source = (ROOT / "services/haproxy/templates/haproxy.cfg.j2").read_text()
    tree = configs(tmp_path, asked)
    services = catalogue(tmp_path, database, balancer, templates={"haproxy/templates/haproxy.cfg.j2": source})
    planned = assemble.plan(assemble.Request("test", configs=tree, services=services), machine())
    text = assemble.generation(planned).files["tree/etc/x"].decode()
    assert "bind 127.0.0.1:5000\n" in text
    assert "option httpchk GET /primary" in text
    assert "server 1 10.0.0.2:5433 check port 8008\n" in text and "server 2 [fd00::2]:5433 check port 8008\n" in text
    assert ("db_primary", 5000, "node") in {(port.name, port.port, port.exposure) for port in planned.plan.ports}


LLAMA = {"llm_backends": ["llama_cpp"]}


def built_here(folder, monkeypatch, **services):
    """The rendered files where llama.cpp's image has been built."""
    lock = folder / "site.json"
    digests = dict.fromkeys(("amd64", "arm64"), f"sha256:{'ab' * 32}")
    row = {"repository": "localhost/kos/llama_cpp", "digests": digests, "licence": "MIT", "source": "test"}
    lock.write_text(json.dumps({"version": 1, "images": {"llama_cpp": row}}))
    monkeypatch.setenv("KOS_SITE_LOCK", str(lock))
    return rendered(folder, {**LLAMA, **services})


def test_language_models_are_behind_every_gateway_unbuffered_for_the_password_and_the_key(tmp_path, monkeypatch):
    files = built_here(tmp_path, monkeypatch)
    server = json.loads(files["/etc/kos/caddy/caddy.json"])["apps"]["http"]["servers"]["gateway"]
    models = next(row for row in server["routes"] if row.get("match") == [{"path": ["/v1", "/v1/*"]}])
    asks, passes = models["handle"][0]["routes"]
    known = "{http.request.header.Authorization} == {env.KOS_API_KEY}"
    assert asks["match"] == [{"not": [{"expression": known}]}] and asks["handle"][0]["handler"] == "authentication"
    proxy = passes["handle"][0]
    assert proxy["flush_interval"] == -1 and proxy["headers"]["request"] == {"delete": ["Authorization"]}
    others = [row for row in server["routes"] if row.get("match") == [{"path": ["/prometheus", "/prometheus/*"]}]]
    assert "match" not in others[0]["handle"][0]["routes"][0]

    nginx = built_here(tmp_path, monkeypatch, gateway="nginx", load_balancer="haproxy")
    text = nginx["/etc/kos/nginx/nginx.conf"]
    block = text[text.index("location ^~ /v1/ {") :].partition("}")[0]
    assert "auth_basic $asked;" in block and "proxy_buffering off;" in block and 'Authorization ""' in block
    assert text.count("auth_basic $asked;") == 2 and 'auth_basic "kOS";' in text
    assert "timeout server 1h" in nginx["/etc/kos/haproxy/haproxy.cfg"]


def test_the_key_lets_in_nowhere_that_did_not_ask_for_it(tmp_path):
    assert "$asked" not in rendered(tmp_path, {"gateway": "nginx"})["/etc/kos/nginx/nginx.conf"]
    with pytest.raises(ConfigurationError, match="needs no `api_key`"):
        plan(tmp_path, {}, routed("a", path="/a", authentication=False, reason="x", api_key=True))
