# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Workloads as Kubernetes objects, in a namespace of their own where nothing talks to anything by default. Pure.

Source: the API reference of Kubernetes 1.30 and later, and its Pod Security Standards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from .manifest import Probe
from .resolver import megabytes
from .workloads import NOBODY, Workload, platform_name, yaml_text

Object = dict[str, Any]
MODELS = "kos-models"
_HEAD = """\
# Made by kai render: kubectl apply -f this file, once its Secrets are there (kai render names them) and its images are
# in a registry that the cluster reaches. The policies need a network plugin that enforces NetworkPolicy.
"""
# Where a container that may leave the node must not go all the same: the metadata service of a cloud.
_LINK_LOCAL = "169.254.0.0/16"
_DISK = "1Gi"


def kubernetes(namespace: str, workloads: Iterable[Workload]) -> dict[str, str]:
    """``kubernetes.yaml``, and the templates of the secrets that it refers to."""
    found = list(workloads)
    objects = list(kubernetes_objects(namespace, found))
    dumped = "".join(f"---\n{yaml_text(one)}" for one in objects)
    files = {"kubernetes.yaml": _HEAD + dumped}
    for workload in found:
        files |= {f"secrets/{_secret(workload, key)}.template": text for key, text in workload.secrets.items()}
    return files


def secret_commands(namespace: str, workloads: Iterable[Workload]) -> list[str]:
    """The commands that make the Secrets from files beside the templates, once their values are in."""
    commands = []
    for workload in workloads:
        for key in workload.secrets:
            name = _secret(workload, key)
            plain = key != workload.container.environment_secret
            source = f"--from-file={key}=secrets/{name}" if plain else f"--from-env-file=secrets/{name}"
            commands.append(f"kubectl -n {namespace} create secret generic {name} {source}")
    return commands


def kubernetes_objects(namespace: str, workloads: Iterable[Workload]) -> Iterator[Object]:
    """Every object, in the order in which they are made."""
    found = list(workloads)
    level = "baseline" if any(workload.needs_root for workload in found) else "restricted"
    yield {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": namespace, "labels": {"pod-security.kubernetes.io/enforce": level}},
    }
    yield _object("networking.k8s.io/v1", "NetworkPolicy", "default-deny", namespace, {}) | {
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    }
    if any(workload.container.models for workload in found):
        yield _claim(MODELS, namespace, {}, "ReadOnlyMany", _DISK)
    for workload in found:
        labels = {"app.kubernetes.io/name": workload.name, "app.kubernetes.io/part-of": "kos"}
        if workload.files:
            yield _object("v1", "ConfigMap", workload.name, namespace, labels) | {
                "data": {_key(path): text for path, text in workload.files.items()}
            }
        disk = workload.service.resources.disk.min
        for volume in workload.data:
            size = f"{megabytes(disk)}Mi" if megabytes(disk) else _DISK
            yield _claim(f"{workload.name}-{volume}", namespace, labels, "ReadWriteOnce", size)
        if workload.ports:
            yield _door(workload, namespace, labels)
        yield _policy(workload, found, namespace, labels)
        yield _controller(workload, namespace, labels)


def _object(version: str, kind: str, name: str, namespace: str, labels: dict[str, str]) -> Object:
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": version, "kind": kind, "metadata": {key: value for key, value in metadata.items() if value}}


def _claim(name: str, namespace: str, labels: dict[str, str], mode: str, size: str) -> Object:
    spec = {"accessModes": [mode], "resources": {"requests": {"storage": size}}}
    return _object("v1", "PersistentVolumeClaim", name, namespace, labels) | {"spec": spec}


def _door(workload: Workload, namespace: str, labels: dict[str, str]) -> Object:
    ports = [
        {"name": _port_name(row.name), "port": row.port, "protocol": row.protocol.upper(), "targetPort": row.port}
        for row in workload.ports
    ]
    return _object("v1", "Service", workload.name, namespace, labels) | {
        "spec": {"type": "ClusterIP", "selector": _selector(workload.name), "ports": ports}
    }


