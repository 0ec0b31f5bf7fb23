# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`kai migrate`: a desktop becomes a personal node; SQLite's rows go to PostgreSQL, interrupted twice on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest
from labnodes import BIN, INVENTORY, ROOT, wait_for

DATABASE = "/var/lib/kos-sqlite/kai.db"
# What one engine writes otherwise than the other: escapes, NULL, bytes, fractions, a column of several types.
WRITE = r"""
CREATE TABLE notes (id INTEGER PRIMARY KEY, title TEXT, weight REAL, picture BLOB, anything);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000)
  INSERT INTO notes SELECT i, 'note ' || i, i / 7.0, randomblob(8), i FROM n;
INSERT INTO notes VALUES (70001, 'tab' || char(9) || 'line' || char(10) || 'back\slash \N "ä" ☃', NULL, x'00ff5c', 'x');
INSERT INTO notes VALUES (70002, NULL, 1e300, NULL, 2.5);
CREATE TABLE "a table" ("a column" TEXT, number INTEGER, PRIMARY KEY (number, "a column"));
INSERT INTO "a table" VALUES ('one', 1), ('two', 1);
CREATE TABLE empty (id INTEGER);
"""
# The same question to both, in the spelling of each; the answers are compared as bytes.
READ_SQLITE = "SELECT id, hex(title), hex(picture) FROM notes ORDER BY id"
READ_POSTGRESQL = """SELECT id, upper(encode(convert_to(title, 'UTF8'), 'hex')), upper(encode(picture, 'hex'))
 FROM kai.notes ORDER BY id"""
# Killed as soon as it is seen.
KILL_IMPORT = """systemd-run -q timeout 300 sh -c \
  "until pkill -KILL -f '[i]mport_sqlite.py import'; do sleep 0.02; done"
"""


def sqlite(lab, node, sql):
    return lab.ssh(node, f"runuser -u kos-sqlite -- sqlite3 -batch {DATABASE} <<'END'\n{sql}\nEND")


READER = """
import sqlite3
for row in sqlite3.connect("file:{}?mode=ro", uri=True).execute("{}"):
    print(*("" if value is None else value for value in row), sep="|")
"""


def left_behind(lab, node, sql):
    """What is still in the source; the client of its engine has gone with it."""
    return lab.ssh(node, f"python3 -I - <<'END'\n{READER.format(DATABASE, sql)}\nEND")


def psql(lab, node, sql):
    client = "runuser -u kos-postgresql -- psql -XAtq -v ON_ERROR_STOP=1 -h /run/kos-postgresql -U postgres -d kos"
    return lab.ssh(node, f"{client} <<'END'\n{sql};\nEND")


def phase(lab, node):
    said = lab.ssh(node, "cat /var/lib/kos/migration.json 2>/dev/null", check=False)
    return json.loads(said)["phase"] if said else ""


def profile(lab, node):
    return json.loads(lab.ssh(node, "cat /var/lib/kos/current/manifest.json"))["profile"]


@pytest.fixture(scope="module")
def arguments(node, tmp_path_factory):
    """What every `kai migrate` of this module is given: the node, and where its backups go."""
    layer = tmp_path_factory.mktemp("migrate") / "site.yaml"
    layer.write_text("backup: {repository: /srv/backup}\n")
    return ["-i", INVENTORY, "--limit", node, "--site", str(layer)]


@pytest.fixture(scope="module")
def desktop(lab, node, arguments):
    """A desktop with data in both of its databases."""
    lab.kai("deploy", "--profile", "desktop", *arguments)
    sqlite(lab, node, WRITE)
    psql(lab, node, "CREATE TABLE kept AS SELECT 42 AS answer")
    return node


def migrate(lab, arguments, *more, check=True):
    return lab.kai("migrate", "--from", "desktop", "--to", "personal_node", *arguments, *more, check=check)


