# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every kind of bad input through the real `kai`: one clear error, exit code 3, never a traceback, never a hang."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from catalogues import ROOT, configs

KAI = Path(sys.executable).with_name("kai")
BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n"
LEVEL = {"yaml": "logging: {level: %s}\n", "json": '{"logging": {"level": %s}}\n', "toml": "logging.level = %s\n"}

# Name of the file, its content, what the one fault says.
TEXTS = {
    "empty": ("x.yaml", "", "the file is empty"),
    "only a comment": ("x.yaml", "# nothing\n", "the file is empty"),
    "empty JSON": ("x.json", "  \n", "the file is empty"),
    "empty TOML": ("x.toml", "# nothing\n", "the file is empty"),
    "not UTF-8": ("x.yaml", b"logging:\n  level: \xe9\n", "not UTF-8"),
    "UTF-16": ("x.json", '{"logging": {}}'.encode("utf-16"), "not UTF-8"),
    "TOML not UTF-8": ("x.toml", b'logging.level = "\xe9"\n', "not UTF-8"),
    "a key twice": ("x.yaml", "logging: {}\nlogging: {}\n", "written twice"),
    "a key twice in JSON": ("x.json", '{"logging": {},\n "logging": {}}', "written twice"),
    "a key twice in TOML": ("x.toml", "[logging]\n[logging]\n", "not valid TOML: cannot declare"),
    "a key twice by its plus": ("x.yaml", "services: {monitoring: [grafana], monitoring+: [loki]}", "written twice"),
    "a TOML key twice by its plus": ("x.toml", '[services]\nmonitoring = "a"\n"monitoring+" = "b"\n', "written twice"),
    "a key twice in an environment": ("x.env", "KOS__ui__theme=a\nKOS__ui__theme=b\n", "written twice"),
    "alias bomb": ("x.yaml", BOMB, "aliases (*name) are not accepted"),
    "recursive alias": ("x.yaml", "a: &a [*a]\n", "aliases (*name) are not accepted"),
    "recursive merge": ("x.yaml", "a: &a {<<: *a}\n", "aliases (*name) are not accepted"),
    "tag": ("x.yaml", "logging: !!python/object/apply:os.system ['true']\n", "the tag tag:yaml.org,2002:python"),
    "local tag": ("x.yaml", "logging: !vault |\n  x\n", "the tag !vault is not accepted"),
    "wrong type": ("x.yaml", "logging: 7\n", "logging: 7: input should be a valid"),
    "wrong type in JSON": ("x.json", '{"logging": 7}', "logging: 7: input should be a valid"),
    "wrong type in TOML": ("x.toml", "logging = 7\n", "logging: 7: input should be a valid"),
    "a list where a mapping is": ("x.yaml", "logging: [a]\n", "logging: a list: input should be a valid"),
    "not a mapping": ("x.yaml", "- a\n", "the file must be a mapping"),
    "not a mapping in JSON": ("x.json", "[1]", "the file must be a mapping"),
    "10 MB": ("x.yaml", b"a: " + b"x" * (10 << 20), "larger than 1024 KiB"),
    "10 MB of JSON": ("x.json", b"[" * (10 << 20), "larger than 1024 KiB"),
    "deep": ("x.yaml", "a: " + "[" * 60 + "]" * 60, "nested deeper than 40 levels"),
    "very deep": ("x.yaml", "[" * 500_000, "nested deeper than 40 levels"),
    "very deep JSON": ("x.json", '{"a":' + "[" * 500_000, "nested deeper than 40 levels"),
    "very deep TOML": ("x.toml", "a = " + "[" * 500_000, "nested deeper than 40 levels"),
    "very deep TOML keys": ("x.toml", ".".join(["a"] * 200_000) + " = 1", "nested deeper than 40 levels"),
    "very deep environment": ("x.env", "KOS" + "__a" * 100_000 + "=1", "expected KOS__section__key=value"),
    "many keys": ("x.yaml", "".join(f"k{n}: 1\n" for n in range(60_000)), "holds more than 50000 values"),
    "many keys in JSON": ("x.json", json.dumps({f"k{n}": 1 for n in range(60_000)}), "holds more than 50000 values"),
    "many keys in TOML": ("x.toml", "".join(f"k{n}=1\n" for n in range(60_000)), "holds more than 50000 values"),
    "NUL byte": ("x.yaml", "logging: {level: in\0fo}\n", "not valid YAML"),
    "NUL byte escaped": ("x.yaml", 'logging: {level: "in\\0fo"}\n', "logging.level: holds a control character"),
    "NUL byte in JSON": ("x.json", LEVEL["json"] % '"in\\u0000fo"', "logging.level: holds a control character"),
    "NUL byte in TOML": ("x.toml", LEVEL["toml"] % '"in\\u0000fo"', "logging.level: holds a control character"),
    "NUL byte in an environment": ("x.env", "KOS__logging__level=in\0fo\n", "a value is one line of plain text"),
    "half a character": ("x.json", LEVEL["json"] % '"\\ud800"', "logging.level: holds a control character"),
    "a newline smuggled in": ("x.yaml", 'ui: {theme: "a\\n[Service]\\nExecStart=/bin/sh"}\n', "one line of plain text"),
    "a token smuggled in": ("x.toml", 'ui.theme = "@kos:secret:valkey.password@"\n', "filled in on the node"),
    "huge integer": ("x.yaml", LEVEL["yaml"] % ("9" * 5000), "a number beyond 64 bits"),
    "huge integer in JSON": ("x.json", LEVEL["json"] % ("9" * 5000), "a number beyond 64 bits"),
    "huge integer in TOML": ("x.toml", LEVEL["toml"] % ("9" * 5000), "a number beyond 64 bits"),
    "huge integer in an environment": ("x.env", "KOS__logging__level=" + "9" * 5000, "a number beyond 64 bits"),
    "not a number": ("x.json", LEVEL["json"] % "NaN", "not valid JSON: NaN is not JSON"),
    "infinite": ("x.toml", "monitoring.tracing.jaeger.sampling_rate = inf\n", "is not a finite number"),
    "infinite by its size": ("x.json", LEVEL["json"] % "1e999", "is not a finite number"),
    "yes": ("x.yaml", "security: {auto_lock: yes}\n", "'yes' is one thing to YAML 1.1 and another to YAML 1.2"),
    "off": ("x.yaml", "development: {trace_logging: off}\n", "'off' is one thing to YAML 1.1"),
    "octal": ("x.yaml", "networking: {ports: {frontend: 0644}}\n", "'0644' is one thing to YAML 1.1"),
    "sexagesimal": ("x.yaml", "networking: {ports: {frontend: 1:30}}\n", "'1:30' is one thing to YAML 1.1"),
    "underscores": ("x.yaml", "networking: {ports: {frontend: 8_000}}\n", "'8_000' is one thing to YAML 1.1"),
    "broken YAML": ("x.yaml", "logging: {level: [\n", "not valid YAML"),
    "broken JSON": ("x.json", '{"logging": {"level": }}', "not valid JSON"),
    "JSON with a comma too many": ("x.json", '{"logging": {},}', "not valid JSON"),
    "text after JSON": ("x.json", '{"logging": {}} x', "nothing may follow"),
    "broken TOML": ("x.toml", "logging.level = \n", "not valid TOML"),
    "two documents": ("x.yaml", "logging: {}\n---\nui: {}\n", "single document"),
    "unknown key": ("x.yaml", "servces: {}\n", "servces: unknown key (did you mean 'services'?)"),
    "unknown value": ("x.toml", LEVEL["toml"] % '"debgu"', "'debgu' is not a value of this key (did you mean"),
    "a vault in the clear": ("x.vault", "kos_secrets: {}\n", "is not encrypted"),
}  # fmt: skip


