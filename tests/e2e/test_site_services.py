# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only a site layer asks for: it comes, does its work, goes with the layer, and finds its data when it is back."""

from __future__ import annotations

import re

import accepting
import pytest
from labnodes import INVENTORY, ROOT

LAYER = ROOT / "configs" / "overrides" / "lab-services.yaml"
ASKED = {"mosquitto", "etcd", "patroni", "slapd", "victoriametrics", "journal", "sqlite"}
SQL = "CREATE TABLE kept AS SELECT 42 AS answer", "SELECT answer FROM kept"
PATRONIS = "runuser -u kos-postgresql -- psql -XAtq -v ON_ERROR_STOP=1 -h /run/kos-postgresql -U postgres -d kos -c"
SQLITES = "runuser -u kos-sqlite -- sqlite3 /var/lib/kos-sqlite/kai.db"


def deploy(lab, node, layer):
    return lab.deploy(node, "--profile", "development", "--site", str(layer))


def services(lab, node):
    return {row["name"]: row["healthy"] for row in lab.status(node)["services"]}


@pytest.fixture(scope="module")
def running(lab, node):
    deploy(lab, node, LAYER)
    return node


def test_every_one_comes_up(lab, running):
    found = services(lab, running)
    assert set(found) >= ASKED and all(found.values()), found


def test_a_second_run_changes_nothing(lab, running):
    done = lab.playbook(running, "-e", f"kos_profile=development kos_site_layer={LAYER}")
    assert re.search(rf"{running}\s+: ok=\d+\s+changed=0\s", done.stdout), done.stdout


def test_every_one_does_its_work(lab, running):
    """Their acceptance tests, of which none may be left out."""
    said = accepting.accept(
        f"{INVENTORY}/hosts.py", running, "playbook", "-rs", suite="tests/acceptance/test_debian_services.py",
        environment=lab.environment,
    )  # fmt: skip
    skipped = set(re.findall(r"(\w+) is not in the plan", said))
    assert not skipped & ASKED, said


def test_they_go_with_the_layer_and_their_data_stays_for_the_next_time(lab, running, tmp_path):
    for client in (PATRONIS, SQLITES):
        lab.ssh(running, f"{client} '{SQL[0]}'")
    (tmp_path / "less.yaml").write_text("services: {vector_db: pgvector, monitoring: [prometheus]}\n")
    deploy(lab, running, tmp_path / "less.yaml")
    assert set(services(lab, running)) & {*ASKED, "postgresql"} == {"postgresql"}
    assert lab.ssh(running, "cd /etc/kos; ls -d " + " ".join(sorted(ASKED)), check=False) == ""
    opened = lab.ssh(running, "ss -Hltn | awk '{print $4}'")
    for port in (389, 1883, 2379, 2380, 8008, 8428, 19532):
        assert f":{port}\n" not in f"{opened}\n", port
    assert lab.ssh(running, "systemctl --failed --plain --no-legend") == ""

    deploy(lab, running, LAYER)
    assert all(services(lab, running).values())
    for client in (PATRONIS, SQLITES):
        assert lab.ssh(running, f"{client} '{SQL[1]}'") == "42"
