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
from collections.abc import Callable
from typing import Any, TypeVar

from textual import events, work
from textual.app import App
from textual.message_pump import MessagePump
from textual.screen import Screen

from .frame import Framed
from .works import Works

# Seconds: no key waits longer for the one before it.
_LONGEST = 60.0
# Whoever is closed meanwhile answers nothing.
_GONE = 5.0
# What is over sooner is over at once for whoever looks, and need not be sent over a slow line.
_SAID_AFTER = 0.1
_COUNTS_EVERY = 1.0

Typed = events.Key | events.Paste
_BESIDE = "beside"
Made = TypeVar("Made")


class InTurn(App[None]):
    """An app whose keys wait for one another. `answer_keys` has to be called once, when it is mounted.

    What is slow is done `beside` the screens: they say what it is, and the next key waits for its end as well.
    """

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.works = Works()
        self._typed: asyncio.Queue[Typed] = asyncio.Queue()
        self._free = asyncio.Event()
        self._free.set()
        self._besides = 0

    @property
    def is_free(self) -> bool:
        """Whether nothing is done beside the screens that a key has to wait for."""
        return self._free.is_set()

    def beside(self, said: str, work: Callable[[], Made], then: Callable[[Made], object]) -> None:
        """Do something slow in a thread, which `said` names; then, on the screen, what follows from it."""
        self._besides += 1
        self._free.clear()
        self.begin(_BESIDE, said)
        self.run_worker(self._beside(work, then), group=_BESIDE)

    async def _beside(self, work: Callable[[], Made], then: Callable[[Made], object]) -> None:
        try:
            # What follows may be slow itself: a key waits for the end of that, too.
            then(await asyncio.to_thread(work))
        finally:
            self._besides -= 1
            if not self._besides:
                self.works.end(_BESIDE)
                self._free.set()
                self.say_works()

    def begin(self, name: str, said: str) -> None:
        """It takes its time: say so, and for how long."""
        self.works.begin(name, said)
        self.set_timer(_SAID_AFTER, self.say_works)

    def say_works(self) -> None:
        """Show what is worked on, or the keys where nothing is."""
        for screen in self.screen_stack:
            if isinstance(screen, Framed) and screen.is_mounted:
                screen.keyline()

    async def on_event(self, event: events.Event) -> None:
        """Keep what is typed; all else is dealt with at once."""
        if isinstance(event, Typed) and not event.is_forwarded:
            self._typed.put_nowait(event)
        else:
            await super().on_event(event)

    @work(group="keys")
    async def answer_keys(self) -> None:
        """Answer one key after the other, for as long as the app lives."""
        self.set_interval(_COUNTS_EVERY, self.say_works)
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
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._free.wait(), _LONGEST)
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