def kai(*arguments, **environment):
    done = subprocess.run(
        [KAI, *map(str, arguments), "--json"],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done


def one_fault(done):
    assert done.returncode == 3, done.stdout + done.stderr
    (fault,) = json.loads(done.stdout)["faults"]
    assert "\n" not in fault["message"]
    assert len(fault["message"]) < 300
    said = f"{fault['key']}: {fault['message']}" if fault["key"] else fault["message"]
    return fault, f"{said} ({fault['fix']})" if fault["fix"] else said


@pytest.mark.parametrize("case", TEXTS)
def test_a_bad_text_is_one_clear_error(tmp_path, case):
    name, content, says = TEXTS[case]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    fault, said = one_fault(kai("validate", tmp_path / name))
    assert says in said
    assert fault["file"] == str(tmp_path / name)


def fifo(folder):
    os.mkfifo(folder / "x.yaml")
    return folder / "x.yaml"


def loop(folder):
    (folder / "x.yaml").symlink_to("y.yaml")
    (folder / "y.yaml").symlink_to("x.yaml")
    return folder / "x.yaml"


def forbidden(folder):
    (folder / "x.yaml").write_text("logging: {}\n")
    (folder / "x.yaml").chmod(0)
    # Root reads anything but the memory of a process at address 0.
    return Path("/proc/self/mem") if os.geteuid() == 0 else folder / "x.yaml"


FILES = {
    "absent": (lambda folder: folder / "x.yaml", "cannot be read: No such file or directory"),
    "unreadable": (forbidden, "cannot be read: "),
    "a directory": (lambda folder: folder, "not a regular file"),
    "a FIFO": (fifo, "not a regular file"),
    "an endless device": (lambda _folder: Path("/dev/zero"), "not a regular file"),
    "a link that leads to itself": (loop, "cannot be read: Too many levels of symbolic links"),
    "a name that is too long": (lambda folder: folder / ("x" * 300), "cannot be read: File name too long"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file_is_one_clear_error(tmp_path, case):
    make, says = FILES[case]
    assert says in one_fault(kai("validate", make(tmp_path)))[1]


REQUESTS = {
    "an endless site layer": (["--site", "/dev/zero"], "not a regular file"),
    "a site layer with a name that is too long": (["--site", "x" * 300], "cannot be read: File name too long"),
    "a site layer that nobody has": (["--site", "labb"], "no layer 'labb' (did you mean 'lab'?)"),
    "an environment elsewhere": (["--env", "../../x"], "no environment is called '../../x'"),
    "an environment mistyped": (["--env", "prodution"], "did you mean 'production'?"),
    "a profile elsewhere": (["--profile", "../../../etc/passwd"], "no profile or mode is called"),
    "a tree elsewhere": (["--configs", "/nonexistent"], "no folder '/nonexistent'"),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_a_bad_request_is_one_clear_error(case):
    arguments, says = REQUESTS[case]
    wanted = [] if "--profile" in arguments else ["--profile", "browser_extension"]
    assert says in one_fault(kai("validate", *wanted, *arguments))[1]


def test_bad_facts_are_one_clear_error(tmp_path):
    assert "not a regular file" in one_fault(kai("plan", "-p", "desktop", "--facts", "/dev/zero"))[1]


def test_two_files_for_one_layer_are_refused(tmp_path):
    tree = configs(tmp_path, {}, user={"logging": {"level": "debug"}})
    (tree / "overrides" / "user_overrides.toml").write_text('logging.level = "info"\n')
    said = one_fault(kai("validate", "--profile", "test", "--configs", tree))[1]
    assert "user_overrides.yaml and user_overrides.toml are one layer (keep one of them)" in said


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("services:\n  cache: valky\n", "x.yaml:2: services.cache: this release's catalogue has no service 'valky'"),
        ("services:\n  monitoring: [prometheus]\nnetworking:\n  ports:\n    frontend: 9090\n",
         "x.yaml:5: networking.ports.frontend: tcp port 9090 is wanted by"),
        ("federation:\n  klp_enabled: false\n  public_registry: true\n",
         "x.yaml:3: federation.public_registry: true cannot be had with federation.klp_enabled: false"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_found_on_the_laptop_with_its_line(tmp_path, settings, says):
    (tmp_path / "x.yaml").write_text(settings)
    done = kai("validate", "--profile", "development", "--site", tmp_path / "x.yaml", COLUMNS="300")
    fault, said = one_fault(done)
    assert says in f"{Path(fault['file']).name}:{fault['line']}: {said}"


def test_the_shipped_files_are_valid():
    files = [path for path in (ROOT / "configs").rglob("*") if path.is_file() and path.parent.name != "secrets"]
    kinds = [path for path in files if path.name not in ("requirements.yaml", "migrations.yaml", "README.md")]
    done = kai("validate", *kinds)
    assert done.returncode == 0, done.stdout
    assert len(json.loads(done.stdout)["valid"]) == len(kinds)
