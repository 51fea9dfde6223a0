"""The command itself: every check, its report, and how it ends."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from itertools import groupby
from typing import TYPE_CHECKING

import psycopg
from rich.table import Table
from rich.text import Text

from metafield_sync import logs
from metafield_sync.cli.doctor.asking import ask_all, check_keys
from metafield_sync.cli.doctor.database_checks import check_clock, check_database, check_pooler, database_url
from metafield_sync.cli.doctor.findings import LEVELS, Finding, counted
from metafield_sync.cli.doctor.look import look
from metafield_sync.cli.doctor.shop_checks import check_shop, is_anybody_waiting
from metafield_sync.cli.output import say, show_json, stderr, stdout
from metafield_sync.cli.parts import DONE, FAILURES, WRONG, JsonOption
from metafield_sync.settings import Settings, SettingsInvalid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from metafield_sync.cli.doctor.look import Figures

STYLES = {"ok": "green", "warn": "yellow", "wrong": "bold red"}


async def doctor(*, json: JsonOption = False) -> int:
    """Tell in plain words what is wrong, and what to do. Looks only: nothing is changed, not even the schema.

    Settings, database, keys, every shop's token, metafield definition and changes that wait, workers and schedules.
    Exit status 0 if nothing is wrong (what is odd is named all the same), 1 if something is, 2 if that is a setting, so
    that no other command runs either.
    """
    with stderr().status("Looking …"):
        findings = await _examine()
    if json:
        worst = max((finding.level for finding in findings), key=LEVELS.index)
        show_json({"status": worst, "checks": [finding.document() for finding in findings]})
    else:
        _tell(findings)
    wrong = [finding for finding in findings if finding.level == "wrong"]
    return (WRONG if any(one.by_setting for one in wrong) else FAILURES) if wrong else DONE


async def _examine() -> list[Finding]:
    """Check one thing after another, as far as each lets the next be checked."""
    try:
        settings = Settings.load()
    except SettingsInvalid as error:
        return [Finding("settings", "wrong", error.detail, "Put it right in the environment.", by_setting=True)]
    logs.configure(settings, level=settings.log_level if "log_level" in settings.model_fields_set else "error")
    findings = [Finding("settings", "ok", "Every setting can be read.")]
    async with AsyncExitStack() as stack:
        where = database_url(settings)
        found = await asyncio.to_thread(where.__enter__)
        stack.push_async_callback(asyncio.to_thread, where.__exit__, None, None, None)
        if isinstance(found, Finding):
            return [*findings, found]
        findings += await asyncio.to_thread(check_database, settings, found)
        if any(finding.level == "wrong" and finding.check != "owner" for finding in findings):
            return [*findings, Finding("shops", "warn", "Not looked at: first the database has to be put right.")]
        try:
            figures = await look(found)
        except psycopg.Error as error:
            reason = str(error).splitlines()[0]
            return [*findings, Finding("database", "wrong", f"It broke off while being read: {reason}", "Try again.")]
    return [*findings, *await _examine_fleet(settings, figures)]


async def _examine_fleet(settings: Settings, figures: Figures) -> list[Finding]:
    shops = [one.shop for one in figures.shops]
    findings = [
        check_pooler(pooled=figures.pooled),
        check_clock(figures.ahead_s),
        check_keys(settings, shops),
        _check_workers(figures),
    ]
    if not shops:
        cure = "Add one: metafield-sync shops add NAME.myshopify.com --access-token -"
        return [*findings, Finding("shops", "warn", "No shop has been added yet.", cure)]
    answers = await ask_all(settings, shops)
    for one, answered in zip(figures.shops, answers, strict=True):
        findings += [*answered, *check_shop(settings, one, figures.now)]
    return findings


def _check_workers(figures: Figures) -> Finding:
    if figures.workers:
        alive = f"{counted(figures.workers, 'worker is', 'workers are')} alive."
        return Finding("workers", "ok", alive)
    waiting = any(is_anybody_waiting(one) for one in figures.shops)
    found = "No worker is alive: nothing is pushed, verified or reconciled by itself"
    return Finding(
        "workers",
        "wrong" if waiting else "warn",
        f"{found}, and somebody waits for it." if waiting else f"{found}.",
        "Start one: metafield-sync worker, or metafield-sync serve, which has one beside it.",
    )


def _tell(findings: Sequence[Finding]) -> None:
    for shop, group in groupby(findings, key=lambda finding: finding.shop):
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(min_width=5, no_wrap=True)
        table.add_column(min_width=11, no_wrap=True)
        table.add_column(overflow="fold")
        for finding in group:
            table.add_row(Text(finding.level, STYLES[finding.level]), finding.check, finding.found)
            if finding.cure is not None:
                table.add_row("", "", f"→ {finding.cure}")
        if shop is not None:
            say(f"\n{shop}")
        stdout().print(table)
    counts = {level: sum(finding.level == level for finding in findings) for level in LEVELS}
    say(f"\n{counts['wrong']:,} wrong, {counts['warn']:,} to look at, {counts['ok']:,} well.")
