# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rule usb-guard on a machine with USB: who was there stays, who comes later does nothing, an operator lets it in.

The tests of this module build on each other, in this order.
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
services: {cache: null, database: null, vector_db: null, gateway: null}
security: {hardening: {level: strict, off: [kernel-doors, modules-usb-storage]}}
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
    """A hardened node with a keyboard, under a kernel with USB."""
    layer = tmp_path_factory.mktemp("layers") / "site.yaml"
    layer.write_text(LAYER)
    vm.up("metal")
    vm.deploy("metal", "--profile", "development", "--site", str(layer))
    vm.ssh("metal", "sync")
    vm.cut_power("metal")
    vm.up("metal")
    vm.plug("metal", "usb-kbd", "keyboard")
    vm.ssh("metal", KERNEL)
    before = vm.ssh("metal", "cat /proc/sys/kernel/random/boot_id")
    vm.ssh("metal", "systemd-run --on-active=2 systemctl kexec")
    now = "cat /proc/sys/kernel/random/boot_id"
    wait_for(lambda: vm.ssh("metal", now, check=False) not in ("", before), vm.patience)
    return "metal"


def devices(vm, node):
    """What is plugged in, by name: whether the kernel may use it."""
    look = 'test ! -e $one/product || echo "$(cat $one/authorized) $(cat $one/product)"'
    said = vm.ssh(node, f"for one in /sys/bus/usb/devices/*; do {look}; done")
    rows = (row.split(" ", 1) for row in said.splitlines())
    return {name: authorized == "1" for authorized, name in rows}


def test_a_keyboard_that_was_there_is_let_in(vm, node):
    wait_for(lambda: vm.ssh(node, "systemctl is-active usbguard.service", check=False) == "active", 120)
    assert devices(vm, node)[KEYBOARD]
    assert KEYBOARD in vm.ssh(node, "cat /proc/bus/input/devices")


def test_a_device_that_comes_later_does_nothing(vm, node):
    vm.plug(node, "usb-mouse", "mouse")
    wait_for(lambda: MOUSE in devices(vm, node), 120)
    assert not devices(vm, node)[MOUSE]
    assert MOUSE not in vm.ssh(node, "cat /proc/bus/input/devices")


def test_the_keyboard_may_be_pulled_out_and_come_back(vm, node):
    vm.unplug(node, "keyboard")
    wait_for(lambda: KEYBOARD not in devices(vm, node), 120)
    vm.plug(node, "usb-kbd", "keyboard")
    wait_for(lambda: devices(vm, node).get(KEYBOARD), 120)


def test_an_operator_lets_a_device_in_for_good(vm, node):
    number = vm.ssh(node, f"usbguard list-devices --blocked | grep '{MOUSE}' | cut -d: -f1")
    vm.ssh(node, f"usbguard allow-device -p {number}")
    assert devices(vm, node)[MOUSE]
    assert MOUSE in vm.ssh(node, "cat /etc/usbguard/rules.conf")


def test_without_the_rule_everything_is_let_in(vm, node, tmp_path):
    layer = tmp_path / "site.yaml"
    layer.write_text(LAYER.replace("off: [", "off: [usb-guard, "))
    vm.deploy(node, "--profile", "development", "--site", str(layer))
    vm.plug(node, "usb-tablet", "tablet")
    wait_for(lambda: devices(vm, node).get("QEMU USB Tablet"), 120)
