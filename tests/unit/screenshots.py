# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every screen of the installer as text, reached by keys: `python tests/unit/screenshots.py` writes them again."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from pathlib import Path

import installs
from installs import CANARY, KEY, Told
from textual import events

from ansible_collections.kind.kos.plugins.plugin_utils.faults import Place
from ansible_collections.kind.kos.plugins.plugin_utils.models import parse
from kos_install.answers import Answers
from kos_install.engine import replay
from kos_install.screens import lists, words
from kos_install.screens.app import Installer
from kos_install.screens.terminal import look

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "screens"
SIZE = (80, 24)
MEDIUM = {
    "record": {"profile": "personal_node", "architecture": "amd64", "made": 1750000000, "version": "1.0.0"},
    "verification": {"state": "good", "total": 2 * 10**9, "done": 2 * 10**9, "signer": "maker", "said": []},
}
LANGUAGES = ("en", "de")


class Link:
    """What `kos_install.engine.client.Link` is, to an engine in this process."""

    def __init__(self, told):
        self.told, self.asked = told, []
        self._news = asyncio.Queue()
        for event in told.history.replay():
            self._news.put_nowait(event)
        self._known = len(told.events)

    async def send(self, do, **fields):
        """Ask, and pass on what is told."""
        self.asked.append({"do": do, **fields})
        self.told.ask(do, **fields)
        self.news()

    def news(self):
        """Pass on what was told since."""
        for event in self.told.events[self._known :]:
            self._news.put_nowait(event)
        self._known = len(self.told.events)

    async def events(self):
        """All of it."""
        while True:
            yield await self._news.get()

    def close(self):
        """Let go."""


class Walk:
    """A person at the screens, who has a keyboard."""

    def __init__(self, told, environ=None, size=SIZE, pictures=None, guest=False):
        self.link = Link(told)
        self.shots, self._pictures = {}, pictures
        environ = environ or {"TERM": "xterm-256color"}

        async def connect():
            return self.link

        self.app = Installer(connect, look(environ), local=not guest, guest=guest)
        self._context = self.app.run_test(size=size)

    async def __aenter__(self):
        self.pilot = await self._context.__aenter__()
        return self

    async def __aexit__(self, *error):
        await self._context.__aexit__(*error)

    def text(self):
        """What is on the screen."""
        strips = self.app.screen._compositor.render_strips(self.app.size)
        return "\n".join(strip.text.rstrip() for strip in strips) + "\n"

    async def until(self, text):
        """Wait for a text."""
        for _ in range(400):
            await self.pilot.pause(0.02)
            if text in self.text():
                return
        raise AssertionError(f"no {text!r} in:\n{self.text()}")

    async def press(self, *keys):
        """Press keys by their names, and wait for what they set to work."""
        await self.pilot.press(*keys)
        await self.pilot.pause()
        while not self.app.is_free:
            await self.pilot.pause(0.02)
        await self.pilot.pause()

    async def rush(self, *keys):
        """Press keys faster than anything is drawn."""
        for key in keys:
            self.app.post_message(events.Key(key, key if len(key) == 1 else None))
        await self.pilot.pause()

    async def type(self, text):
        """Type a text; what is long is pasted, as a person would."""
        if len(text) > 16:
            self.app.post_message(events.Paste(text))
            await self.pilot.pause()
        else:
            await self.press(*("space" if letter == " " else letter for letter in text))

    async def shoot(self, name):
        """Keep what is on the screen."""
        await self.pilot.pause()
        self.shots[name] = self.text()
        if self._pictures:
            (self._pictures / f"{name}.svg").write_text(self.app.export_screenshot())


