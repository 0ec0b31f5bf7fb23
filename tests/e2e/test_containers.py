# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rootless containers on a real node: what they are shut off from, and how an image comes, changes and goes back.

Each attempt to get out has a control beside it that shows it would succeed without the protection.
"""

from __future__ import annotations

import base64
import shutil

import pytest
from labnodes import wait_for
from wasmmodule import printing

LAYER = """\
services: {cache: redis, vector_db: null, llm_backend: llama_cpp}
orchestration: {substrate: {valkey: container}}
"""
METADATA = "169.254.169.254"
# As the node's own Podman acts for the service.
PODMAN = (
    "cd / && echo 0 > /sys/fs/cgroup/system.slice/kos-valkey.service/runtime/cgroup.procs && "
    "setpriv --reuid=kos-valkey --regid=kos-valkey --clear-groups env -i PATH=/usr/bin:/bin USER=kos-valkey "
    "HOME=/var/lib/containers/kos-valkey XDG_RUNTIME_DIR=/run/kos-valkey "
    "CONTAINERS_CONF_OVERRIDE=/etc/kos/containers/containers.conf "
    "CONTAINERS_STORAGE_CONF=/etc/kos/containers/storage.conf podman"
)


@pytest.fixture(scope="module")
def layer(tmp_path_factory):
    path = tmp_path_factory.mktemp("layer") / "site.yaml"
    path.write_text(LAYER)
    return ("--profile", "development", "--site", str(path))


@pytest.fixture(scope="module")
def contained(lab, node, images, layer):
    """A node whose cache and language model run in containers, with a shell brought into the cache's."""
    images.build("valkey", "llama_cpp")
    lab.deploy(node, *layer)
    lab.ssh(node, "apt-get -qq install -y --no-install-recommends busybox-static >/dev/null")
    lab.ssh(node, f"{PODMAN} cp /bin/busybox kos-valkey:/tmp/busybox")
    return node


def inside(lab, node, command, check=True):
    """Run a shell's `command` in the cache's container, as its processes run."""
    return lab.ssh(node, f"{PODMAN} exec kos-valkey /tmp/busybox sh -c '{command}' 2>&1", check=check)


def test_a_second_deploy_finds_nothing_to_do(lab, contained, layer):
    assert "nothing to do" in lab.deploy(contained, *layer).stderr
    rows = {row["name"]: row for row in lab.status(contained)["services"]}
    assert rows["valkey"]["substrate"] == rows["llama_cpp"]["substrate"] == "container"
    assert all(row["healthy"] for row in rows.values())


def test_no_process_of_a_service_is_root(lab, contained):
    groups = lab.ssh(contained, "ps -ww -eo uid=,cgroup:200=,args= | grep -F /kos- | grep -v grep")
    rows = [line.split(None, 2) for line in groups.splitlines()]
    assert {"kos-valkey", "kos-llama-cpp"} <= {row[1].split("/")[-2].partition(".service")[0] for row in rows if
                                               "libpod" in row[1]}  # fmt: skip
    assert [row for row in rows if row[0] == "0"] == []


def test_a_container_holds_no_power(lab, contained):
    status = inside(lab, contained, '/tmp/busybox grep -E "^(CapEff|CapPrm|CapBnd|NoNewPrivs|Seccomp):" /proc/1/status')
    fields = dict(line.split(":\t") for line in status.splitlines())
    assert fields == {
        "CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapBnd": "0000000000000000",
        "NoNewPrivs": "1", "Seccomp": "2",
    }  # fmt: skip
    assert "Read-only file system" in inside(lab, contained, "/tmp/busybox touch /x", check=False)
    assert "permission denied" in inside(lab, contained, "/tmp/busybox mount -t tmpfs x /tmp", check=False)
    # Control: what the container refuses its processes, the node's root may do.
    assert lab.ssh(contained, "mount -t tmpfs x /mnt && umount /mnt && echo done") == "done"


