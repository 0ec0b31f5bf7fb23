# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only a machine with a kernel of its own can have of hardening and intrusion detection: sysctls, audit, USB.

The tests of this module build on each other, in this order, because booting takes long.
"""

from __future__ import annotations

import os

import pytest
from labnodes import wait_for
from vmnodes import VmLab, unavailable

REASON = unavailable()
pytestmark = [
    pytest.mark.long,
    pytest.mark.vm,
    pytest.mark.skipif(bool(REASON), reason=f"no virtual node: {REASON}"),
]

# Nothing but what the node itself is made of, and a kernel that may start another.
LAYER = """
services: {cache: null, database: null, vector_db: null, gateway: null, intrusion_detection: null}
security:
  audit_logging: comprehensive
  hardening: {level: strict, off: [kernel-doors, modules-usb-storage]}
"""
# The lab's kernel is one for clouds and knows no USB: this one does, and is started by the running one.
KERNEL = """
export DEBIAN_FRONTEND=noninteractive
apt-get -qq -y install --no-install-recommends linux-image-amd64 kexec-tools > /dev/null
version=$(ls /boot | sed -n 's/^vmlinuz-\\([0-9.+deb-]*-amd64\\)$/\\1/p' | tail -n 1)
kexec -l "/boot/vmlinuz-$version" --initrd="/boot/initrd.img-$version" --reuse-cmdline
"""
KEYBOARD, MOUSE = "QEMU USB Keyboard", "QEMU USB Mouse"


@pytest.fixture(scope="module")
def vm():
    made = VmLab(f"usb{os.getpid()}")
    yield made
    made.kai("lab", "down")


@pytest.fixture(scope="module")
def node(vm, tmp_path_factory):
    """A hardened node that is audited."""
    layer = tmp_path_factory.mktemp("layers") / "site.yaml"
    layer.write_text(LAYER)
    vm.up("metal")
    vm.deploy("metal", "--profile", "development", "--site", str(layer))
    return "metal"


@pytest.fixture(scope="module")
def plugged(vm, node):
    """The node under a kernel with USB, with a keyboard."""
    vm.ssh(node, "sync")
    vm.cut_power(node)
    vm.up(node)
    vm.plug(node, "usb-kbd", "keyboard", 1)
    vm.ssh(node, KERNEL)
    look = "cat /proc/sys/kernel/random/boot_id"
    before = vm.ssh(node, look)
    vm.ssh(node, "systemd-run --on-active=2 systemctl kexec")
    wait_for(lambda: vm.ssh(node, look, check=False) not in ("", before), vm.patience)
    return node


def test_its_kernel_takes_every_setting(vm, node):
    assert vm.status(node)["not_set_here"] == []
    assert vm.ssh(node, "sysctl -n kernel.kptr_restrict kernel.yama.ptrace_scope fs.protected_fifos") == "2\n1\n2"
    assert "dccp" not in vm.ssh(node, "modprobe dccp; cut -d' ' -f1 /proc/modules", check=False).split()
    assert vm.ssh(node, "systemctl --failed --plain --no-legend") == ""


def test_a_change_of_an_account_is_in_the_trail_with_who_made_it(vm, node):
    assert vm.healthy(node)
    vm.ssh(node, "usermod --comment 'Nobody at all' nobody")
    found = "ausearch --input-logs -k who -x usermod --format text"
    assert "/etc/passwd" in vm.ssh(node, found) and "root" in vm.ssh(node, found)


def test_the_trail_is_roots_alone_and_its_daemon_is_confined(vm, node):
    assert vm.ssh(node, "stat -c '%U %a' /var/log/audit /var/log/audit/audit.log") == "root 700\nroot 600"
    assert (
        float(
            vm.ssh(node, "systemd-analyze security --no-pager kos-auditd | sed -n 's/.*level.*: \\([0-9.]*\\).*/\\1/p'")
        )
        <= 2
    )


def test_an_audit_that_root_switches_off_is_seen(vm, node):
    figure = "grep ^kos_audit_written /var/lib/kos/metrics/kos.prom"
    wait_for(lambda: vm.ssh(node, figure, check=False) == "kos_audit_written 1", 300)
    vm.ssh(node, "auditctl -e 0")
    wait_for(lambda: vm.ssh(node, figure, check=False) == "kos_audit_written 0", 300)
    vm.ssh(node, "auditctl -e 1")


def devices(vm, node):
    """What is plugged in, by name: whether the kernel may use it."""
    look = 'test ! -e $one/product || echo "$(cat $one/authorized) $(cat $one/product)"'
    said = vm.ssh(node, f"for one in /sys/bus/usb/devices/*; do {look}; done")
    rows = (row.split(" ", 1) for row in said.splitlines())
    return {name: authorized == "1" for authorized, name in rows}


def test_a_keyboard_that_was_there_is_let_in(vm, plugged):
    wait_for(lambda: vm.ssh(plugged, "systemctl is-active usb-guard.service", check=False) == "active", 120)
    assert devices(vm, plugged)[KEYBOARD]
    assert KEYBOARD in vm.ssh(plugged, "cat /proc/bus/input/devices")


def test_a_device_that_comes_later_does_nothing(vm, plugged):
    vm.plug(plugged, "usb-mouse", "mouse", 2)
    wait_for(lambda: MOUSE in devices(vm, plugged), 120)
    assert not devices(vm, plugged)[MOUSE]
    assert MOUSE not in vm.ssh(plugged, "cat /proc/bus/input/devices")


def test_the_keyboard_may_come_back_to_its_port(vm, plugged):
    vm.unplug(plugged, "keyboard")
    wait_for(lambda: KEYBOARD not in devices(vm, plugged), 120)
    vm.plug(plugged, "usb-kbd", "keyboard", 1)
    wait_for(lambda: devices(vm, plugged).get(KEYBOARD), 120)


def test_an_operator_lets_a_device_in_for_good(vm, plugged):
    number = vm.ssh(plugged, f"usbguard list-devices --blocked | grep '{MOUSE}' | cut -d: -f1")
    vm.ssh(plugged, f"usbguard allow-device -p {number}")
    assert devices(vm, plugged)[MOUSE]
    assert MOUSE in vm.ssh(plugged, "cat /etc/usbguard/rules.conf")


def test_without_the_rule_everything_is_let_in(vm, plugged, tmp_path):
    layer = tmp_path / "site.yaml"
    layer.write_text(LAYER.replace("off: [", "off: [usb-guard, "))
    vm.deploy(plugged, "--profile", "development", "--site", str(layer))
    vm.plug(plugged, "usb-tablet", "tablet", 3)
    wait_for(lambda: devices(vm, plugged).get("QEMU USB Tablet"), 120)
