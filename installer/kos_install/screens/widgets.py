# Copyright: (c) 2026, the kOS authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person moves among with the arrow keys: fields, choices, switches. Each shows where it is without colours."""

from __future__ import annotations

import textwrap
from typing import Any

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, OptionList, Static, TextArea
from textual.widgets.option_list import Option as Row

from .model import Option, Question
from .words import _

_ROOM = 55  # columns of 80 beside a question's label and an option's mark
_WIDE = 76  # the same where the label stands above
_MARK = 6  # of these an option's mark, and the scroll bar
_BEHIND = " " * 6

_MOVES: list[Binding | tuple[str, str] | tuple[str, str, str]] = [
    Binding("up", "app.focus_previous", show=False),
    Binding("down", "app.focus_next", show=False),
]


class Changed(Message):
    """A question was answered."""

    def __init__(self, question: Question, value: Any) -> None:
        self.question, self.value = question, value
        super().__init__()


class Entry(Input):
    """A line to type in, whose cursor stands still: blinking would keep a serial line busy."""

    def __init__(self, value: str = "", **more: Any) -> None:
        super().__init__(value, compact=True, **more)
        self.cursor_blink = False


class Field(Entry):
    """One line of text; a secret shows how long it is and nothing else."""

    BINDINGS = _MOVES

    def __init__(self, question: Question, value: str) -> None:
        super().__init__(value, password=question.kind == "secret", placeholder=question.hint)
        self.question = question

    def on_input_changed(self, event: Input.Changed) -> None:
        """Every key is kept."""
        event.stop()
        self.post_message(Changed(self.question, event.value))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter goes on to the next field."""
        event.stop()
        self.screen.focus_next()


class Lines(TextArea):
    """Some lines of text; Tab leaves it."""

    def __init__(self, question: Question, value: str) -> None:
        super().__init__(value, compact=True, tab_behavior="focus", soft_wrap=False, show_line_numbers=False)
        self.question = question
        self.cursor_blink = False

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        """Every key is kept."""
        event.stop()
        self.post_message(Changed(self.question, self.text))


class Choice(OptionList):
    """One of some, which moving chooses; or any of many, which the space bar marks."""

    LEAST = 11  # rows of a long one; look.tcss has them, too
    BINDINGS = [
        Binding("up", "up", show=False),
        Binding("down", "down", show=False),
        Binding("space", "mark", show=False),
        Binding("enter", "leave", show=False),
    ]

    def __init__(self, question: Question, value: Any) -> None:
        self.question, self._given = question, list(question.options)
        self._many = question.kind == "many"
        self._wide = _WIDE
        self.chosen: list[str] = list(value) if self._many else [value]
        super().__init__(*(Row(self._shown(one), disabled=bool(one.refused)) for one in self._given), compact=True)

    def on_mount(self) -> None:
        """Begin at what is chosen."""
        places = [number for number, one in enumerate(self._given) if one.value in self.chosen and not one.refused]
        self.highlighted = places[0] if places else None

    def on_resize(self, event: events.Resize) -> None:
        """Of what is long more can be seen, or less."""
        if self._many and event.size.width != self._wide:
            self._wide = event.size.width
            self._draw()

    def _shown(self, option: Option) -> Content:
        mark = "x" if self._many else "*"
        left, right = "[]" if self._many else "()"
        sign = mark if option.value in self.chosen else " "
        if option.refused:
            room = self._wide if self._many else _ROOM
            why_not = textwrap.fill(option.refused, room, initial_indent=_BEHIND, subsequent_indent=_BEHIND)
            return Content(f" -  {self._label(option)}\n{why_not}")
        return Content(f"{left}{sign}{right} {self._label(option)}")

    def _label(self, option: Option) -> str:
        if not self._many:
            return textwrap.fill(option.label, _ROOM, subsequent_indent=_BEHIND)
        room = self._wide - _MARK
        return option.label if len(option.label) <= room else f"{option.label[: room - 3]}..."

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Moving chooses, where one is chosen."""
        event.stop()
        if self._many or not self.has_focus:
            return
        self._choose(event.option_index)

    def _choose(self, place: int) -> None:
        value = self._given[place].value
        if [value] != self.chosen:
            self.chosen = [value]
            self._draw()
            self.post_message(Changed(self.question, value))

    def action_mark(self) -> None:
        """Mark, or unmark, where the cursor is."""
        if not self._many:
            self.action_leave()
        elif self.highlighted is not None:
            value = self._given[self.highlighted].value
            marked = {*self.chosen} ^ {value}
            self.chosen = [one.value for one in self._given if one.value in marked]
            self._draw()
            self.post_message(Changed(self.question, list(self.chosen)))

    def action_leave(self) -> None:
        """On to the next field; where none of some is chosen yet, that one first, which is in sight to be seen."""
        if self._many or not self._choosable() or any(value in self._choosable() for value in self.chosen):
            self.screen.focus_next()
        else:
            self.highlighted = self._edges()[0] if self.highlighted is None else self.highlighted
            self._choose(self.highlighted)

    def _choosable(self) -> list[str]:
        return [one.value for one in self._given if not one.refused]

    def action_up(self) -> None:
        """Up, and from the first on to what is above."""
        if self.highlighted in (None, self._edges()[0]):
            self.screen.focus_previous()
        else:
            self.action_cursor_up()

    def action_down(self) -> None:
        """Down, and from the last on to what is below."""
        if self.highlighted == self._edges()[1]:
            self.screen.focus_next()
        elif self.highlighted is None:
            self.highlighted = self._edges()[0]
        else:
            self.action_cursor_down()

    def _edges(self) -> tuple[int, int]:
        free = [number for number, one in enumerate(self._given) if not one.refused]
        return (free[0], free[-1]) if free else (0, 0)

    def _draw(self) -> None:
        for number, one in enumerate(self._given):
            self.replace_option_prompt_at_index(number, self._shown(one))


