# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds for every plan, whatever is asked for and whatever the catalogue says."""

from __future__ import annotations

from pathlib import Path

from catalogues import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.kind.kos.plugins.plugin_utils.catalogue import Catalogue, load_catalogue
from ansible_collections.kind.kos.plugins.plugin_utils.containers import RUNTIME
from ansible_collections.kind.kos.plugins.plugin_utils.hardware import KindOfHardware
from ansible_collections.kind.kos.plugins.plugin_utils.images import Image
from ansible_collections.kind.kos.plugins.plugin_utils.layers import Deployment
from ansible_collections.kind.kos.plugins.plugin_utils.manifest import Service
from ansible_collections.kind.kos.plugins.plugin_utils.profile import Minimum, Profile
from ansible_collections.kind.kos.plugins.plugin_utils.resolver import CORE_CAPABILITIES, resolve
from ansible_collections.kind.kos.plugins.plugin_utils.substrates import obstacle

REAL = load_catalogue(ROOT / "services")
LISTS = ("llm_backends", "databases")
KEYS = ("llm_backend", "vector_db", "graph_db", "cache", "database", "task_queue", "identity", "logging", "tracing")
CORE = [
    Service.model_validate(
        {
            "name": name,
            "summary": "x",
            "tier": 0 if name == RUNTIME else 1,
            "provides": [capability],
            "licence": "MIT",
            "source": "x",
            "substrates": {"deb": {"packages": ["p"]}},
        }
    )
    for capability, name in {**CORE_CAPABILITIES, "container_runtime": RUNTIME}.items()
]


IMAGES = {
    "x": Image.model_validate(
        {
            "repository": "registry.example/x",
            "digests": {"amd64": f"sha256:{64 * '0'}", "arm64": "unresolved"},
            "licence": "MIT",
            "source": "x",
        }
    )
}


def deployment(asked):
    """The deployment of a profile that asks for `asked`."""
    profile = Profile.model_validate({"profile": "p", "environment": "e", "services": asked})
    return Deployment("p", profile, profile.model_dump(exclude_none=True), Minimum())


machines = st.builds(KindOfHardware, st.sampled_from(["amd64", "arm64"]), st.booleans(), st.booleans())


@st.composite
def catalogues(draw):
    """A catalogue of up to ten services with substrates, defaults, fallbacks and requirements of every kind."""
    names = [f"s{index}" for index in range(draw(st.integers(1, 10)))]
    reference = st.builds(dict, service=st.sampled_from(names), why=st.just("it is there"))
    deb = st.builds(dict, deb=st.just({"packages": ["p"]}))
    one = st.builds(dict, deb=st.just({"packages": ["p"], "architectures": ["amd64"]}))
    container = st.just({"container": {"image": "x"}})
    services = []
    for index, name in enumerate(names):
        # Requirements point backwards: a circle of them is a fault, and has its own test.
        earlier = st.lists(st.sampled_from(names[:index]), max_size=2, unique=True) if index else st.just([])
        services.append(
            Service.model_validate(
                {
                    "name": name,
                    "summary": name,
                    "tier": draw(st.integers(0, 3)),
                    "provides": [name],
                    "licence": "MIT",
                    "source": "x",
                    "substrates": draw(st.one_of(deb, one, container, st.just({}))),
                    "needs": draw(st.sampled_from([[], ["gpu"]])),
                    "not_run": draw(st.one_of(st.none(), st.none(), st.just("it has to wait"))),
                    "instead": draw(st.one_of(st.none(), reference)),
                    "fallbacks": draw(st.lists(reference, max_size=2)),
                    "requires": draw(earlier),
                    "variants": draw(
                        st.sampled_from([[], [{"name": f"{name}_cluster", "summary": "x", "why": "it is one of it"}]])
                    ),
                }
            )
        )
    return Catalogue(Path("/nowhere"), {service.name: service for service in (*CORE, *services)}, {}, images=IMAGES)


@st.composite
def requests(draw, names):
    """What a profile asks for: single services and lists of them."""
    name = st.sampled_from(names)
    single = draw(st.dictionaries(st.sampled_from(KEYS), name, max_size=5))
    lists = draw(st.dictionaries(st.sampled_from(LISTS), st.lists(name, min_size=1, max_size=4), max_size=2))
    return {**single, **lists}


def asked_for(catalogue):
    """Every name but those of the core services, which every node has."""
    return sorted(set(catalogue.names) - {service.name for service in CORE})


def pairs(asked):
    return {
        (capability, name)
        for capability, value in asked.items()
        for name in (value if isinstance(value, list) else [value])
    }


def check(plan, asked, catalogue, kind):
    """Everything that must hold of a plan."""
    names = [service.name for service in plan.services]
    assert len(names) == len(set(names)), "no service twice"
    refused = {(row.capability, row.requested): row.why for row in plan.unavailable}
    assert all(refused.values()), "a reason for everything that is not available"
    assert all(service.why for service in plan.services), "a reason for everything that runs"
    serving = {capability for service in plan.services for capability in service.capabilities}
    for capability, name in pairs(asked):
        assert capability in serving or (capability, name) in refused, "nothing asked for is forgotten"
    tiers = [service.tier for service in plan.services]
    assert tiers == sorted(tiers), "tier by tier"
    for service in plan.services:
        assert obstacle(service.manifest, kind, IMAGES) is None, "nothing runs that this machine cannot run"
        for needed in service.manifest.requires:
            assert needed in names, "what a service requires runs too"
            same_tier = catalogue.services[needed].tier == service.tier
            assert not same_tier or names.index(needed) < names.index(service.name), "and starts before it"


@given(st.data(), catalogues(), machines)
@settings(max_examples=100, deadline=None)
def test_plans_of_any_catalogue(data, catalogue, kind):
    asked = data.draw(requests(asked_for(catalogue)))
    plan = resolve(deployment(asked), catalogue, kind)
    check(plan, asked, catalogue, kind)


@given(st.data(), machines)
@settings(max_examples=40, deadline=None)
def test_plans_of_the_catalogue(data, kind):
    # Two services for one port is a fault by itself; what the others answer never is.
    asked = data.draw(
        requests([name for name in REAL.names if REAL.service(name).provides[0] not in CORE_CAPABILITIES])
    )
    check(resolve(deployment(asked), REAL, kind), asked, REAL, kind)


@given(st.data(), catalogues(), machines)
@settings(max_examples=40, deadline=None)
def test_the_same_question_has_the_same_answer(data, catalogue, kind):
    asked = data.draw(requests(asked_for(catalogue)))
    shuffled = dict(reversed(asked.items()))
    first, again = (resolve(deployment(question), catalogue, kind) for question in (asked, dict(asked)))
    assert first.as_dict() == again.as_dict()
    # The order in which a profile lists capabilities moves no service.
    other = resolve(deployment(shuffled), catalogue, kind)
    assert [service.name for service in other.services] == [service.name for service in first.services]
