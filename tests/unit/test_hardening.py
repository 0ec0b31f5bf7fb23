# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of hardening: what a level makes of them, and what the real ones must keep."""

from __future__ import annotations

import re
import subprocess

import pytest
from catalogues import ROOT, machine, plan

from ansible_collections.kind.kos.plugins.plugin_utils import assemble, hardening
from ansible_collections.kind.kos.plugins.plugin_utils.catalogue import load_catalogue
from ansible_collections.kind.kos.plugins.plugin_utils.faults import ConfigurationError
from ansible_collections.kind.kos.plugins.plugin_utils.hardening import Rules, level_of
from ansible_collections.kind.kos.plugins.plugin_utils.models import parse
from ansible_collections.kind.kos.plugins.plugin_utils.profile import Settings

RULES = hardening.load_rules(ROOT / "services")
CATALOGUE = load_catalogue(ROOT / "services")

SMALL = {
    "asked_by": {"monitoring.audit": ["comprehensive"], "security.compliance.frameworks": ["cis"]},
    "daemons": {"sshd": {"unit": "ssh.service", "tell": ["reload", "ssh"]}, "log": {"tell": ["log"]}},
    "rules": [
        {"id": "one", "level": "baseline", "title": "x", "sysctl": {"a.b": 1, "c.*.d": 0},
         "sshd": {"Port": 1, "Kex": "a,b"}},
        {"id": "two", "level": "strict", "title": "x", "sysctl": {"a.b": 2}, "sshd": {"Kex": "a"}, "modules": ["x"],
         "packages": ["p", "o"], "unless": {"p": "q"}, "masks": ["p.service"], "modes": {"/etc/x": "0600"},
         "files": [{"path": "/etc/log", "text": "t\n", "daemon": "log"}]},
    ],
}  # fmt: skip


def rules(**changes):
    return parse(Rules, {**SMALL, **changes}, lambda _path: None)


def made(level, off=(), of=None):
    settings = {"security": {"hardening": {"level": level, "off": list(off)}}}
    return hardening.hardened(CATALOGUE.services["hardening"], of or rules(), settings)


def texts(service):
    return {file.path: file.text for file in service.files}


def test_a_level_has_its_rules_and_those_below_it():
    assert made("none").files == [] and made("none").settings == []
    assert [(row.name, row.value) for row in made("baseline").settings] == [("a.b", "1"), ("c.*.d", "0")]
    strict = made("strict")
    assert [(row.kind, row.name, row.value) for row in strict.settings] == [
        ("sysctl", "a.b", "2"), ("sysctl", "c.*.d", "0"), ("mode", "/etc/x", "0600"),
    ]  # fmt: skip
    assert strict.substrates.deb.packages == ["o", "p"] and strict.substrates.deb.unless == {"p": "q"}
    assert strict.substrates.deb.masks == ["p.service"] and made("baseline").substrates.deb.masks == []
    assert "install x /bin/false\nblacklist x\n" in texts(strict)["/etc/modprobe.d/kos-hardening.conf"]


def test_of_two_rules_for_one_directive_the_later_counts_and_sshd_reads_it_once():
    text = texts(made("strict"))["/etc/ssh/sshd_config.d/01-kos-hardening.conf"]
    assert re.findall(r"^\w.*", text, re.MULTILINE) == ["Port 1", "Kex a"]
    assert "Kex a,b\n" in texts(made("strict", off=["two"]))["/etc/ssh/sshd_config.d/01-kos-hardening.conf"]


def test_a_rule_that_is_off_leaves_nothing_and_tells_nobody():
    service = made("strict", off=["two"])
    assert "/etc/log" not in texts(service) and [row.name for row in service.daemons] == ["sshd"]
    assert [row.name for row in made("strict").daemons] == ["sshd", "log"]


@pytest.mark.parametrize(
    ("settings", "level"),
    [
        ({}, "none"),
        ({"monitoring": {"audit": "basic"}}, "none"),
        ({"monitoring": {"audit": "comprehensive"}}, "baseline"),
        ({"security": {"compliance": {"frameworks": ["gdpr", "cis"]}}}, "baseline"),
        ({"monitoring": {"audit": "comprehensive"}, "security": {"hardening": {"level": "none"}}}, "none"),
        ({"security": {"hardening": {"level": "strict"}}}, "strict"),
        ({"security": {"hardening": {"off": ["one"]}}}, "none"),
    ],
)
def test_who_says_a_level_gets_it_and_comprehensive_audit_asks_for_baseline(settings, level):
    assert level_of(rules(), settings)[0] == level


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rules": [SMALL["rules"][0]] * 2}, "two rules are called one"),
        ({"daemons": {}}, "how to tell log, sshd"),
        ({"rules": [{"id": "a", "level": "medium", "title": "x"}]}, "medium"),
    ],
)
def test_rules_must_be_clear(changes, says):
    with pytest.raises(ConfigurationError, match=says):
        rules(**changes)


def test_a_rule_that_does_not_exist_is_a_fault_with_the_nearest_name(tmp_path):
    site = tmp_path / "site.yaml"
    site.write_text("security: {hardening: {level: strict, off: [ssh-crypt]}}\n")
    with pytest.raises(ConfigurationError, match=r"no rule of hardening is called 'ssh-crypt'.*ssh-crypto") as caught:
        assemble.plan(assemble.Request("development", site=site), machine())
    assert "site.yaml:1" in str(caught.value)


