# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each service does its work: asked by its own clients."""

from __future__ import annotations

import json

PSQL = "runuser -u kos-postgresql -- psql -XAtq -v ON_ERROR_STOP=1 -h /run/kos-postgresql -U postgres -d kos -c"


def test_vectors_are_compared(host, planned):
    planned("pgvector")
    assert host.check_output(f"{PSQL} \"SELECT '[1,2,3]'::vector <-> '[1,2,4]'\"") == "1"


def test_a_graph_is_queried(host, planned):
    planned("age")
    sql = (
        "LOAD 'age'; SET search_path = ag_catalog, public; SELECT create_graph('accept');"
        " SELECT * FROM cypher('accept', \\$\\$ CREATE (a:P {n: 1})-[:KNOWS]->(b:P {n: 2}) \\$\\$) AS (v agtype);"
        " SELECT n FROM cypher('accept', \\$\\$ MATCH (:P {n: 1})-[:KNOWS]->(b) RETURN b.n \\$\\$) AS (n agtype);"
        " SELECT drop_graph('accept', true);"
    )
    assert "2" in host.check_output(f'{PSQL} "{sql}"').split()


def test_valkey_asks_for_a_password(host, planned):
    planned("valkey")
    assert host.check_output("valkey-cli ping") == "PONG"
    assert "NOPERM" in host.check_output("valkey-cli get x") or "NOAUTH" in host.check_output("valkey-cli get x")


def test_nats_has_jetstream_and_asks_for_a_password(host, planned):
    planned("nats")
    address = "http://127.0.0.1:8222/healthz?js-enabled-only=true"
    script = f"import urllib.request; print(urllib.request.urlopen({address!r}).read().decode())"
    assert json.loads(host.check_output(f'python3 -c "{script}"'))["status"] == "ok"
    script = "import socket; s = socket.create_connection((\\'127.0.0.1\\', 4222)); print(s.recv(4096).decode())"
    assert '"auth_required":true' in host.check_output(f"python3 -c $'{script}'").replace(" ", "")


def prometheus(host, path):
    address = f"http://127.0.0.1:9090/api/v1/{path}"
    script = f"import urllib.request; print(urllib.request.urlopen({address!r}).read().decode())"
    return json.loads(host.check_output(f'python3 -c "{script}"'))["data"]


def test_prometheus_scrapes_every_service_and_has_their_rules(host, planned, manifest):
    planned("prometheus")
    targets = prometheus(host, "targets?state=active")["activeTargets"]
    assert targets
    assert [target["lastError"] for target in targets if target["health"] == "down"] == []
    rules = [row["path"] for row in manifest["files"] if row["path"].startswith("/etc/kos/prometheus/rules/")]
    assert len(prometheus(host, "rules")["groups"]) >= len(rules) > 0


def test_the_gateway_speaks_tls_13_only_and_serves_the_live_page(host, planned, manifest):
    planned("caddy")
    port = next(row["port"] for row in manifest["ports"] if row["name"] == "https")
    script = (
        "import ssl, http.client, socket, sys; c = ssl._create_unverified_context();"
        f" h = http.client.HTTPSConnection('127.0.0.1', {port}, context=c); h.request('GET', sys.argv[1], headers=dict(Host=socket.gethostname()));"
        " r = h.getresponse(); print(h.sock.version() if h.sock else ''); print(r.status); print(r.headers); print(r.read().decode())"
    )
    page = host.check_output(f'python3 -c "{script}" /')
    assert "200" in page and "services are healthy" in page
    for header in ("Strict-Transport-Security", "Content-Security-Policy", "X-Content-Type-Options"):
        assert header.lower() in page.lower(), header
    assert '"services"' in host.check_output(f'python3 -c "{script}" /status.json')
    old = script.replace(
        "c = ssl._create_unverified_context();",
        "c = ssl._create_unverified_context(); c.maximum_version = ssl.TLSVersion.TLSv1_2;",
    )
    assert host.run(f'python3 -c "{old}" /').rc != 0


def test_every_backup_restores(host, manifest):
    """Each manifest's own commands: back up, and restore what was backed up."""
    for service in manifest["services"]:
        if not service["backup"]:
            continue
        folder = f"/var/tmp/kos-accept-{service['name']}"
        user = service["backup"].get("user") or service["user"]
        host.check_output(f"rm -rf {folder}; install -d -o {user} -m 0700 {folder}")
        node = "python3 -I -B /var/lib/kos/current/node"
        host.check_output(f"{node} backup {service['name']} {folder}")
        assert host.check_output(f"find {folder} -mindepth 1"), service["name"]
        host.check_output(f"{node} restore {service['name']} {folder}")
        host.check_output(f"rm -rf {folder}")
