# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue: its loader, and what every manifest of the real one must say."""

from __future__ import annotations

import itertools
import re
from functools import cache

import pytest
import yaml
from catalogues import ROOT, catalogue, machine, manifest, plan

from ansible_collections.kind.kos.plugins.plugin_utils import assemble, profile
from ansible_collections.kind.kos.plugins.plugin_utils.asks import ANY
from ansible_collections.kind.kos.plugins.plugin_utils.catalogue import load_catalogue
from ansible_collections.kind.kos.plugins.plugin_utils.containers import as_container
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError
from ansible_collections.kind.kos.plugins.plugin_utils.images import BUILT
from ansible_collections.kind.kos.plugins.plugin_utils.layers import known_names
from ansible_collections.kind.kos.plugins.plugin_utils.recipes import recipe_names
from ansible_collections.kind.kos.plugins.plugin_utils.renderer import render
from ansible_collections.kind.kos.plugins.plugin_utils.resolver import DESCRIPTIVE

NAMES = sorted(path.parent.name for path in (ROOT / "services").glob("*/service.yaml"))

# Those that the manifests use, of the list at spdx.org/licenses; a new one is looked up there and added.
SPDX = {
    "AGPL-3.0-only", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BUSL-1.1", "EPL-2.0", "Elastic-2.0",
    "GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later", "ISC", "LGPL-2.0-or-later",
    "LGPL-2.1-or-later", "LGPL-3.0-linking-exception", "LGPL-3.0-only", "LLVM-exception", "MIT", "MPL-2.0",
    "OLDAP-2.8", "PostgreSQL", "SSPL-1.0", "blessing",
}  # fmt: skip


KINDS = [
    machine(cpu=64, memory_mb=262144, disk_gb=4000, architecture=architecture, gpus=gpus)
    for architecture, gpus in itertools.product(("amd64", "arm64"), ([], ["10de:2330"]))
]


@cache
def real():
    return load_catalogue(ROOT / "services")


# --- the loader ------------------------------------------------------------------------------------------------------


def variants(*names):
    return [{"name": name, "summary": name, "why": f"{name} is the same"} for name in names]


def test_a_variant_leads_to_its_service_and_says_so(tmp_path):
    planned = plan(
        tmp_path, {"services": {"cache": "bus_cluster"}}, manifest("bus", variants=variants("bus_cluster"))
    ).plan
    row = next(service for service in planned.services if service.name == "bus")
    assert row.capabilities == ("cache",)
    assert "bus_cluster: bus_cluster is the same" in row.why


def test_a_default_takes_the_place_of_one_that_could_run(tmp_path):
    asked = manifest("redis", instead={"service": "valkey", "why": "it is free software"})
    planned = plan(tmp_path, {"services": {"cache": "redis"}}, asked, manifest("valkey")).plan
    assert "redis" not in [service.name for service in planned.services]
    row = next(service for service in planned.services if service.name == "valkey")
    assert "valkey instead of redis: it is free software" in row.why


def test_where_the_default_cannot_run_the_named_one_does(tmp_path):
    asked = manifest("one", instead={"service": "other", "why": "it is better"})
    planned = plan(tmp_path, {"services": {"cache": "one"}}, asked, manifest("other", not_run="it has to wait")).plan
    row = next(service for service in planned.services if service.name == "one")
    assert "other: it has to wait" in row.why


@pytest.mark.parametrize(("gpus", "runs"), [([], "small"), (["10de:2330"], "big")])
def test_hardware_that_a_service_needs_decides(tmp_path, gpus, runs):
    big = manifest("big", needs=["gpu"], fallbacks=[{"service": "small", "why": "a processor is enough"}])
    planned = plan(
        tmp_path, {"services": {"llm_backend": "big"}}, big, manifest("small"), facts=machine(gpus=gpus)
    ).plan
    assert runs in [service.name for service in planned.services]


@pytest.mark.parametrize(
    ("services", "says"),
    [
        ([manifest("a", variants=variants("b")), manifest("b")], "another service is already called 'b'"),
        ([manifest("a", variants=variants("c")), manifest("b", variants=variants("c"))], "already called 'c'"),
        ([manifest("a", instead={"service": "x", "why": "y"})], "no service is called 'x'"),
        ([manifest("a", variants=variants("c")), manifest("b", requires=["c"])], "no service is called 'c'"),
    ],
)
def test_names_must_be_clear(tmp_path, services, says):
    with pytest.raises(ConfigurationError) as caught:
        load_catalogue(catalogue(tmp_path, *services))
    assert says in str(caught.value)
    assert "service.yaml" in str(caught.value)


