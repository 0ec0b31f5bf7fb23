# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What settings outside `services:` ask for."""

from __future__ import annotations

import pytest
import yaml
from catalogues import catalogue, manifest, plan

from ansible_collections.kind.kos.plugins.plugin_utils.catalogue import load_catalogue
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError

GRAFANA = {"monitoring.metrics.grafana.enabled": {"true": {"services": ["grafana"]}}}


def table(folder, asks):
    (folder / "services").mkdir(exist_ok=True)
    (folder / "services" / "asks.yaml").write_text(yaml.safe_dump({"asks": asks}))


def planned(folder, settings, asks, *services):
    table(folder, asks)
    return plan(folder, settings, *services).plan


def grafana(enabled):
    return {"monitoring": {"metrics": {"grafana": {"enabled": enabled}}}}


def test_a_setting_plans_a_service_and_names_its_line(tmp_path):
    found = planned(tmp_path, grafana(True), GRAFANA, manifest("grafana", provides=["monitoring"]))
    row = next(service for service in found.services if service.name == "grafana")
    assert row.capabilities == ("monitoring",)
    assert "test.yaml:" in row.why
    assert found.not_acted_on == []


def test_false_asks_for_nothing_and_is_acted_on(tmp_path):
    found = planned(tmp_path, grafana(False), GRAFANA, manifest("grafana", provides=["monitoring"]))
    assert "grafana" not in [service.name for service in found.services]
    assert found.not_acted_on == []


def test_what_is_not_available_is_told_once(tmp_path):
    lacking = manifest("grafana", provides=["monitoring"], not_run="it has to wait")
    settings = {"services": {"monitoring": ["grafana"]}, **grafana(True)}
    found = planned(tmp_path, settings, GRAFANA, lacking)
    assert [(row.requested, row.why) for row in found.unavailable] == [("grafana", "it has to wait")]


def test_a_sentence_is_an_answer(tmp_path):
    asks = {"orchestration.kubernetes": {"optional": {"state": "met", "says": "it runs without"}}}
    found = planned(tmp_path, {"orchestration": {"kubernetes": "optional"}}, asks)
    assert [row.as_dict() for row in found.answers] == [
        {"key": "orchestration.kubernetes", "value": "optional", "state": "met", "says": "it runs without"}
    ]


def test_a_list_is_answered_when_each_of_its_items_is(tmp_path):
    asks = {"security.compliance.frameworks": {"gdpr": {"state": "unavailable", "says": "no"}}}
    assert planned(tmp_path, {"security": {"compliance": ["gdpr"]}}, asks).not_acted_on == []
    half = planned(tmp_path, {"security": {"compliance": ["gdpr", "sox"]}}, asks)
    assert half.answers == ()
    assert half.not_acted_on == ["security.compliance.frameworks"]


def test_any_other_value_has_its_answer(tmp_path):
    asks = {"ui.theme": {"dark": {"state": "met", "says": "dark"}, "*": {"state": "elsewhere", "says": "other"}}}
    said = [planned(tmp_path, {"ui": {"theme": theme}}, asks).answers[0].says for theme in ("dark", "light")]
    assert said == ["dark", "other"]


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ({"services": ["grafna"]}, "no service is called 'grafna' (did you mean 'grafana'?)"),
        ({}, "needs either `services`, or `says` with its `state`"),
        ({"says": "yes"}, "needs either `services`, or `says` with its `state`"),
        ({"services": ["grafana"], "says": "yes", "state": "met"}, "needs either `services`"),
        ({"state": "maybe", "says": "yes"}, "asks.a.b.true.state"),
    ],
)
def test_a_wrong_table_is_a_fault(tmp_path, reply, says):
    folder = catalogue(tmp_path, manifest("grafana"))
    table(tmp_path, {"a.b": {"true": reply}})
    with pytest.raises(ConfigurationError) as caught:
        load_catalogue(folder)
    assert says in str(caught.value)
    assert "asks.yaml" in str(caught.value)