async def walk(language, told=None, pictures=None, environ=None):
    """From the first screen to the last; each as text."""
    words.use("en")
    told = told or Told([*installs.RECORDED, {"kind": "converge", "fail": "the disk is full: take a larger one"}])
    told.history.add("medium", MEDIUM)
    async with Walk(told, environ, pictures=pictures) as person:
        say = words._
        await person.until("Verified")
        if language == "de":
            await person.press("down")
            await person.until("Willkommen")
        await person.shoot("welcome")
        await person.press("f1")
        await person.shoot("help")
        await person.press("escape", "f9")
        await person.shoot("tools")
        await person.press("escape", "ctrl+n")
        await person.until(say("This machine is big enough."))
        await person.shoot("profile")
        await person.press("ctrl+n")
        await person.until("WDC")
        await person.press("tab", "down", "down")
        await person.until(say("EVERYTHING ON THIS DISK IS LOST"))
        await person.shoot("disk")
        await person.press("ctrl+n")
        await person.until(say("Passphrase"))
        await person.type(CANARY)
        await person.press("tab")
        await person.type(CANARY)
        await person.shoot("encryption")
        await person.press("ctrl+n")
        await person.until("DHCP")
        await person.shoot("network")
        await person.press("down")
        await person.shoot("network_fixed")
        await person.press("up", "ctrl+n")
        await person.until(say("User name"))
        await person.press("tab", "tab", "tab", "tab")
        await person.type(KEY)
        await person.shoot("user")
        await person.press("ctrl+n")
        await person.until(say("Time zone"))
        await person.shoot("system")
        await person.press("tab", "enter")
        await person.type("berl")
        await person.shoot("search")
        await person.press("enter")
        await person.press("ctrl+n")
        await person.until("qdrant")
        await person.until(say("This machine is big enough."))
        await person.shoot("services")
        await person.press("ctrl+n")
        await person.until("kos-root")
        await person.shoot("review")
        await person.type("WDC WD20EFRX")
        await person.press("ctrl+n")
        await person.until("[x]")
        await person.shoot("failed")
        await person.press("f3")
        await person.shoot("log")
        await person.press("escape", "enter")
        await person.until(say("Recovery key"))
        await person.shoot("recovery_key")
        await person.press("enter")
        await person.until("SHA256")
        await person.shoot("done")
        return person


DOOR = {"addresses": ["192.0.2.7 (enp3s0)"], "fingerprint": f"SHA256:{'kOS' * 14}x", "password": "abcd-efgh-jkmn"}


async def elsewhere(language, pictures=None):
    """What not everybody meets: an interrupted install, somebody who installs over the network, a stop."""
    words.use("en")
    answers = parse(Answers, {**installs.ANSWERS, "language": language}, lambda _path: Place("answers"))
    world = replay.world(installs.DESK, installs.RECORDED, answers)
    told = Told(world=dataclasses.replace(world, door=lambda: DOOR))
    told.history.add("draft", {"answers": {"version": 1, "language": language}})
    async with Walk(told, pictures=pictures) as person:
        await person.until("/dev/sda")
        await person.shoot("resume")
        await person.press("tab", "tab", "enter")
        await person.shoot("start_over")
        await person.press("escape", "f9", "4")
        await person.until(DOOR["password"])
        await person.shoot("door")
        await person.press("escape", "shift+tab", "enter")
        await person.until("! ")
        await person.shoot("resume_refused")
        return person


def shots(language, pictures=None, environ=None):
    """Every screen in a language. The lists are those of this module, not of the machine that tests."""
    lists.locales.cache_clear()
    main_way = asyncio.run(walk(language, pictures=pictures, environ=environ)).shots
    return {**main_way, **asyncio.run(elsewhere(language, pictures)).shots}


def main():
    """Write every file, and drop those that are gone; with a folder, pictures as well."""
    pictures = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    for language in LANGUAGES:
        if pictures:
            (pictures / language).mkdir(parents=True, exist_ok=True)
        folder = FOLDER / language
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.txt"):
            path.unlink()
        for name, text in shots(language, pictures / language if pictures else None).items():
            (folder / f"{name}.txt").write_text(text)


if __name__ == "__main__":
    os.environ["KOS_SITE_LOCK"] = os.devnull
    main()