def test_an_unknown_name_lists_what_could_be_meant(tmp_path):
    with pytest.raises(ConfigurationError, match=r"no service 'zzzzz' \(known: db\)"):
        plan(tmp_path, {"services": {"database": "zzzzz"}}, manifest("db", provides=["database"]))


# --- every manifest --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_question_has_one_answer(name):
    service = real().services[name]
    assert (service.probe is None) == (service.probe_reason is not None), "probe or probe_reason"
    assert (service.metrics is None) == (service.metrics_reason is not None), "metrics or metrics_reason"
    kept = [volume for volume in service.volumes if volume.backup != "none"]
    if service.backup or kept:
        assert service.backup_reason is None, "what is backed up needs no reason why not"
    else:
        assert service.backup_reason, "data to back up, or backup_reason"


@pytest.mark.parametrize("name", NAMES)
def test_facts_have_a_source_and_a_licence(name):
    service = real().services[name]
    for source in [service.source, *service.facts.values(), *(entry.source for entry in service.variants)]:
        assert source is None or re.match(r"https?://[^ ]+$", source)
    for licence in [service.licence, *(entry.licence for entry in service.variants)]:
        words = set(re.findall(r"[^\s()]+", licence or "MIT")) - {"AND", "OR", "WITH"}
        unknown = {word for word in words - SPDX if not word.startswith("LicenseRef-")}
        assert not unknown or words <= {"proprietary", "NOASSERTION"}


@pytest.mark.parametrize("name", NAMES)
def test_what_would_run_brings_how_to_run_it(name):
    """Else a plan would list a package that starts nothing as a service."""
    service = real().services[name]
    if service.substrates.deb and not service.not_run:
        # Hardening's files are made of its rules.
        brought = {"sandbox", "hardening"} & set(service.provides)
        assert service.units or service.hooks.post_init or service.files or brought
    if service.units:
        assert not service.not_run
    if not any((service.substrates.deb, service.substrates.container, service.substrates.venv)):
        assert service.not_run or service.instead


@pytest.mark.parametrize("name", NAMES)
def test_what_takes_memory_or_disk_says_how_much(name):
    """A plan adds the least up, and preflight compares it with the machine."""
    service = real().services[name]
    if service.ports or service.units:
        assert service.resources.memory.min
    if service.volumes:
        assert service.resources.disk.min


@pytest.mark.parametrize("name", NAMES)
def test_images_have_a_registry_and_a_tag(name):
    service = real().services[name]
    if service.image:
        image = real().images[service.image]
        assert "." in image.repository.split("/")[0] or image.repository.startswith(f"{BUILT}/")
        assert image.tag != "latest"


def could_be_contained():
    """Those for which a plan would choose a container, were their images resolved."""
    return [name for name in NAMES if real().services[name].image and not real().services[name].not_run]


@pytest.mark.parametrize("name", could_be_contained())
def test_a_container_that_could_be_chosen_says_how_it_is_started(name):
    """Else it is planned once its image is locked, and fails at the gate: no image's defaults suit a read-only root."""
    service = real().services[name]
    container = service.substrates.container
    assert container.command or container.environment, "a command, an environment, or not_run"
    sealed = {file.sealed for file in as_container(service).files if file.sealed}
    assert container.environment_secret is None or container.environment_secret in sealed
    ports = {port.port for port in service.ports if port.name not in container.leaves_out}
    asked = [service.metrics.port] if service.metrics and "metrics" not in container.leaves_out else []
    asked += [int(port) for port in re.findall(r":([0-9]+)/", service.probe.http.url)] if service.probe.http else []
    assert set(asked) <= ports, "a port that is asked for must lead into the container"


