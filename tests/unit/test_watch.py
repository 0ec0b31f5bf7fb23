# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When the watch restarts a service, when it leaves one for its fallback, and when it keeps its hands off."""

from __future__ import annotations

import pytest

from ansible_collections.kind.kos.plugins.module_utils.node import watch
from ansible_collections.kind.kos.plugins.module_utils.node.files import Root
from ansible_collections.kind.kos.plugins.module_utils.node.gate import Health
from ansible_collections.kind.kos.plugins.module_utils.node.watch import Patient, Record, Rules, Seen

RULES = Rules(interval=30, restarts=2)


def service(name, requires=(), deadline=30):
    return {"name": name, "requires": list(requires), "units": [f"kos-{name}.service"], "probe": {"deadline": deadline}}


def generation(*services, moves=()):
    rows = [{"service": name, "instead": ["other"], "needs_mb": need} for name, need in moves]
    return {"services": list(services), "alternatives": rows}


def sick(*names, well=(), **more):
    rows = {name: Health(name, False, "no answer") for name in names}
    return Seen({**rows, **{name: Health(name, True, "") for name in well}}, **more)


def looks(manifest, seen, record, seconds, start=1000, step=30):
    """What is done, and when, in `seconds` of looking every `step`."""
    found = []
    for at in range(0, seconds, step):
        found += [(at, move.action, move.service) for move in watch.decide(RULES, manifest, seen, record, start + at)]
    return found


def test_one_bad_moment_is_nothing():
    manifest, record = generation(service("a")), Record()
    assert watch.decide(RULES, manifest, sick("a"), record, 0) == []
    assert watch.decide(RULES, manifest, sick(well=["a"]), record, 30) == []
    assert watch.decide(RULES, manifest, sick("a"), record, 60) == []


def test_restarts_come_at_ever_longer_intervals():
    found = looks(generation(service("a")), sick("a"), Record(), 600)
    assert [at for at, _action, _name in found] == [30, 60, 120, 240, 480]
    assert {action for _at, action, _name in found} == {"restart"}


def test_after_so_many_restarts_it_is_left_for_its_fallback():
    found = looks(generation(service("a"), moves=[("a", 10)]), sick("a"), Record(), 150)
    assert found == [(30, "restart", "a"), (60, "restart", "a"), (120, "fallback", "a")]


def test_one_that_gets_well_begins_anew():
    manifest, record = generation(service("a"), moves=[("a", 10)]), Record()
    looks(manifest, sick("a"), record, 100)
    watch.decide(RULES, manifest, sick(well=["a"]), record, 1100)
    assert looks(manifest, sick("a"), record, 60, start=1130) == [(30, "restart", "a")]


def test_a_service_has_its_own_time_to_start():
    found = looks(generation(service("a", deadline=300)), sick("a"), Record(), 400)
    assert [at for at, _action, _name in found] == [30, 330]
    assert looks(generation(service("a")), sick("a", starting=frozenset("a")), Record(), 400) == []


def test_what_has_answered_since_it_began_is_no_longer_starting(monkeypatch):
    rules, record, row = Rules(), Record(), {**service("a", deadline=300), "units": ["a.service"]}
    begun = {"InactiveExitTimestampMonotonic": str(10**15), "ActiveState": "active"}
    monkeypatch.setattr(watch.system, "unit_states", lambda *_: {"a.service": begun})
    healthy = [True, False]
    monkeypatch.setattr(watch.gate, "check_once", lambda _rows: [Health("a", healthy.pop(0), "")])
    assert watch._see(rules, [row], record).starting == frozenset()
    assert watch._see(rules, [row], record).starting == frozenset()
    healthy += [False]
    begun["InactiveExitTimestampMonotonic"] = str(10**15 + 1)
    assert watch._see(rules, [row], record).starting == frozenset("a")


def test_what_somebody_stopped_stays_stopped():
    assert looks(generation(service("a")), sick("a", stopped=frozenset("a")), Record(), 400) == []


def test_what_requires_a_sick_one_is_not_the_patient():
    manifest = generation(service("db"), service("a", ["db"]), service("b", ["a"]))
    assert {name for _at, _action, name in looks(manifest, sick("db", "a", "b"), Record(), 200)} == {"db"}


def test_a_fallback_that_was_refused_is_not_tried_again():
    record = Record(refused={"a": "not healthy either"})
    found = looks(generation(service("a"), moves=[("a", 10)]), sick("a"), record, 400)
    assert {action for _at, action, _name in found} == {"restart"}


def test_only_one_move_at_a_time():
    manifest = generation(service("a"), service("b"), moves=[("a", 10), ("b", 10)])
    found = looks(manifest, sick("a", "b"), Record(), 125)
    assert [row for row in found if row[1] == "fallback"] == [(120, "fallback", "a")]


def short(memory):
    return Seen({name: Health(name, True, "") for name in memory}, memory=memory, short=True)


def test_short_of_memory_the_move_that_gives_most_back_is_made():
    manifest = generation(service("a"), service("b"), moves=[("a", 10), ("b", 10)])
    found = looks(manifest, short({"a": 100, "b": 900}), Record(), 90)
    assert found == [(60, "fallback", "b")]


def test_short_of_memory_nothing_moves_to_what_needs_more():
    manifest = generation(service("a"), moves=[("a", 200)])
    assert looks(manifest, short({"a": 100}), Record(), 300) == []


@pytest.mark.parametrize(
    ("free", "pressure", "expected"), [(20, 0.0, False), (4, 0.0, True), (20, 50.0, True)], ids=str
)
def test_shortage_is_memory_that_lacks_or_that_everything_waits_for(monkeypatch, tmp_path, free, pressure, expected):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 100000 kB\nMemAvailable: {free}000 kB\n")
    monkeypatch.setattr(watch, "MEMINFO", str(meminfo))
    monkeypatch.setattr(watch, "_pressure", lambda: pressure)
    assert watch._short(Rules(free_memory=5)) is expected
    assert watch._short(Rules(free_memory=0)) is False


def test_what_was_seen_survives_until_the_next_deploy(tmp_path):
    root = Root(str(tmp_path))
    record = watch.load(root, ["boot", 1, "", 5.0])
    record.patients["a"] = Patient(10.0, 3, 2, 70.0, "no answer")
    record.restarts["a"] = 2
    watch.save(root, record)
    assert watch.load(root, ["boot", 1, "", 5.0]) == record
    assert watch.summary(root)["restarting"] == {"a": 2}
    after = watch.load(root, ["boot", 2, "", 6.0])
    assert (after.patients, after.restarts) == ({}, {"a": 2})


def test_metrics_are_prometheus_text(tmp_path):
    root = Root(str(tmp_path))
    watch._write_metrics(root, sick("a", well=["b"]).health, Record(restarts={"a": 2}), RULES)
    text = (tmp_path / "var/lib/kos/metrics/kos.prom").read_text()
    assert 'kos_service_healthy{service="a"} 0\n' in text
    assert 'kos_service_healthy{service="b"} 1\n' in text
    assert 'kos_service_restarts_total{service="a"} 2\n' in text