def _policy(workload: Workload, everyone: list[Workload], namespace: str, labels: dict[str, str]) -> Object:
    """Who may connect to it, and to whom it may: what the manifests say, and the cluster's DNS."""
    ingress = [
        {
            "from": [{"podSelector": {"matchLabels": _selector(other.name)}}],
            "ports": [{"protocol": "TCP", "port": port} for port in other.peers[workload.service.name]],
        }
        for other in everyone
        if workload.service.name in other.peers
    ]
    public = [
        {"protocol": row.protocol.upper(), "port": row.port} for row in workload.ports if row.exposure == "network"
    ]
    if public:
        ingress.append({"ports": public})
    egress: list[Object] = [
        {
            "to": [{"podSelector": {"matchLabels": _selector(platform_name(peer))}}],
            "ports": [{"protocol": "TCP", "port": port} for port in ports],
        }
        for peer, ports in workload.peers.items()
    ]
    if workload.container.internet:
        egress.append({"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [_LINK_LOCAL]}}]})
    if egress:
        dns = {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}
        ports = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
        egress.append({"to": [{"namespaceSelector": dns}], "ports": ports})
    return _object("networking.k8s.io/v1", "NetworkPolicy", workload.name, namespace, labels) | {
        "spec": {
            "podSelector": {"matchLabels": _selector(workload.name)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        }
    }


def _controller(workload: Workload, namespace: str, labels: dict[str, str]) -> Object:
    """A Deployment, or a StatefulSet where it has data; one replica: no manifest says that two may share data."""
    stateful = bool(workload.data)
    annotations = {"kos/configuration": _fingerprint(workload)} if workload.files else {}
    spec: Object = {
        "replicas": 1,
        "selector": {"matchLabels": _selector(workload.name)},
        "template": {
            "metadata": {"labels": labels, **({"annotations": annotations} if annotations else {})},
            "spec": _pod(workload),
        },
    }
    if stateful:
        spec = {"serviceName": workload.name, **spec}
    kind = "StatefulSet" if stateful else "Deployment"
    return _object("apps/v1", kind, workload.name, namespace, labels) | {"spec": spec}


def _pod(workload: Workload) -> Object:
    user = workload.container.user or NOBODY
    as_root = workload.needs_root
    context: Object = {"seccompProfile": {"type": "RuntimeDefault"}}
    if as_root:
        context |= {"runAsNonRoot": False}
    else:
        context |= {"runAsNonRoot": True, "runAsUser": user, "runAsGroup": user, "fsGroup": user}
    volumes, mounts = _volumes(workload)
    return _drop_empty(
        {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "hostname": workload.name,
            "securityContext": context,
            "containers": [_container(workload, mounts)],
            "volumes": volumes,
        }
    )


def _container(workload: Workload, mounts: list[Object]) -> Object:
    container = workload.container
    kept = [capability.name.removeprefix("CAP_") for capability in container.linux_capabilities]
    from_secret = _secret(workload, container.environment_secret) if container.environment_secret else None
    return _drop_empty(
        {
            "name": workload.name,
            "image": workload.image,
            "imagePullPolicy": "IfNotPresent",
            "command": [container.entrypoint] if container.entrypoint else None,
            "args": [_literal(word) for word in workload.command()],
            "env": [{"name": key, "value": _literal(value)} for key, value in workload.environment().items()],
            "envFrom": [{"secretRef": {"name": from_secret}}] if from_secret else None,
            "ports": [
                {"name": _port_name(row.name), "containerPort": row.port, "protocol": row.protocol.upper()}
                for row in workload.ports
            ],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "privileged": False,
                "readOnlyRootFilesystem": container.writable_root is None,
                "capabilities": _drop_empty({"drop": ["ALL"], "add": kept}),
            },
            "resources": _resources(workload),
            **_probes(workload),
            "volumeMounts": mounts,
        }
    )


def _resources(workload: Workload) -> Object:
    asked, limits = workload.service.resources, {}
    requests: Object = {}
    if megabytes(asked.memory.min):
        requests["memory"] = f"{megabytes(asked.memory.min)}Mi"
    if asked.cpu.min:
        requests["cpu"] = f"{round(float(asked.cpu.min) * 1000)}m"
    if workload.memory_mb:
        limits["memory"] = f"{workload.memory_mb}Mi"
    if workload.cpus:
        limits["cpu"] = f"{round(workload.cpus * 1000)}m"
    if workload.gpu:
        limits["nvidia.com/gpu"] = "1"
    return _drop_empty({"requests": requests, "limits": limits})


def _probes(workload: Workload) -> Object:
    """Ready and alive by the manifest's own probe; the first start may take as long as its deadline."""
    probe = workload.service.probe
    asked = _asked(workload, probe)
    if asked is None:
        return {}
    deadline = probe.deadline if probe else 30
    return {
        "startupProbe": {**asked, "periodSeconds": 2, "failureThreshold": max(1, deadline // 2)},
        "readinessProbe": {**asked, "periodSeconds": 10},
        "livenessProbe": {**asked, "periodSeconds": 30, "failureThreshold": 3},
    }


def _asked(workload: Workload, probe: Probe | None) -> Object | None:
    if workload.container.health:
        return {"exec": {"command": workload.container.health}}
    if probe and probe.http:
        scheme, _mark, rest = probe.http.url.partition("://")
        place, _slash, path = rest.partition("/")
        port = place.partition(":")[2] or ("443" if scheme == "https" else "80")
        return {"httpGet": {"scheme": scheme.upper(), "port": int(port), "path": f"/{path}"}}
    ports = [row.port for row in workload.ports if row.protocol == "tcp"]
    wanted = probe.tcp.port if probe and probe.tcp else ports[0] if probe and ports else None
    # A command of the manifest's probe is one of the node, which no image need have.
    return {"tcpSocket": {"port": wanted}} if wanted else None


def _volumes(workload: Workload) -> tuple[list[Object], list[Object]]:
    """The Pod's volumes, and where its container has them."""
    pairs: list[tuple[Object, Object]] = []
    for name, path in workload.data.items():
        claim = {"persistentVolumeClaim": {"claimName": f"{workload.name}-{name}"}}
        pairs.append(({"name": name, **claim}, {"name": name, "mountPath": path}))
    if workload.files:
        items = [{"key": _key(path), "path": path.split("/", 4)[4]} for path in workload.files]
        folder = f"/etc/kos/{workload.service.name}"
        source = {"name": "configuration", "configMap": {"name": workload.name, "items": items}}
        pairs.append((source, {"name": "configuration", "mountPath": folder, "readOnly": True}))
    if workload.mounted_secrets:
        sources = [{"secret": {"name": _secret(workload, key)}} for key in workload.mounted_secrets]
        source = {"name": "secrets", "projected": {"defaultMode": 0o440, "sources": sources}}
        pairs.append((source, {"name": "secrets", "mountPath": workload.credentials, "readOnly": True}))
    if workload.container.models:
        source = {"name": "models", "persistentVolumeClaim": {"claimName": MODELS, "readOnly": True}}
        pairs.append((source, {"name": "models", "mountPath": "/models", "readOnly": True}))
    for index, folder in enumerate(workload.container.tmpfs):
        name = f"scratch-{index}"
        source = {"name": name, "emptyDir": {"medium": "Memory"}}
        pairs.append((source, {"name": name, "mountPath": folder}))
    mounts = [mount for _source, mount in pairs]
    if workload.mounted_secrets:
        mounts.append({"name": "secrets", "mountPath": "/run/secrets", "readOnly": True})
    return [source for source, _mount in pairs], mounts


def _selector(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": name}


def _secret(workload: Workload, name: str) -> str:
    return f"{workload.name}.{name.replace('_', '-')}"


def _key(path: str) -> str:
    """A file's path below its folder as a key of a ConfigMap, which has no slashes."""
    return path.split("/", 4)[4].replace("/", ".")


def _port_name(name: str) -> str:
    return name.replace("_", "-")[:15]


def _fingerprint(workload: Workload) -> str:
    """Changes with the configuration, so that a Pod is made anew for it."""
    content = "".join(f"{path}\0{text}\0" for path, text in sorted(workload.files.items()))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _literal(word: str) -> str:
    """`word` with nothing in it for Kubernetes to replace."""
    return word.replace("$(", "$$(")


def _drop_empty(data: Object) -> Object:
    return {key: value for key, value in data.items() if value not in (None, [], {})}
