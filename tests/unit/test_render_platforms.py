# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A plan for Compose and for Kubernetes: locked in as on a node, and what cannot run there is named."""

from __future__ import annotations

import kubernetes_validate
import pytest
import yaml
from catalogues import catalogue, configs, machine, manifest
from typer.testing import CliRunner

from ansible_collections.kind.kos.cli.main import app
from ansible_collections.kind.kos.plugins.plugin_utils import assemble
from ansible_collections.kind.kos.plugins.plugin_utils.compose import compose
from ansible_collections.kind.kos.plugins.plugin_utils.kubernetes import kubernetes, secret_commands
from ansible_collections.kind.kos.plugins.plugin_utils.workloads import workloads

DIGEST = "sha256:" + 64 * "a"
TCP = {"tcp": {"port": 6333}}


def lock(folder, images):
    rows = {
        name: {"repository": repository, "digests": {"amd64": digest}, "licence": "MIT", "source": "x"}
        for name, (repository, digest) in images.items()
    }
    (folder / "services").mkdir(exist_ok=True)
    (folder / "services" / "images.lock").write_text(yaml.safe_dump({"version": 1, "images": rows}))


def rendered(folder, *services, templates=None, images=None, registry="", facts=None):
    """What becomes of `services`, all of which the profile asks for."""
    names = [service["name"] for service in services]
    known = {name: (f"registry.example/{name.replace('_', '-')}", DIGEST) for name in names}
    lock(folder, known | (images or {}))
    runtime = manifest("podman", tier=0, provides=["container_runtime"])
    made = catalogue(folder, runtime, *services, templates=templates)
    tree = configs(folder, {"services": {"monitoring": names}})
    found = facts or machine(gpus=[], memory_mb=8192)
    planned = assemble.plan(assemble.Request("test", configs=tree, services=made), found)
    return workloads(planned.plan, assemble.generation(planned).files, found, registry)


def container(name, **changes):
    told = {"substrates": {"container": changes.pop("container", {})}, **changes}
    return manifest(name, **told)


def one(found):
    """The compose service and the Kubernetes objects, by kind, of the only workload."""
    document = yaml.safe_load(compose("kos-test", found)["compose.yaml"])
    objects = list(yaml.safe_load_all(kubernetes("kos-test", found)["kubernetes.yaml"]))
    for row in objects:
        kubernetes_validate.validate(row, kubernetes_validate.latest_version(), strict=True)
    return document, objects


def of_kind(objects, kind, name=None):
    rows = [row for row in objects if row["kind"] == kind and name in (None, row["metadata"]["name"])]
    assert len(rows) == 1, (kind, name)
    return rows[0]


def test_every_workload_is_locked_in(tmp_path):
    ports = [{"name": "http", "port": 6333}, {"name": "gossip", "port": 7000, "protocol": "udp", "exposure": "network"}]
    limits = {"memory": {"min": "64M", "max": "25%"}, "cpu": {"min": 0.25, "max": "150%"}, "tasks_max": 64}
    found, _left = rendered(tmp_path, container("store", ports=ports, resources=limits, probe=TCP))
    document, objects = one(found)
    service = document["services"]["store"]
    assert service["image"] == f"registry.example/store@{DIGEST}"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == "65532:65532"
    assert (service["mem_limit"], service["cpus"], service["pids_limit"]) == ("2048m", 1.5, 64)
    assert service["ports"] == ["127.0.0.1:6333:6333/tcp", "127.0.0.1:7000:7000/udp"]
    pod = of_kind(objects, "Deployment")["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    context = pod["securityContext"]
    assert context["runAsNonRoot"] and context["runAsUser"] == 65532
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    inside = pod["containers"][0]
    assert inside["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert inside["securityContext"]["readOnlyRootFilesystem"] is True
    assert inside["securityContext"]["allowPrivilegeEscalation"] is False
    assert inside["resources"] == {
        "requests": {"memory": "64Mi", "cpu": "250m"},
        "limits": {"memory": "2048Mi", "cpu": "1500m"},
    }
    assert inside["livenessProbe"]["tcpSocket"] == {"port": 6333}


def test_a_namespace_is_closed_but_for_what_manifests_name(tmp_path):
    store = container("store", ports=[{"name": "main", "port": 5432}])
    asker = container("asker", requires=["store"], container={"command": ["--db", "@kos:peer:store@:5432"]})
    stranger = container("stranger", ports=[{"name": "main", "port": 81}])
    found, left = rendered(tmp_path, store, asker, stranger)
    assert {row.service for row in left} == {"status", "nftables", "caddy", "podman"}
    document, objects = one(found)
    assert document["services"]["asker"]["command"] == ["--db", "store:5432"]
    assert document["services"]["asker"]["networks"] == ["to-store"]
    assert document["networks"]["to-store"] == {"internal": True}
    assert set(document["services"]["stranger"]["networks"]).isdisjoint(document["services"]["store"]["networks"])
    deny = of_kind(objects, "NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    asks = of_kind(objects, "NetworkPolicy", "asker")["spec"]["egress"]
    assert asks[0]["ports"] == [{"protocol": "TCP", "port": 5432}]
    assert asks[0]["to"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "store"}}}]
    lets_in = of_kind(objects, "NetworkPolicy", "store")["spec"]["ingress"]
    assert [row["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"] for row in lets_in] == ["asker"]
    assert of_kind(objects, "NetworkPolicy", "stranger")["spec"]["egress"] == []


def test_who_may_leave_never_reaches_the_metadata_service(tmp_path):
    found, _left = rendered(tmp_path, container("store", container={"internet": "it fetches feeds"}))
    _document, objects = one(found)
    block = of_kind(objects, "NetworkPolicy", "store")["spec"]["egress"][0]["to"][0]["ipBlock"]
    assert block == {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}