class Line(Static, can_focus=True):
    """A line that does something when Enter or the space bar is pressed on it."""

    BINDINGS = [*_MOVES, Binding("enter,space", "press", show=False)]

    class Pressed(Message):
        """It was."""

        def __init__(self, line: Line) -> None:
            self.line = line
            super().__init__()

    def action_press(self) -> None:
        """Say so."""
        self.post_message(self.Pressed(self))


class Switch(Line):
    """Yes or no."""

    def __init__(self, question: Question, value: bool) -> None:
        self.question, self.on = question, bool(value)
        super().__init__(self._shown())

    def _shown(self) -> Content:
        return Content(f"[{'x' if self.on else ' '}] {self.question.label}")

    def action_press(self) -> None:
        """Turn it over."""
        self.on = not self.on
        self.update(self._shown())
        self.post_message(Changed(self.question, self.on))


class Pick(Line):
    """One of a long list, which Enter opens."""

    def __init__(self, question: Question, value: str) -> None:
        self.question, self.value = question, value
        super().__init__(self._shown())

    def _shown(self) -> Content:
        label = next((one.label for one in self.question.options if one.value == self.value), self.value)
        return Content(f"{label or _('choose ...')}  [v]")

    def chose(self, value: str | None) -> None:
        """Take what was chosen from the list, if anything."""
        if value is not None:
            self.value = value
            self.update(self._shown())
            self.post_message(Changed(self.question, value))


class Asked(Horizontal):
    """A question: its label and what answers it."""

    def __init__(self, question: Question, value: Any) -> None:
        super().__init__(classes=f"asked {question.kind}")
        self.question, self._value = question, value

    def compose(self) -> ComposeResult:
        """The label at the left, but of a switch, which says itself what it is."""
        if self.question.kind != "switch":
            yield Static(Content(self.question.label), classes="label")
        yield answering(self.question, self._value)

    def on_descendant_focus(self) -> None:
        """The label says where one is, where a list has nothing chosen yet."""
        self.add_class("here")

    def on_descendant_blur(self) -> None:
        """Not here any more."""
        self.remove_class("here")


def answering(question: Question, value: Any) -> Widget:
    """The widget for a kind of question."""
    if question.kind == "switch":
        return Switch(question, value)
    if question.kind == "pick":
        return Pick(question, value)
    if question.kind == "lines":
        return Lines(question, value)
    if question.kind in {"choice", "many"}:
        return Choice(question, value)
    return Field(question, value[0] if isinstance(value, tuple) else value)
