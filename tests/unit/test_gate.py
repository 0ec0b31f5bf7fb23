# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate against real servers: one that answers, one that is merely slow, one that fails now and then; and hooks."""

from __future__ import annotations

import getpass
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ansible_collections.kind.kos.plugins.module_utils.node import farewell, gate

# Far apart, so that a busy machine cannot blur them: the slow server takes ten times its bound.
BOUND_MS = 50
SLOW = 0.5


class Server:
    """An HTTP server whose next answers a test decides: seconds to wait, and that every n-th fails."""

    def __init__(self):
        self.delay = 0.0
        self.fails_each = 0
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.asked += 1
                time.sleep(outer.delay)
                self.send_response(500 if outer.fails_each and outer.asked % outer.fails_each == 0 else 200)
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def service(self, **bounds):
        return {
            "name": "web", "units": [], "user": getpass.getuser(),
            "probe": {"http": {"url": f"http://127.0.0.1:{self.http.server_port}/"}, "deadline": 5},
            "bounds": {"latency_ms": BOUND_MS, "error_rate": 0.0, **bounds},
            "hooks": {"user": getpass.getuser(), "pre_init": [], "post_init": [], "exit": []},
        }  # fmt: skip


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(gate, "_BETWEEN_WINDOWS", 0.1)
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def test_a_service_that_is_merely_slow_is_refused_after_an_update(server):
    server.delay = SLOW
    (health,) = gate.wait_healthy([server.service()], updated={"web"})
    assert not health.healthy
    assert health.detail.startswith("answers, but not as well as it must: its probe took ")
    assert health.detail.endswith(f"its bound is {BOUND_MS} ms")


def test_it_is_not_measured_where_it_was_not_updated(server):
    server.delay = SLOW
    (health,) = gate.wait_healthy([server.service()], updated=set())
    assert health.healthy
    assert server.asked == 1


def test_one_that_keeps_its_bounds_is_healthy(server):
    (health,) = gate.wait_healthy([server.service(latency_ms=5000)], updated={"web"})
    assert health.healthy
    assert server.asked == 1 + gate._SAMPLES


def test_a_moment_of_slowness_is_measured_again(server, monkeypatch):
    server.delay = SLOW

    def recovered(_seconds):
        server.delay = 0.0

    real = time.sleep
    monkeypatch.setattr(gate.time, "sleep", lambda seconds: recovered(seconds) if seconds == 0.1 else real(seconds))
    (health,) = gate.wait_healthy([server.service(latency_ms=250)], updated={"web"})
    assert health.healthy


def test_one_that_fails_now_and_then_is_refused_beyond_its_error_rate(server):
    server.fails_each = 3
    (health,) = gate.wait_healthy([server.service(latency_ms=5000)], updated={"web"})
    assert not health.healthy
    assert "probes failed, its bound is 0% of 10" in health.detail
    (health,) = gate.wait_healthy([server.service(latency_ms=5000, error_rate=0.5)], updated={"web"})
    assert health.healthy


def hooked(**hooks):
    own = {"user": getpass.getuser(), "pre_init": [], "post_init": [], "exit": [], **hooks}
    return {"name": "web", "units": [], "user": getpass.getuser(), "probe": None, "hooks": own}


def test_hooks_run_in_order_as_the_user_and_know_whose_they_are(tmp_path):
    line = f'echo "$KOS_SERVICE $KOS_HOOK $(id -un) {{}}" >> {tmp_path}/said'
    gate.run_hooks(hooked(pre_init=[["sh", "-c", line.format(number)] for number in (1, 2)]), "pre_init")
    me = getpass.getuser()
    assert (tmp_path / "said").read_text() == f"web pre_init {me} 1\nweb pre_init {me} 2\n"


def test_a_hook_that_fails_ends_the_others(tmp_path):
    with pytest.raises(gate.ProbeFailed, match="no good"):
        gate.run_hooks(
            hooked(pre_init=[["sh", "-c", "echo no good >&2; exit 1"], ["touch", f"{tmp_path}/x"]]), "pre_init"
        )
    assert not (tmp_path / "x").exists()


def test_a_post_init_hook_that_fails_is_an_unhealthy_service():
    service = hooked(post_init=[["sh", "-c", "echo not registered >&2; exit 1"]])
    service["probe"] = {"exec": ["true"], "deadline": 1}
    (health,) = gate.wait_healthy([service], hooks=True)
    assert (health.healthy, health.detail) == (False, "post_init: not registered")


def test_hooks_of_what_answers_have_time_beyond_its_deadline(server, tmp_path, monkeypatch):
    monkeypatch.setattr(gate.system, "unit_states", lambda *_: {"web.service": {"ActiveState": "active"}})
    slow = f"echo >> {tmp_path}/tries; [ $(wc -l < {tmp_path}/tries) -ge 8 ]"
    service = {**server.service(), **hooked(post_init=[["sh", "-c", slow]]), "units": ["web.service"]}
    service["probe"] = {**server.service()["probe"], "deadline": 1}
    (health,) = gate.wait_healthy([service], hooks=True)
    assert health.healthy and health.seconds > 1


def test_a_first_start_may_take_many_times_as_long(server, monkeypatch):
    states = iter([*["activating"] * 6, *["active"] * 9])
    monkeypatch.setattr(gate.system, "unit_states", lambda *_: {"web.service": {"ActiveState": next(states)}})
    service = {**server.service(), **hooked(), "units": ["web.service"]}
    service["probe"] = {**server.service()["probe"], "deadline": 0.5}
    (health,) = gate.wait_healthy([service], hooks=True, patience=10)
    assert health.healthy and health.seconds > 0.5


def test_an_exit_hook_that_fails_keeps_nobody(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(farewell, "tell", lambda sentence, warning=False: said.append((sentence, warning)))
    failing, last = hooked(exit=[["sh", "-c", "echo busy >&2; exit 1"]]), hooked(exit=[["touch", f"{tmp_path}/bye"]])
    farewell.run_exit_hooks([failing, last])
    assert said == [("web: its exit hook failed, and it goes all the same: busy", True)]
    assert (tmp_path / "bye").exists()


def test_the_last_to_start_is_the_first_to_leave():
    before = {"services": [{"name": name} for name in ("db", "bus", "web")]}
    after = {"services": [{"name": "bus"}]}
    assert [row["name"] for row in farewell.gone(before, after)] == ["web", "db"]
    assert [row["name"] for row in farewell.gone(before, None)] == ["web", "bus", "db"]
    assert farewell.gone(None, after) == []
