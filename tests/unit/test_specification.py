# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The specification's profiles, templates and modes are all here, and all of them plan."""

from __future__ import annotations

import json

import pytest
import yaml
from catalogues import ROOT, machine
from specification import MODES, OPTIONS, PROFILES, TEMPLATES

from ansible_collections.kind.kos.plugins.plugin_utils import assemble
from ansible_collections.kind.kos.plugins.plugin_utils.documents import read_document
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError
from ansible_collections.kind.kos.plugins.plugin_utils.layers import load_deployment
from ansible_collections.kind.kos.plugins.plugin_utils.models import parse
from ansible_collections.kind.kos.plugins.plugin_utils.profile import Mode

CONFIGS = ROOT / "configs"
LAYERS = CONFIGS / "overrides" / "templates"


def loaded(name, site=None, folder=None):
    path = None
    if site is not None:
        path = folder / "site.yaml"
        path.write_text(yaml.safe_dump(site))
    return load_deployment(CONFIGS, name, site=path)


def planned(name, **layers):
    return assemble.plan(assemble.Request(name, **layers), machine()).plan


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_stored_key_for_key_as_printed(name):
    suffix = "json" if name == "browser_extension" else "yaml"
    document = read_document(CONFIGS / "profiles" / f"{name}.{suffix}")
    assert document.data == PROFILES[name]
    assert json.dumps(document.data) == json.dumps(PROFILES[name])


def test_there_are_the_seven_profiles_and_the_five_modes():
    assert {path.stem for path in (CONFIGS / "profiles").iterdir()} == set(PROFILES)
    assert {path.stem for path in (CONFIGS / "modes").iterdir()} == set(MODES)


@pytest.mark.parametrize("name", [*PROFILES, *MODES])
def test_everything_plans_and_every_key_is_answered_for(name):
    plan = planned(name)
    assert plan.services
    said = set(plan.not_acted_on)
    assert all(row.why for row in plan.unavailable)
    assert not any(key.startswith(("services.message_bus", "services.vector_db")) for key in said)


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_is_the_one_that_the_specification_prints(template):
    assert read_document(LAYERS / f"{template}.yaml").data == TEMPLATES[template]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("name", [*PROFILES, *MODES])
def test_a_template_goes_over_any_profile(name, template):
    plan = planned(name, site=LAYERS / f"{template}.yaml")
    settings = plan.deployment.settings
    if template == "security":
        assert settings["security"]["authentication"]["methods"] == ["jwt", "oauth2", "biometric"]
        assert settings["security"]["compliance"]["frameworks"] == ["gdpr", "ccpa"]
        assert str(plan.deployment.place(("security", "compliance", "audit_retention"))).endswith("security.yaml:20")
    else:
        assert settings["monitoring"]["tracing"]["jaeger"]["sampling_rate"] == 0.1
        assert settings["monitoring"]["alerting"]["alertmanager"]["routes"] == ["email", "slack", "pagerduty"]


def test_short_and_long_ways_to_write_a_setting_mean_the_same(tmp_path):
    long = {
        "authentication": {"methods": ["ldap"]},
        "access_control": {"type": "rbac"},
        "encryption": {"scope": "transport"},
    }
    short = {"authentication": ["ldap"], "access_control": "rbac", "encryption": "transport"}
    first = loaded("personal_node", {"security": long}, tmp_path)
    second = loaded("personal_node", {"security": short}, tmp_path)
    assert first.settings == second.settings
    appended = loaded("enterprise", {"security": {"authentication+": ["jwt"]}}, tmp_path)
    assert appended.settings["security"]["authentication"]["methods"] == ["ldap", "saml", "oauth2", "jwt"]


@pytest.mark.parametrize(
    ("written", "means", "seconds"),
    [(3600, "1h", 3600), ("3600s", "1h", 3600), ("60m", "1h", 3600), ("90d", "90d", 7776000), ("7y", "7y", 220752000),
     ("1w", "7d", 604800), ("24h", "1d", 86400), ("365d", "1y", 31536000), ("90m", "90m", 5400)],
)  # fmt: skip
def test_lengths_of_time_have_one_meaning(tmp_path, written, means, seconds):
    settings = loaded(
        "personal_node", {"security": {"authentication": {"session_timeout": written}}}, tmp_path
    ).settings
    timeout = settings["security"]["authentication"]["session_timeout"]
    assert (timeout, timeout.seconds) == (means, seconds)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ({"security": {"compliance": {"data_retention": "90 days"}}}, "must be a length of time"),
        ({"security": {"compliance": {"data_retention": 0}}}, "must be longer than nothing"),
        ({"security": {"compliance": {"data_retention": True}}}, "security.compliance.data_retention: True"),
        ({"security": {"authentication": ["ldapp"]}}, "security.authentication.methods[0]: 'ldapp' is not a value of "
         "this key (did you mean 'ldap'?)"),
        ({"security": {"encryption": "end2end"}}, "did you mean 'end_to_end'?"),
        ({"monitoring": {"tracing": {"jaeger": {"sampling_rate": 1.5}}}}, "less than or equal to 1"),
        ({"monitoring": {"tracing": {"jaeger": {"sampling_rate": -0.1}}}}, "greater than or equal to 0"),
        ({"monitoring": {"alerting": {"alertmanager": {"routes": ["emial"]}}}}, "did you mean 'email'?"),
        ({"monitoring": {"alerting": {"alertmanger": {}}}}, "did you mean 'alertmanager'?"),
    ],
)  # fmt: skip
def test_what_is_mistyped_is_one_fault_with_its_line(tmp_path, layer, says):
    with pytest.raises(ConfigurationError) as caught:
        loaded("enterprise", layer, tmp_path)
    assert len(caught.value.faults) == 1
    assert says in str(caught.value)
    assert caught.value.faults[0].place.line > 0