def test_files_of_the_node_and_of_other_services_stay_unread(lab, contained):
    lab.ssh(contained, "echo marker > /root/marker; echo marker > /var/lib/kos-llama-cpp.marker 2>/dev/null; "
                       "install -d -o kos-llama-cpp -m 0700 /var/lib/kos-llama-cpp && "
                       "echo marker > /var/lib/kos-llama-cpp/marker")  # fmt: skip
    for path in ("/root/marker", "/var/lib/kos-llama-cpp/marker", "/etc/kos/containers/policy.json"):
        assert "No such file" in inside(lab, contained, f"/tmp/busybox cat {path}", check=False)
        assert lab.ssh(contained, f"cat {path}")
    # Even out of its container, the service's user may not read another service's data.
    outside = f"{PODMAN.partition('&& setpriv')[0]} && setpriv --reuid=kos-valkey --regid=kos-valkey --clear-groups"
    denied = lab.ssh(contained, f"{outside} cat /var/lib/kos-llama-cpp/marker 2>&1", check=False)
    assert "Permission denied" in denied


def fetch(lab, node, address):
    return inside(lab, node, f"/tmp/busybox wget -q -T 3 -O - http://{address}/", check=False)


def test_nothing_is_reached_that_the_plan_does_not_name(lab, contained):
    address = lab.ssh(contained, "ip -4 -o addr show host0").split()[3].split("/")[0]
    lab.ssh(
        contained, f"ip address add {METADATA}/32 dev host0; mkdir -p /srv/page && echo secret > /srv/page/index.html"
    )
    lab.ssh(contained, "systemd-run --quiet --unit=page python3 -m http.server 80 --bind 0.0.0.0 --directory /srv/page")
    try:
        wait_for(lambda: lab.ssh(contained, f"/bin/busybox wget -qO- http://{METADATA}/ || true") == "secret", 30)
        for place in (METADATA, address, "127.0.0.1:22"):
            assert "secret" not in fetch(lab, contained, place)
        # Control: without the filter the same request gets the page.
        lab.ssh(contained, "nft flush chain inet kos output")
        assert fetch(lab, contained, METADATA) == "secret"
    finally:
        lab.ssh(
            contained, f"systemctl stop page; ip address del {METADATA}/32 dev host0; systemctl restart kos-firewall"
        )
    assert inside(lab, contained, "echo PING | /tmp/busybox nc 127.0.0.1 6379") == "+PONG"


def served(lab, node, service):
    """The digest of the image that Podman says it runs for `service`, which is the one that the status tells."""
    rows = {row["name"]: row for row in lab.status(node)["services"]}
    assert rows[service]["healthy"], rows[service]["detail"]
    name = f"kos-{service.replace('_', '-')}"
    podman = PODMAN.replace("kos-valkey", name)
    digest = lab.ssh(node, f"{podman} inspect --format '{{{{.ImageDigest}}}}' {name}")
    assert digest == rows[service]["digest"]
    return digest


def test_an_update_a_broken_one_and_back(lab, contained, images, layer):
    first = images.digest("llama_cpp")
    second = images.variant("llama_cpp", Labels={"of": "a test"})
    broken = images.variant("llama_cpp", Entrypoint=["/usr/bin/llama-server", "--no-such-option"])
    try:
        images.use("llama_cpp", second)
        lab.deploy(contained, *layer)
        assert served(lab, contained, "llama_cpp") == second
        images.use("llama_cpp", broken)
        refused = lab.deploy(contained, *layer, check=False)
        assert refused.returncode == 5 and "taken back" in refused.stderr, refused.stderr
        wait_for(lambda: lab.healthy(contained), 60)
        assert served(lab, contained, "llama_cpp") == second
        lab.kai("rollback", "-i", "inventories/lab", "--limit", contained)
        assert served(lab, contained, "llama_cpp") == first
    finally:
        images.use("llama_cpp", first)