@pytest.mark.parametrize("name", sorted(known_names(ROOT / "configs")))
def test_a_profile_whose_images_are_resolved_has_no_conflict_and_can_be_rendered(name, tmp_path, monkeypatch):
    """What `kai unit lock` makes of its plan: two services on one port would only be found on the site's controller."""
    rows = yaml.safe_load((ROOT / "services" / "images.lock").read_text())["images"]
    chosen = {real().services[service].image for service in could_be_contained()}
    resolved = {image: {**rows[image], "digests": {"amd64": f"sha256:{'a' * 64}"}} for image in chosen}
    (tmp_path / "images.lock").write_text(yaml.safe_dump({"version": 1, "images": resolved}))
    monkeypatch.setenv("KOS_SITE_LOCK", str(tmp_path / "images.lock"))
    planned = assemble.plan(assemble.Request(name), KINDS[1]).plan
    rendered = render(planned, {})
    contained = [row.name for row in planned.services if row.substrate == "container"]
    quadlets = [row["path"] for row in rendered.manifest["files"] if row["path"].endswith(".container")]
    assert len(quadlets) == len(contained)


@pytest.mark.parametrize("name", could_be_contained())
def test_a_container_gets_every_secret_that_is_made_for_it(name):
    service = real().services[name]
    # Where its package can run too, a unit that the container leaves out may be the one that has the secret.
    files = service.files if service.substrates.deb else as_container(service).files
    folders = [real().folder / (file.of or name) / "templates" / file.template for file in files]
    texts = "".join(path.read_text() for path in folders)
    assert [secret.name for secret in service.secrets if f"@kos:secret:{name}.{secret.name}@" not in texts] == []


def test_every_image_of_the_lock_is_somebodys():
    """A service's, or one that kOS builds for others to build on."""
    used = {service.image for service in real().services.values()} - {None}
    assert used <= set(real().images)
    assert set(real().images) - used <= set(recipe_names(real().folder))


@pytest.mark.parametrize("name", NAMES)
def test_sentences_continue_a_line(name):
    """They stand after a name and a colon, and others may follow."""
    service = real().services[name]
    sentences = [service.not_run, *(entry.why for entry in (*service.others, *service.variants))]
    assert [text for text in sentences if text and text.endswith(".")] == []


def chain(name):
    """Everything that may be tried where `name` is asked for, each with the way to it."""
    found = real()
    steps = [(name, (name,))]
    while steps:
        at, way = steps.pop()
        onward = (
            [found.variants[at][0].name] if at in found.variants else [o.service for o in found.services[at].others]
        )
        for step in onward:
            assert step not in way, f"{' -> '.join(way)} -> {step}"
            yield step
            steps.append((step, (*way, step)))


@pytest.mark.parametrize("name", NAMES)
def test_no_way_leads_back(name):
    list(chain(name))
    for entry in real().services[name].variants:
        list(chain(entry.name))


# --- the whole -------------------------------------------------------------------------------------------------------


def leaf_keys(model, path=()):
    """Every settings key with the plain values that its schema lists."""
    schema = model.model_json_schema()

    def walk(node, path):
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rpartition("/")[2]]
        for option in node.get("anyOf", []):
            yield from walk(option, path)
        if "properties" in node:
            for key, inner in node["properties"].items():
                yield from walk(inner, (*path, key))
        elif node.get("type") == "array":
            yield from walk(node["items"], path)
        elif node.get("type") != "null" and "anyOf" not in node:
            yield ".".join(path), {str(value) for value in (*node.get("enum", []), *filter(None, [node.get("const")]))}

    return walk(schema, path)


def test_every_ask_is_a_setting_that_exists():
    keys = {}
    for key, values in leaf_keys(profile.Profile):
        keys.setdefault(key, set()).update(values)
    for key, replies in real().asks.asks.items():
        assert key in keys, key
        wrong = {value for value in replies if value not in (ANY, "true", "false")} - keys[key]
        assert not (keys[key] and wrong), (key, wrong)


@pytest.mark.parametrize("name", sorted(known_names(ROOT / "configs")))
@pytest.mark.parametrize("kind", KINDS, ids=["amd64", "amd64-gpu", "arm64", "arm64-gpu"])
def test_every_profile_and_mode_plans_and_leaves_nothing_unanswered(name, kind):
    planned = assemble.plan(assemble.Request(name), kind).plan
    wanted = {
        (capability, service)
        for section in ("services", "agents")
        for capability, value in planned.deployment.settings.get(section, {}).items()
        if capability not in DESCRIPTIVE
        for service in (value if isinstance(value, list) else [value])
    }
    served = {capability for row in planned.services for capability in row.capabilities}
    refused = {(row.capability, row.requested) for row in planned.unavailable}
    assert {row for row in wanted if row[0] not in served} <= refused
    assert all(row.why for row in planned.services)
    assert all(row.why for row in planned.unavailable)