def test_a_catalogue_without_the_service_plans_as_before(tmp_path):
    planned = plan(tmp_path, {"security": {"hardening": {"level": "strict"}}}).plan
    assert "hardening" not in [service.name for service in planned.services]


@pytest.mark.parametrize(
    ("profile", "environment", "hard"),
    [
        ("enterprise", None, True),
        ("federation_node", None, True),
        ("cluster", None, True),
        ("personal_node", "production", True),
        ("personal_node", None, False),
        ("development", None, False),
    ],
)
def test_the_profiles_that_ask_for_audit_are_hardened(profile, environment, hard):
    planned = assemble.plan(assemble.Request(profile, environment), machine()).plan
    assert ("hardening" in [service.name for service in planned.services]) == hard


# --- the real rules --------------------------------------------------------------------------------------------------


def generation(tmp_path, level="strict", off=()):
    site = tmp_path / "site.yaml"
    site.write_text(f"security: {{hardening: {{level: {level}, off: [{', '.join(off)}]}}}}\n")
    return assemble.generation(assemble.plan(assemble.Request("development", site=site), machine()))


def test_the_generation_carries_files_packages_settings_and_whom_to_tell(tmp_path):
    manifest = generation(tmp_path).manifest
    paths = {row["path"]: row for row in manifest["files"]}
    assert paths["/etc/ssh/sshd_config.d/01-kos-hardening.conf"]["units"] == ["sshd"]
    assert paths["/etc/sudoers.d/90-kos"]["mode"] == "0440"
    assert {"unattended-upgrades", "libpam-pwquality"} <= set(manifest["packages"])
    assert manifest["unless"] == {"systemd-timesyncd": "time-daemon"}
    assert {row["name"] for row in manifest["daemons"]} == {
        "sshd",
        "journald",
        "tmp",
        "shm",
        "home",
        "usbguard",
        "pam",
    }
    assert {
        "kind": "sysctl",
        "name": "kernel.kptr_restrict",
        "value": "2",
        "service": "hardening",
        "tier": 0,
    } in manifest["settings"]


def test_interfaces_that_are_not_there_yet_take_the_same():
    lines = texts(made("baseline"))["/etc/sysctl.d/95-kos-hardening.conf"].splitlines()
    assert [line for line in lines if line.startswith("c.")] == ["c.all.d = 0", "c.default.d = 0", "c.*.d = 0"]


def test_no_level_leaves_nothing_in_the_generation(tmp_path):
    manifest = generation(tmp_path, "none").manifest
    assert manifest["settings"] == [] and manifest["daemons"] == []
    assert not [row for row in manifest["files"] if row["service"] == "hardening"]


@pytest.mark.parametrize("rule", RULES.rules, ids=lambda rule: rule.id)
def test_each_rule_sets_something_and_says_what_it_may_break(rule):
    assert rule.sysctl or rule.sshd or rule.modules or rule.modes or rule.packages or rule.files
    assert rule.level == "baseline" or rule.may_break
    assert not rule.title.endswith(".") and all(re.fullmatch(r"[1-7](\.\d+)+", number) for number in rule.cis)
    assert set(rule.unless) <= set(rule.packages)


def test_every_setting_that_asks_for_hardening_exists():
    for key, values in RULES.asked_by.items():
        layer = {}
        here = layer
        *way, last = key.split(".")
        for part in way:
            here = here.setdefault(part, {})
        for value in values:
            here[last] = [value] if last == "frameworks" else value == "true" or value
            Settings.model_validate(layer)


def test_what_rootless_containers_need_stays():
    """Overlay and tun, user namespaces, execution where their images lie, forwarding for who needs it."""
    modules = {name for rule in RULES.rules for name in rule.modules}
    assert not modules & {"overlay", "tun", "veth", "nf_tables", "fuse", "bridge", "squashfs"}
    sysctls = {name for rule in RULES.rules for name in rule.sysctl}
    refused = {"user.max_user_namespaces", "kernel.unprivileged_userns_clone", "kernel.modules_disabled"}
    assert not sysctls & {*refused, "net.ipv4.ip_forward", "net.ipv4.ip_unprivileged_port_start"}
    traced = [
        rule.sysctl["kernel.yama.ptrace_scope"] for rule in RULES.rules if "kernel.yama.ptrace_scope" in rule.sysctl
    ]
    assert max(traced) < 3


def test_an_older_controller_gets_in():
    """Debian 12 has OpenSSH 9.2, whose only key exchange of ours is sntrup761 by its first name."""
    for level, first in (("strict", "mlkem768"), ("baseline", "mlkem768")):
        text = texts(made(level, of=RULES))["/etc/ssh/sshd_config.d/01-kos-hardening.conf"]
        (offered,) = re.findall(r"^KexAlgorithms (.*)", text, re.MULTILINE)
        assert "sntrup761x25519-sha512@openssh.com" in offered.split(",") and offered.startswith(first)
    older = texts(made("strict", off=["ssh-post-quantum"], of=RULES))["/etc/ssh/sshd_config.d/01-kos-hardening.conf"]
    assert "curve25519-sha256" in older


@pytest.mark.parametrize("level", ["baseline", "strict"])
def test_sudo_takes_its_file(level, tmp_path):
    path = tmp_path / "sudoers"
    path.write_text(texts(made(level, of=RULES))["/etc/sudoers.d/90-kos"])
    try:
        done = subprocess.run(["visudo", "-c", "-f", path], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no visudo here")
    assert "parsed OK" in done.stdout, done.stderr
