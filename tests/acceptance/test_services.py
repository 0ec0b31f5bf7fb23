# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each service does its work: asked by its own clients."""

from __future__ import annotations

import base64
import json
import shlex
import time

PSQL = "runuser -u kos-postgresql -- psql -XAtq -v ON_ERROR_STOP=1 -h /run/kos-postgresql -U postgres -d kos -c"


def query(host, statement):
    """What PostgreSQL answers."""
    return host.check_output(f"{PSQL} {shlex.quote(statement)}")


ASK_GATEWAY = r"""
import http.client, socket, ssl, sys
context = ssl._create_unverified_context()
context.maximum_version = ssl.TLSVersion[sys.argv[3]]
connection = http.client.HTTPSConnection("127.0.0.1", int(sys.argv[1]), context=context)
connection.request("GET", sys.argv[2], headers={"Host": socket.gethostname()})
response = connection.getresponse()
print(response.status, response.headers, response.read().decode())
"""


def python(host, code, *arguments):
    """The outcome of a Python program on the node, however it is quoted."""
    packed = base64.b64encode(code.encode()).decode()
    return host.run(f"echo {packed} | base64 -d | python3 - {' '.join(map(str, arguments))}")


def fetch(host, address):
    """The JSON document at `address`, as the node sees it."""
    code = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())"
    return json.loads(python(host, code, f"'{address}'").stdout)


def test_vectors_are_compared(host, planned):
    planned("pgvector")
    assert query(host, "SELECT '[1,2,3]'::vector <-> '[1,2,4]'") == "1"


def test_a_graph_is_queried(host, planned):
    planned("age")
    sql = (
        "LOAD 'age'; SET search_path = ag_catalog, public; SELECT create_graph('accept');"
        " SELECT * FROM cypher('accept', $$ CREATE (a:P {n: 1})-[:KNOWS]->(b:P {n: 2}) $$) AS (v agtype);"
        " SELECT n FROM cypher('accept', $$ MATCH (:P {n: 1})-[:KNOWS]->(b) RETURN b.n $$) AS (n agtype);"
        " SELECT drop_graph('accept', true);"
    )
    assert "2" in query(host, sql).split()


def test_valkey_asks_for_a_password(host, planned):
    planned("valkey")
    assert host.check_output("valkey-cli ping") == "PONG"
    assert "NOPERM" in host.check_output("valkey-cli get x") or "NOAUTH" in host.check_output("valkey-cli get x")


def test_nats_has_jetstream_and_asks_for_a_password(host, planned):
    planned("nats")
    assert fetch(host, "http://127.0.0.1:8222/healthz?js-enabled-only=true")["status"] == "ok"
    code = "import socket; print(socket.create_connection(('127.0.0.1', 4222)).recv(4096).decode())"
    assert '"auth_required":true' in python(host, code).stdout.replace(" ", "")


def prometheus(host, path):
    return fetch(host, f"http://127.0.0.1:9090/api/v1/{path}")["data"]


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

    def ask(path, newest):
        return python(host, ASK_GATEWAY, port, path, newest)

    # The page is some seconds old: it may still tell of a restart that another test made just before.
    until, page = time.monotonic() + 30, ask("/", "TLSv1_3").stdout
    while "services are healthy" not in page and time.monotonic() < until:
        time.sleep(1)
        page = ask("/", "TLSv1_3").stdout
    assert "200" in page and "services are healthy" in page
    for header in ("Strict-Transport-Security", "Content-Security-Policy", "X-Content-Type-Options"):
        assert header.lower() in page.lower(), header
    assert '"services"' in ask("/status.json", "TLSv1_3").stdout
    assert ask("/", "TLSv1_2").rc != 0


def test_what_is_lost_comes_back_from_a_backup(host, planned):
    planned("postgresql")
    node, folder = "python3 -I -B /var/lib/kos/current/node", "/var/tmp/kos-accept-loss"
    host.check_output(f"rm -rf {folder}; install -d -o kos-postgresql -m 0700 {folder}")
    host.check_output(f'{PSQL} "DROP TABLE IF EXISTS precious; CREATE TABLE precious AS SELECT 42 AS answer"')
    host.check_output(f"{node} backup postgresql {folder}")
    query(host, "DROP TABLE precious")
    host.check_output(f"{node} restore postgresql {folder}")
    assert query(host, "SELECT answer FROM precious") == "42"
    query(host, "DROP TABLE precious")
    host.check_output(f"rm -rf {folder}")


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