def test_data_is_kept_and_belongs_to_whoever_runs(tmp_path):
    volumes = [{"name": "data", "path": "/data", "holds": "rows"}]
    found, _left = rendered(tmp_path, container("store", volumes=volumes, resources={"disk": {"min": "2G"}}))
    document, objects = one(found)
    assert document["services"]["store"]["volumes"] == ["store-data:/data"]
    assert document["volumes"] == {"store-data": {}}
    assert of_kind(objects, "PersistentVolumeClaim")["spec"]["resources"]["requests"] == {"storage": "2048Mi"}
    pod = of_kind(objects, "StatefulSet")["spec"]["template"]["spec"]
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"] == 65532


SEALED = {
    "secrets": [{"name": "password"}],
    "files": [
        {"template": "store.conf.j2", "path": "/etc/kos/store/store.conf"},
        {"template": "acl.j2", "sealed": "acl", "unit": "kos-store.service"},
    ],
}


def test_a_secret_is_referred_to_and_never_written(tmp_path):
    templates = {
        "store/templates/store.conf.j2": "listen @kos:listen@\nmemory @kos:memory:50%:32:1000@\n",
        "store/templates/acl.j2": "user kos @kos:secret:store.password@\n",
    }
    found, _left = rendered(tmp_path, container("store", **SEALED), templates=templates)
    document, objects = one(found)
    assert document["secrets"] == {"store.acl": {"file": "./secrets/store.acl"}}
    targets = [row["target"] for row in document["services"]["store"]["secrets"]]
    assert targets == ["/run/secrets/acl", "/run/credentials/kos-store.service/acl"]
    files = compose("kos-test", found)
    assert files["config/store/store.conf"] == "listen 0.0.0.0\nmemory 1000\n"
    assert files["secrets/store.acl.template"] == "user kos @kos:secret:store.password@\n"
    assert not [row for row in objects if row["kind"] == "Secret"]
    mounts = of_kind(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    places = {row["mountPath"] for row in mounts}
    assert places == {"/etc/kos/store", "/run/secrets", "/run/credentials/kos-store.service"}
    assert secret_commands("kos-test", found) == [
        "kubectl -n kos-test create secret generic store.acl --from-file=acl=secrets/store.acl"
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("name @kos:hostname@", "what only a node knows (@kos:hostname@)"),
        ("bind 127.0.0.1", "says 127.0.0.1, where only a node's services meet"),
        ("url http://localhost/", "says //localhost, where only a node's services meet"),
        ("host localhost:5432", "says localhost:5, where only a node's services meet"),
    ],
)
def test_what_only_works_on_a_node_is_left_out_with_the_reason(tmp_path, text, why):
    files = [{"template": "store.conf.j2", "path": "/etc/kos/store/store.conf"}]
    found, left = rendered(tmp_path, container("store", files=files), templates={"store/templates/store.conf.j2": text})
    assert not found
    assert why in next(row.why for row in left if row.service == "store")


def test_an_origin_of_browsers_is_no_address(tmp_path):
    found, _left = rendered(tmp_path, container("store", container={"command": ["--cors-origins", "localhost"]}))
    assert [workload.name for workload in found] == ["store"]


def test_what_needs_something_left_out_is_left_out_too(tmp_path):
    base = manifest("base")
    asker = container("asker", requires=["base"])
    second = container("second", requires=["asker"])
    found, left = rendered(tmp_path, base, asker, second, images={})
    assert not found
    assert {row.service: row.why for row in left}["second"].startswith("it needs asker (it needs base (it is part of")


def test_an_image_built_here_is_named_by_the_registry_it_was_pushed_to(tmp_path):
    built = {"store": ("localhost/kos/store", DIGEST)}
    found, _left = rendered(tmp_path, container("store"), images=built, registry="registry.example:5000/kos/")
    assert found[0].image == f"registry.example:5000/kos/store@{DIGEST}"
    found, _left = rendered(tmp_path, container("store"), images=built)
    document, _objects = one(found)
    assert document["services"]["store"]["pull_policy"] == "never"


def test_a_linux_capability_keeps_its_reason_to_be_root(tmp_path):
    kept = [{"name": "CAP_NET_BIND_SERVICE", "reason": "port 80"}]
    found, _left = rendered(tmp_path, container("store", container={"linux_capabilities": kept}))
    document, objects = one(found)
    assert document["services"]["store"]["cap_add"] == ["NET_BIND_SERVICE"]
    namespace = of_kind(objects, "Namespace")["metadata"]["labels"]
    assert namespace["pod-security.kubernetes.io/enforce"] == "baseline"
    pod = of_kind(objects, "Deployment")["spec"]["template"]["spec"]
    assert pod["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}


def test_a_gpu_is_asked_for_where_the_machine_has_one(tmp_path):
    found, _left = rendered(tmp_path, container("store", affinity=["gpu"]), facts=machine())
    document, objects = one(found)
    assert "deploy" in document["services"]["store"]
    pod = of_kind(objects, "Deployment")["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {"nvidia.com/gpu": "1"}


def test_a_profile_of_which_nothing_can_run_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("KOS_SITE_LOCK", str(tmp_path / "none"))
    done = CliRunner().invoke(app, ["render", "--profile", "personal_node", "--substrate", "compose"])
    assert done.exit_code == 4
    assert "caddy: it is part of a node: its manifest names no container image" in done.output
    assert "nothing of personal_node can run there" in done.output


def test_what_a_node_gets_can_be_looked_at():
    done = CliRunner().invoke(app, ["render", "--profile", "personal_node", "--substrate", "systemd"])
    assert done.exit_code == 0
    assert "ExecStart=/usr/bin/valkey-server /etc/kos/valkey/valkey.conf" in done.output
