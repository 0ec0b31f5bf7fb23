# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which TCP ports of an address answer, of all there are: run where a stranger to the node would stand.

python3 scan.py ADDRESS [PATIENCE [PORT…]]
"""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import Iterable

# As many at once, each for so many seconds: what a firewall drops says nothing.
AT_ONCE, PATIENCE = 3000, 1.0


async def answers(address: str, port: int, patience: float) -> bool:
    """Whether somebody accepts a connection there."""
    try:
        _reader, writer = await asyncio.wait_for(asyncio.open_connection(address, port), patience)
    except (TimeoutError, OSError):
        return False
    writer.close()
    return True


async def scan(address: str, ports: Iterable[int], patience: float) -> list[int]:
    """The ports that answer."""
    wanted = list(ports)
    waiting, found = iter(wanted), []

    async def some(nth: int) -> None:
        # Begun all at once, the first answers would be looked at when their time is already over.
        await asyncio.sleep(nth / AT_ONCE)
        for port in waiting:
            if await answers(address, port, patience):
                found.append(port)

    await asyncio.gather(*(some(nth) for nth in range(min(AT_ONCE, len(wanted)))))
    return sorted(found)


if __name__ == "__main__":
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, AT_ONCE + 100), hard))
    address, *rest = sys.argv[1:]
    wanted = map(int, rest[1:]) if rest[1:] else range(1, 65536)
    print(*asyncio.run(scan(address, wanted, float(rest[0]) if rest else PATIENCE)))
