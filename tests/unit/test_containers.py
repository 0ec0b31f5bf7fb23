# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service as a container: what its Quadlet says, and what nothing can leave out."""

from __future__ import annotations

import pytest
import yaml
from catalogues import catalogue, configs, machine, manifest

from ansible_collections.kind.kos.plugins.plugin_utils import assemble
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError

DIGEST = "sha256:" + 64 * "a"


def lock(folder, **digests):
    """An image lock in the services folder with one image a name, resolved to its digest."""
    rows = {
        name: {"repository": f"registry.example/{name}", "digests": {"amd64": digest}, "licence": "MIT", "source": "x"}
        for name, digest in digests.items()
    }
    (folder / "services").mkdir(exist_ok=True)
    (folder / "services" / "images.lock").write_text(yaml.safe_dump({"version": 1, "images": rows}))


def planned(folder, container=None, profile=None, digest=DIGEST, facts=None, **changes):
    """The plan of a profile that asks for one service, `store`, which comes as a container."""
    lock(folder, store=digest)
    runtime = manifest("podman", tier=0, provides=["container_runtime"])
    store = manifest("store", **{"substrates": {"container": container or {}}, **changes})
    request = assemble.Request(
        "test",
        configs=configs(folder, {"services": {"vector_db": "store"}, **(profile or {})}),
        services=catalogue(folder, runtime, store, *changes.pop("others", [])),
    )
    return assemble.plan(request, facts or machine(gpus=[]))


def quadlet(folder, **arguments):
    """The lines of the store's Quadlet, below each section."""
    made = assemble.generation(planned(folder, **arguments))
    text = made.files["tree/etc/containers/systemd/kos-store.container"].decode()
    sections = {}
    for block in text.strip().split("\n\n"):
        head, *lines = block.splitlines()
        sections[head.strip("[]")] = lines
    return sections


def test_every_container_is_locked_in(tmp_path):
    lines = quadlet(tmp_path)
    assert {
        "ReadOnly=true",
        "DropCapability=all",
        "NoNewPrivileges=true",
        "Pull=never",
        "Network=pasta:--host-lo-to-ns-lo",
    } <= set(lines["Container"])
    assert f"Image=registry.example/store@{DIGEST}" in lines["Container"]
    assert {"User=kos-store", "Group=kos-store"} <= set(lines["Service"])


def test_the_runtime_comes_along_and_its_user_is_declared(tmp_path):
    plan = planned(tmp_path).plan
    assert [row.name for row in plan.services][:1] == ["podman"]
    assert "kos-store" in plan.users
    assert next(row for row in plan.services if row.name == "store").substrate == "container"


def test_ports_lead_in_on_loopback_and_what_it_needs_leads_out(tmp_path):
    peer = manifest("peer", ports=[{"name": "main", "port": 5432}])
    (tmp_path / "services" / "peer").mkdir(parents=True)
    (tmp_path / "services" / "peer" / "service.yaml").write_text(yaml.safe_dump(peer))
    ports = [{"name": "http", "port": 6333}, {"name": "door", "port": 99, "exposure": "network", "protocol": "udp"}]
    lines = quadlet(tmp_path, container={"reaches": [11434]}, requires=["peer"], ports=ports)["Container"]
    assert "Network=pasta:--host-lo-to-ns-lo,-T,5432,-T,11434" in lines
    assert "PublishPort=127.0.0.1:6333:6333" in lines
    assert "PublishPort=99:99/udp" in lines


def test_a_user_inside_is_the_service_outside(tmp_path):
    lines = quadlet(tmp_path, container={"user": 1000})["Container"]
    assert {"User=1000", "UserNS=keep-id:uid=1000,gid=1000"} <= set(lines)


def test_volumes_belong_to_the_service(tmp_path):
    sections = quadlet(tmp_path, volumes=[{"name": "data", "path": "/data", "holds": "x"}])
    assert "Volume=/var/lib/kos-store/data:/data" in sections["Container"]
    assert "StateDirectory=kos-store kos-store/data" in sections["Service"]