@pytest.mark.parametrize("name", MODES)
def test_a_mode_has_the_minima_features_and_paths_of_the_specification(name):
    document = read_document(CONFIGS / "modes" / f"{name}.yaml")
    mode = parse(Mode, document.data, document.place)
    (cpu, memory, disk, network, gpu), features, paths = MODES[name]
    assert (mode.minimum.cpu, mode.minimum.memory_mb, mode.minimum.disk_gb) == (cpu, memory * 1024, disk)
    assert (mode.minimum.network_mbps, mode.minimum.gpu) == (network, gpu)
    assert list(mode.features) == features
    assert mode.migrates_to == paths


@pytest.mark.parametrize("name", MODES)
def test_the_plan_answers_for_every_feature_of_a_mode(name):
    plan = planned(name)
    capabilities = {capability for service in plan.services for capability in service.capabilities}
    capabilities |= {row.capability for row in plan.unavailable}
    for feature, answer in plan.deployment.features.items():
        if answer.key:
            section, capability = answer.key.split(".")
            assert section == "services"
            assert capability in capabilities, feature
        elif answer.built_in:
            assert any(row.value == feature for row in plan.answers), feature
        else:
            assert feature in {row.requested for row in plan.unavailable}, feature


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_of_a_mode_is_mapped_or_named_as_not_acted_on(tmp_path, name):
    (tmp_path / "site.yaml").write_text(yaml.safe_dump({name: OPTIONS[name]}))
    plan = planned(name, site=tmp_path / "site.yaml")
    said = {key for key in plan.not_acted_on if key.startswith(f"{name}.")} | plan.deployment.mapped
    for option, value in OPTIONS[name].items():
        for key in value if isinstance(value, dict) else [""]:
            full = f"{name}.{option}.{key}".rstrip(".")
            assert any(row == full or row.startswith(f"{full}.") for row in said), full


def services(name, options, folder, **more):
    return loaded(name, {name: options, **more}, folder).settings["services"]


def test_options_of_a_mode_become_the_settings_that_they_stand_for(tmp_path):
    server = loaded("server", {"server": OPTIONS["server"]}, tmp_path).settings
    assert server["services"]["vector_db"] == "chroma"
    assert "identity" not in server["services"]
    assert server["monitoring"]["logging"]["loki"]["retention"] == "14d"
    assert server["backup"]["schedule"] == "daily"
    standalone = loaded("standalone", {"standalone": OPTIONS["standalone"]}, tmp_path).settings
    assert standalone["services"]["database"] == "leveldb"
    assert standalone["services"]["vector_db"] == ["chroma", "qdrant"]
    assert "image_generation" not in standalone["services"]
    assert standalone["security"]["authentication"]["session_timeout"] == "1h"
    assert services("browser", {"local_services": ["open-webui"]}, tmp_path)["web_ui"] == "open_webui"
    assert services("embedded", {"mqtt": True}, tmp_path)["message_bus"] == "mosquitto"
    assert services("cluster", {"vault_provider": "openbao"}, tmp_path)["secret_store"] == "openbao"


def test_an_option_keeps_its_line_and_a_later_layer_wins_over_it(tmp_path):
    (tmp_path / "site.yaml").write_text("server:\n  vector_store: chroma\n")
    (tmp_path / "user.yaml").write_text("services:\n  vector_db: pgvector\n")
    deployment = load_deployment(CONFIGS, "server", site=tmp_path / "site.yaml")
    assert str(deployment.place(("services", "vector_db"))).endswith("site.yaml:2")
    both = load_deployment(CONFIGS, "server", site=tmp_path / "site.yaml", user=tmp_path / "user.yaml")
    assert both.settings["services"]["vector_db"] == "pgvector"


@pytest.mark.parametrize(
    ("name", "layer", "says"),
    [
        ("server", {"server": {"vector_store": "chroma"}, "services": {"vector_db": "qdrant"}},
         "server.vector_store: means services.vector_db: chroma, which"),
        ("standalone", {"standalone": {"services": {"olama": True}}}, "did you mean 'ollama'?"),
        ("server", {"server": {"db_url": "postgresql://kos:hunter2@db/kos"}}, "holds a password"),
        ("server", {"server": {"vector_stor": "x"}}, "did you mean 'vector_store'?"),
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_is_a_fault(tmp_path, name, layer, says):
    with pytest.raises(ConfigurationError) as caught:
        loaded(name, layer, tmp_path)
    assert says in str(caught.value)


def test_a_password_in_an_address_is_not_repeated_in_the_fault(tmp_path):
    with pytest.raises(ConfigurationError) as caught:
        loaded("server", {"server": {"celery_broker": "redis://:hunter2@bus/0"}}, tmp_path)
    assert "hunter2" not in str(caught.value)
