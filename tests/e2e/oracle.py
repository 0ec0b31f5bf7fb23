# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a node: `write` puts real data into every service, `read` prints what is there, by their own clients.

Nothing of it is kOS's code: what it says before and after a restore must be equal.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

PEOPLE = "(a:Person {name: 'Ada'})-[:KNOWS {since: 1833}]->(b:Person {name: 'Charles'})"
GRAPH = "LOAD 'age'; SET search_path = ag_catalog, public;"
NEAREST = "SELECT id FROM memories ORDER BY embedding <-> '[7,15,20]' LIMIT 5"
WRITE_SQL = f"""
CREATE TABLE people AS SELECT n AS id, md5(n::text) AS name FROM generate_series(1, 5000) AS n;
ALTER TABLE people ADD PRIMARY KEY (id);
CREATE TABLE memories (id int PRIMARY KEY, embedding vector(3));
INSERT INTO memories SELECT n, ARRAY[n, n * 2, n * 3]::vector FROM generate_series(1, 300) AS n;
CREATE INDEX ON memories USING hnsw (embedding vector_l2_ops);
CREATE ROLE reporter NOLOGIN;
GRANT SELECT ON people TO reporter;
{GRAPH}
SELECT create_graph('family');
SELECT * FROM cypher('family', $$ CREATE {PEOPLE} $$) AS (v agtype);
"""
READ_SQL = {
    "people": "SELECT count(*), md5(string_agg(id || name, ',' ORDER BY id)) FROM people",
    "vectors": f"SELECT string_agg(id::text, ' ') FROM ({NEAREST}) AS near",
    "vector_index": "SELECT count(*) FROM pg_indexes WHERE tablename = 'memories' AND indexdef LIKE '%hnsw%'",
    "graph": f"{GRAPH} SELECT * FROM cypher('family', $$ MATCH (a)-[k:KNOWS]->(b) RETURN a.name, k.since, b.name $$)"
    " AS (a agtype, since agtype, b agtype)",
    "grants": "SELECT has_table_privilege('reporter', 'people', 'SELECT')",
}


def psql(sql: str) -> str:
    base = ["runuser", "-u", "kos-postgresql", "--", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1"]
    argv = [*base, "-h", "/run/kos-postgresql", "-U", "postgres", "-d", "kos"]
    return subprocess.run(argv, input=sql, text=True, check=True, capture_output=True).stdout.strip()


def secret(name: str) -> str:
    argv = ["systemd-creds", "decrypt", f"--name=kos-{name}", f"/var/lib/kos/secrets/{name}.cred", "-"]
    return subprocess.run(argv, text=True, check=True, capture_output=True).stdout


def valkey(*arguments: str) -> str:
    environment = {**os.environ, "REDISCLI_AUTH": secret("valkey.password")}
    argv = ["valkey-cli", "-h", "127.0.0.1", "--user", "kos", "--no-auth-warning", *arguments]
    return subprocess.run(argv, env=environment, text=True, check=True, capture_output=True).stdout.strip()


def client_context() -> ssl.SSLContext:
    """A client with a certificate of the node's authority, which is also the only one that it believes."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["sh", "/etc/kos/certificates/client.sh", "oracle", folder], check=True)
        context = ssl.create_default_context(cafile=f"{folder}/ca.crt")
        context.load_cert_chain(f"{folder}/tls.crt", f"{folder}/tls.key")
    return context


class Nats:
    """As much of the NATS protocol as one request and its answer need."""

    def __init__(self) -> None:
        # NATS waits two seconds for the login: everything for it is at hand before.
        login = {"user": "kos", "pass": secret("nats.password"), "verbose": False}
        context = client_context()
        connection = socket.create_connection(("127.0.0.1", 4222), timeout=10)
        if json.loads(connection.recv(65536).partition(b" ")[2]).get("tls_required"):
            connection = context.wrap_socket(connection, server_hostname="localhost")
        self.stream = connection.makefile("rwb")
        self.stream.write(b"CONNECT " + json.dumps(login).encode() + b"\r\nSUB answer 1\r\n")

    def ask(self, subject: str, body: str) -> dict:
        content = body.encode()
        self.stream.write(f"PUB {subject} answer {len(content)}\r\n".encode() + content + b"\r\n")
        self.stream.flush()
        while line := self.stream.readline():
            if line.startswith(b"PING"):
                self.stream.write(b"PONG\r\n")
                self.stream.flush()
            elif line.startswith(b"MSG"):
                answer = self.stream.read(int(line.split()[-1]))
                self.stream.readline()
                return json.loads(answer)
            elif line.startswith(b"-ERR"):
                raise RuntimeError(line.decode())
        raise RuntimeError("NATS closed the connection")


def write() -> None:
    psql(WRITE_SQL)
    for number in range(50):
        valkey("set", f"key:{number}", f"value {number}")
    valkey("xadd", "events", "1-1", "kind", "hello")
    nats = Nats()
    nats.ask(
        "$JS.API.STREAM.CREATE.orders", json.dumps({"name": "orders", "subjects": ["orders.>"], "storage": "file"})
    )
    for number in range(20):
        nats.ask("orders.new", f"order {number}")


def read() -> dict:
    nats = Nats()
    stream = nats.ask("$JS.API.STREAM.INFO.orders", "")
    last = nats.ask("$JS.API.STREAM.MSG.GET.orders", json.dumps({"seq": 20}))
    return {
        **{name: psql(sql) for name, sql in READ_SQL.items()},
        "keys": sorted(valkey("keys", "*").splitlines()),
        "values": [valkey("get", f"key:{number}") for number in (0, 49)],
        "stream_in_valkey": valkey("xrange", "events", "-", "+"),
        "messages": stream.get("state", stream).get("messages", stream),
        "last_message": last.get("message", last).get("data", last),
        "authority": digest_of(
            "".join(Path(f"/var/lib/kos-certificates/ca.{part}").read_text() for part in ("crt", "key"))
        ),
        "password_of_clients": digest_of(secret("valkey.password") + secret("postgresql.password")),
    }


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    write() if sys.argv[1] == "write" else print(json.dumps(read(), indent=1))
