# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on a lab node, as a program that uses the bus there would; nats-py lies beside it.

Usage: nats_client.py create|leader|write SECONDS FIRST|read|try. A writer ends sooner where STOP appears.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import ssl
import sys
import time
from pathlib import Path

import nats
from nats.errors import Error
from nats.js.api import AckPolicy, ConsumerConfig, StorageType, StreamConfig

STREAM, SUBJECT = "numbers", "numbers.written"
CERTIFICATE = Path("/root/client")
STOP = Path("/root/bus/stop")
PATIENCE = 10  # attempts
WRITERS = 16


async def unsaid(_error):
    """A member that dies is what the test is about."""


async def connect():
    """A connection as the user kos, with a certificate of this node's authority."""
    context = ssl.create_default_context(cafile=CERTIFICATE / "ca.crt")
    context.load_cert_chain(CERTIFICATE / "tls.crt", CERTIFICATE / "tls.key")
    text = Path("/run/credentials/kos-nats.service/authorization").read_text()
    password = re.search(r'password: "([^"]+)"', text)[1]
    return await nats.connect(
        "tls://127.0.0.1:4222", user="kos", password=password, tls=context, max_reconnect_attempts=-1,
        error_cb=unsaid,
    )  # fmt: skip


async def create(bus):
    """The stream, three times over, on disk."""
    config = StreamConfig(STREAM, subjects=[SUBJECT], num_replicas=3, storage=StorageType.FILE)
    await bus.jetstream().add_stream(config)


async def patiently(ask):
    """The answer to a question that nobody answers while members choose a leader."""
    for _attempt in range(PATIENCE):
        with contextlib.suppress(Error):
            return await ask()
        await asyncio.sleep(1)
    raise TimeoutError("there is no leader")


async def known(stream):
    """What the stream says of itself."""
    return await patiently(lambda: stream.stream_info(STREAM))


async def leader(bus):
    """Who leads the stream, and which other members have all of it."""
    cluster = (await known(bus.jetstream())).cluster
    level = [row.name for row in cluster.replicas or [] if row.current and not row.offline]
    print(json.dumps({"leader": cluster.leader, "level": level}))


async def write(bus, seconds, first):
    """Number after number; a number is written again until it is acknowledged, and prints those that are."""
    stream, end = bus.jetstream(), time.monotonic() + float(seconds)
    state = {"next": int(first) - 1, "repeated": 0, "gap": 0.0, "last": time.monotonic()}
    acknowledged = []

    async def one():
        while time.monotonic() < end and not STOP.exists():
            state["next"] += 1
            number = str(state["next"])
            while True:
                try:
                    # The id lets the stream drop the copy of a number whose acknowledgement alone was lost.
                    await stream.publish(SUBJECT, number.encode(), timeout=2, headers={"Nats-Msg-Id": number})
                except (Error, OSError):
                    state["repeated"] += 1
                    if time.monotonic() > end:
                        return
                    await asyncio.sleep(0.05)
                    continue
                break
            now = time.monotonic()
            state["gap"], state["last"] = max(state["gap"], now - state["last"]), now
            acknowledged.append((int(number), round(now - end + float(seconds), 2)))

    await asyncio.gather(*(one() for _writer in range(WRITERS)))
    print(json.dumps({"acknowledged": acknowledged, "repeated": state["repeated"], "gap": round(state["gap"], 2)}))


async def read(bus):
    """Every number that is stored, in the stream's order."""
    stream = bus.jetstream()
    expected = (await known(stream)).state.messages
    wanted = ConsumerConfig(ack_policy=AckPolicy.NONE, inactive_threshold=60)
    subscription = await patiently(lambda: stream.pull_subscribe(SUBJECT, stream=STREAM, config=wanted))
    found = []
    while len(found) < expected:
        batch = await subscription.fetch(min(1000, expected - len(found)), timeout=20)
        found += [int(message.data) for message in batch]
    print(json.dumps(found))


async def attempt(bus):
    """Whether one number is acknowledged within 5 s."""
    try:
        await bus.jetstream().publish(SUBJECT, b"0", timeout=5)
        print("acknowledged")
    except (Error, OSError):
        print("not acknowledged")


async def main(verb, *arguments):
    """Run one verb."""
    bus = await connect()
    verbs = {"create": create, "leader": leader, "write": write, "read": read, "try": attempt}
    await verbs[verb](bus, *arguments)
    await bus.close()


asyncio.run(main(*sys.argv[1:]))