def test_what_cannot_be_is_refused_and_nothing_begins(lab, desktop, arguments):
    back = lab.kai("migrate", "--from", "personal_node", "--to", "desktop", *arguments, check=False)
    assert back.returncode == 3 and "personal_node does not become desktop" in back.stderr
    assert "it can become: developer_node, enterprise, federation_node" in back.stderr
    other = lab.kai("migrate", "--from", "development", "--to", "personal_node", *arguments, check=False)
    assert other.returncode == 1 and "this node runs desktop, not development" in other.stderr
    assert phase(lab, desktop) == "" and profile(lab, desktop) == "desktop"
    unfinished = lab.kai(
        "migrate", "--purge", "-i", INVENTORY, "--limit", desktop, "--yes-i-know", desktop, check=False
    )
    assert unfinished.returncode == 1 and "nothing may be purged" in unfinished.stderr


def test_killed_after_the_export_it_is_still_a_desktop(lab, desktop, arguments):
    argv = [str(BIN / "kai"), "migrate", "--from", "desktop", "--to", "personal_node", "--backup", *arguments]
    nothing = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(argv, cwd=ROOT, env=lab.environment, start_new_session=True, **nothing)
    wait_for(lambda: phase(lab, desktop) == "exported", 120)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert profile(lab, desktop) == "desktop" and lab.healthy(desktop)
    listed = lab.kai("backup", "--list", "-i", INVENTORY, "--limit", desktop, "--json").stdout
    assert [row["tags"] for row in json.loads(listed)[desktop]] == [["before-migration"]]
    # Work goes on until the next attempt, and none of it is lost.
    sqlite(lab, desktop, "INSERT INTO notes (id, title) VALUES (80000, 'written in between');")


def test_killed_inside_the_import_the_target_runs_and_says_what_is_missing(lab, desktop, arguments):
    lab.ssh(desktop, KILL_IMPORT)
    done = migrate(lab, arguments, check=False)
    assert done.returncode == 1
    assert "sqlite could not be imported into postgresql" in done.stderr and "run it again" in done.stderr
    assert profile(lab, desktop) == "personal_node" and phase(lab, desktop) == "exported"
    unfinished = lab.kai(
        "migrate", "--purge", "-i", INVENTORY, "--limit", desktop, "--yes-i-know", desktop, check=False
    )
    assert unfinished.returncode == 1 and "nothing may be purged" in unfinished.stderr


def test_run_again_every_row_is_in_postgresql(lab, desktop, arguments):
    report = json.loads(migrate(lab, arguments, "--json").stdout)[desktop]
    compared = {row["name"]: row["number"] for row in report["moved"]["sqlite"]["compared"]}
    assert compared == {"kai.notes": 60003, "kai.a table": 2, "kai.empty": 0}
    assert report["moved"]["sqlite"]["into"] == "postgresql" and "postgresql" in report["stayed"]
    assert lab.healthy(desktop)


def test_the_rows_are_the_same_by_the_databases_own_clients(lab, desktop):
    here = left_behind(lab, desktop, READ_SQLITE)
    assert len(here.splitlines()) == 60003 and here == psql(lab, desktop, READ_POSTGRESQL)
    assert psql(lab, desktop, "SELECT title FROM kai.notes WHERE id = 80000") == "written in between"
    weights = "SELECT count(weight), count(*), min(weight) = 1 / 7.0::float8, max(weight) = 1e300 FROM kai.notes"
    assert psql(lab, desktop, weights) == "60001|60003|t|t"
    assert psql(lab, desktop, "SELECT anything FROM kai.notes WHERE id IN (1, 70001, 70002) ORDER BY id") == "1\nx\n2.5"
    assert psql(lab, desktop, "SELECT answer FROM kept") == "42"


def test_the_source_stays_until_it_is_purged(lab, desktop):
    assert left_behind(lab, desktop, "SELECT count(*) FROM notes") == "60003"
    lab.kai("migrate", "--purge", "-i", INVENTORY, "--limit", desktop, "--yes-i-know", desktop)
    assert lab.ssh(desktop, "ls -d /var/lib/kos-sqlite /var/lib/kos/migration* 2>/dev/null", check=False) == ""
    assert psql(lab, desktop, "SELECT count(*) FROM kai.notes") == "60003"
    assert lab.healthy(desktop)
