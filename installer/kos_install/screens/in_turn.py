# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys, one after another: what one does is done before the next is looked at, however slow the machine.

Textual hands a key to whatever has the focus when the key is read. What Tab, or a page that is being made, does to the
focus comes later than the next key then, and that would be typed into the field before, or press a button that nobody
has seen.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from textual import events, work
from textual.app import App
from textual.message_pump import MessagePump
from textual.screen import Screen

from .frame import Framed

# Seconds: no key waits longer for the one before it.
_LONGEST = 60.0
# Whoever is closed meanwhile answers nothing.
_GONE = 5.0

Typed = events.Key | events.Paste


class InTurn(App[None]):
    """An app whose keys wait for one another. `answer_keys` has to be called once, when it is mounted."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self._typed: asyncio.Queue[Typed] = asyncio.Queue()

    async def on_event(self, event: events.Event) -> None:
        """Keep what is typed; all else is dealt with at once."""
        if isinstance(event, Typed) and not event.is_forwarded:
            self._typed.put_nowait(event)
        else:
            await super().on_event(event)

    @work(group="keys")
    async def answer_keys(self) -> None:
        """Answer one key after the other, for as long as the app lives."""
        while True:
            typed = await self._typed.get()
            page = self.screen
            await _drawn(page)
            if isinstance(page, Framed) and page.must_be_seen and typed.time < page.seen:
                continue
            asked = self.focused or page
            await super().on_event(typed)
            # It goes up from there to the app, and each may have something to do.
            for one in asked.ancestors_with_self:
                await _idle(one)
            if self.screen is not page:
                await _drawn(self.screen)


async def _idle(pump: MessagePump) -> None:
    done = asyncio.Event()
    if pump.call_later(done.set):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), _GONE)


async def _drawn(screen: Screen[object]) -> None:
    """Until it stands on the screen."""
    if isinstance(screen, Framed) and screen.is_seen:
        return
    done = asyncio.Event()
    if screen.call_after_refresh(done.set):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), _LONGEST)
