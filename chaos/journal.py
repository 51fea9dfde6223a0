"""What the harness did and saw, in order: told at the end for customers that came out wrong."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to one customer, or to all of them (None). `at_s`: seconds since 1970."""

    at_s: float
    customer: int | None
    text: str


@dataclass(slots=True)
class Journal:
    """Events as they come, and whatever went against what the interface promises."""

    events: list[Event] = field(default_factory=list[Event])
    wrongs: Counter[str] = field(default_factory=Counter[str])

    def note(self, text: str, customer: int | None = None) -> None:
        """Write down that something happened now."""
        self.events.append(Event(time.time(), customer, text))

    def wrong(self, text: str) -> None:
        """Write down something that must not happen, whatever goes wrong elsewhere."""
        self.events.append(Event(time.time(), None, f"WRONG: {text}"))
        self.wrongs[text] += 1

    def told_wrongs(self) -> list[str]:
        """What was wrong, each once."""
        return [text if count == 1 else f"{text} ({count} times)" for text, count in self.wrongs.items()]