def test_an_altered_image_is_refused_before_anything_changes(lab, contained, images, layer):
    first = images.digest("llama_cpp")
    altered = images.variant("llama_cpp", Labels={"of": "a forger"})
    path = images.configuration(altered)
    path.write_bytes(path.read_bytes().replace(b"a forger", b"the mint"))
    before = lab.ssh(contained, "readlink /var/lib/kos/current; systemctl show -p InvocationID kos-llama-cpp")
    try:
        images.use("llama_cpp", altered)
        refused = lab.deploy(contained, *layer, check=False)
        assert refused.returncode != 0 and "it claims to be" in refused.stderr, refused.stderr
        assert (
            lab.ssh(contained, "readlink /var/lib/kos/current; systemctl show -p InvocationID kos-llama-cpp") == before
        )
    finally:
        images.use("llama_cpp", first)


def test_an_image_that_nobody_has_is_refused_with_the_way_out(lab, contained, images, layer, tmp_path):
    first = images.digest("llama_cpp")
    lost = images.variant("llama_cpp", Labels={"of": "nobody"})
    store = images.store
    moved = store.with_name("away")
    shutil.move(store, moved)
    try:
        images.use("llama_cpp", lost)
        refused = lab.deploy(contained, *layer, check=False)
        assert refused.returncode != 0 and "kai unit build llama_cpp" in refused.stderr, refused.stderr
    finally:
        shutil.move(moved, store)
        images.use("llama_cpp", first)


def test_an_image_removed_by_hand_comes_back(lab, contained, layer):
    podman = PODMAN.replace("kos-valkey", "kos-llama-cpp")
    lab.ssh(contained, f"{podman} image rm --all --force >/dev/null 2>&1")
    assert "nothing to do" not in lab.deploy(contained, *layer).stderr
    assert lab.healthy(contained)


@pytest.mark.long
def test_a_trust_tier_in_a_kernel_of_its_own(lab, contained, layer, tmp_path):
    path = tmp_path / "gvisor.yaml"
    path.write_text(LAYER.replace("substrate:", "sandbox: {trusted: gvisor}, substrate:"))
    group = "/sys/fs/cgroup/system.slice/kos-llama-cpp.service"
    processes = f"cat $(find {group} -name cgroup.procs) | xargs -n1 ps -o args= -p"
    assert "runsc" not in lab.ssh(contained, processes)
    lab.deploy(contained, "--profile", "development", "--site", str(path))
    assert "runsc-sandbox" in lab.ssh(contained, processes)
    assert served(lab, contained, "llama_cpp")
    # What a core service runs in is not asked to change.
    assert "runsc" not in lab.ssh(contained, processes.replace("llama-cpp", "valkey"))
    lab.deploy(contained, *layer)


@pytest.mark.long
def test_a_module_of_webassembly_runs(lab, contained):
    lab.ssh(contained, "apt-get -qq install -y --no-install-recommends wasmedge >/dev/null")
    module = base64.b64encode(printing(b"hello from a module\n")).decode()
    lab.ssh(
        contained,
        f"cd /tmp && echo {module} | base64 -d > app.wasm && tar -cf module.tar app.wasm && chmod 644 module.tar",
    )
    lab.ssh(contained, f"{PODMAN} import --change 'ENTRYPOINT [\"/app.wasm\"]' /tmp/module.tar localhost/module 2>&1")
    flags = "run --rm --network none --read-only --cap-drop all"
    wasm = "--runtime=/usr/bin/crun-wasm --annotation=module.wasm.image/variant=compat"
    assert lab.ssh(contained, f"{PODMAN} {flags} {wasm} localhost/module") == "hello from a module"
    # Control: without that runtime it is no program at all.
    assert "not executable" in lab.ssh(contained, f"{PODMAN} {flags} localhost/module 2>&1", check=False)


def test_what_is_dropped_leaves_no_user_and_no_storage(lab, contained, tmp_path):
    path = tmp_path / "less.yaml"
    path.write_text("services: {cache: redis, vector_db: null, llm_backend: null}\n")
    lab.deploy(contained, "--profile", "development", "--site", str(path))
    for left in ("ls /var/lib/containers", "getent passwd kos-llama-cpp", "grep kos-llama /etc/subuid"):
        assert lab.ssh(contained, left, check=False) == ""
    # The cache is a package again, with the data it had.
    assert "podman" not in lab.ssh(contained, "dpkg-query -W -f '${db:Status-Status} ${Package}\\n' | grep ^installed")
