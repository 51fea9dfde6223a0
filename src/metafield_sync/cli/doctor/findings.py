"""What a check found: well, odd or wrong, in plain words, with the cure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["ok", "warn", "wrong"]
LEVELS: tuple[Level, ...] = ("ok", "warn", "wrong")
"""From good to bad."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    `cure` says what to do; None: nothing. `shop`: its domain; None: it concerns all. `by_setting`: while this is wrong,
    no other command runs either, because a setting is wrong or what it names is of no use.
    """

    check: str
    level: Level
    found: str
    cure: str | None = None
    shop: str | None = None
    by_setting: bool = False

    def document(self) -> dict[str, Any]:
        """As `--json` shows it."""
        return {
            "check": self.check,
            "shop": self.shop,
            "status": self.level,
            "found": self.found,
            "cure": self.cure,
        }


def counted(number: int, what: str, whats: str | None = None) -> str:
    """A number with its noun: 1 customer, 1,000 customers."""
    return f"{number:,} {what if number == 1 else whats or f'{what}s'}"


def without_name(text: str, domain: str) -> str:
    """An error without the shop it begins with, where that is said already."""
    return text.removeprefix(f"{domain}: ")


def lasting(seconds: float) -> str:
    """A length of time, in the largest unit that leaves a number worth reading."""
    for unit, length_s in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * length_s:
            return counted(int(seconds // length_s), unit)
    return counted(int(seconds), "second")