def test_secrets_come_as_credentials(tmp_path):
    (tmp_path / "services" / "store" / "templates").mkdir(parents=True)
    (tmp_path / "services" / "store" / "templates" / "env.j2").write_text("KEY=@kos:secret:store.key@\n")
    sections = quadlet(
        tmp_path,
        container={"environment_secret": "env"},
        secrets=[{"name": "key"}],
        files=[{"template": "env.j2", "sealed": "env", "unit": "kos-store.service"}],
    )
    assert "LoadCredentialEncrypted=env:/etc/credstore.encrypted/kos-store.env" in sections["Service"]
    assert {"Volume=%d:/run/secrets:ro", "EnvironmentFile=%d/env"} <= set(sections["Container"])


def test_limits_of_the_manifest_hold(tmp_path):
    resources = {"memory": {"min": "64M", "max": "256M"}, "cpu": {"max": "50%"}, "tasks_max": 40}
    lines = quadlet(tmp_path, resources=resources)["Service"]
    assert {"MemoryMax=256M", "CPUQuota=50%", "TasksMax=40"} <= set(lines)


@pytest.mark.parametrize("word", ["a b", "100%", "$HOME", 'say "x"', "", "a;b", "back\\slash"])
def test_an_argument_stays_one_argument(tmp_path, word):
    lines = quadlet(tmp_path, container={"command": ["run", word]})["Container"]
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    assert f'Exec=run "{escaped}"' in lines


def test_a_gpu_is_handed_in_where_there_is_one(tmp_path):
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    assert "AddDevice=nvidia.com/gpu=all" in quadlet(tmp_path / "with", affinity=["gpu"], facts=machine())["Container"]
    assert not [line for line in quadlet(tmp_path / "without", affinity=["gpu"])["Container"] if "AddDevice" in line]


def test_an_unresolved_image_is_not_planned_and_the_command_is_named(tmp_path):
    plan = planned(tmp_path, digest="unresolved").plan
    (row,) = plan.unavailable
    assert "kai unit lock store" in row.why


def test_who_insists_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="kai unit lock store"):
        planned(tmp_path, digest="unresolved", profile={"orchestration": {"insist": ["vector_db"]}})


def test_the_profile_may_choose_the_substrate(tmp_path):
    both = {"substrates": {"deb": {"packages": ["store"]}, "container": {}}}
    assert planned(tmp_path, **both).plan.services[-1].substrate == "deb"
    wanted = {"orchestration": {"substrate": {"store": "container"}}}
    chosen = planned(tmp_path, profile=wanted, **both).plan
    assert next(row for row in chosen.services if row.name == "store").substrate == "container"
    assert "store" not in chosen.packages
    with pytest.raises(ConfigurationError, match="cannot run on the substrate venv"):
        planned(tmp_path, profile={"orchestration": {"substrate": {"store": "venv"}}}, **both)


def test_the_site_lock_goes_over_the_projects(tmp_path, monkeypatch):
    site = tmp_path / "site.lock"
    row = {"repository": "registry.example/store", "digests": {"amd64": DIGEST}, "licence": "MIT", "source": "x"}
    site.write_text(yaml.safe_dump({"version": 1, "images": {"store": row}}))
    monkeypatch.setenv("KOS_SITE_LOCK", str(site))
    assert planned(tmp_path, digest="unresolved").plan.services[-1].name in ("store", "nftables", "caddy")
    assert not planned(tmp_path, digest="unresolved").plan.unavailable


def sandbox(folder, name):
    """A service that brings a sandbox."""
    (folder / "services" / name).mkdir(parents=True)
    text = yaml.safe_dump(manifest(name, tier=0, provides=["sandbox"]))
    (folder / "services" / name / "service.yaml").write_text(text)


def test_a_trust_tier_gets_a_stronger_sandbox(tmp_path):
    sandbox(tmp_path, "gvisor")
    tiers = {"orchestration": {"sandbox": {"community": "gvisor"}}}
    made = planned(tmp_path, profile=tiers, trust="community")
    assert "gvisor" in [row.name for row in made.plan.services]
    lines = quadlet(tmp_path, profile=tiers, trust="community")["Container"]
    assert "PodmanArgs=--runtime=/usr/bin/runsc" in lines
    assert not [line for line in quadlet(tmp_path, profile=tiers, trust="core")["Container"] if "runsc" in line]


def test_a_module_runs_as_webassembly(tmp_path):
    sandbox(tmp_path, "wasm")
    assert "PodmanArgs=--runtime=/usr/bin/crun-wasm" in quadlet(tmp_path, container={"sandbox": "wasm"})["Container"]
