"""Going on errands: some of one shop's, one worker at a time, by its lease and within its API budget.

An errand is claimed by a time, so one whose worker was killed is gone on again by itself, and it is done when it was
wished for no more often than when it was claimed.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, LiteralString

import structlog

from metafield_sync.db.database import again_after_deadlock
from metafield_sync.shopify import OutcomeUnknown, Throttled, Unreachable
from metafield_sync.shops.vault import TokenUnreadable
from metafield_sync.sync.drain import ShopBusy, ShopPaused
from metafield_sync.sync.error_text import error_text
from metafield_sync.sync.lease import LeaseLost
from metafield_sync.sync.turn import ShopStops

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from metafield_sync.db.database import Database, ShopId
    from metafield_sync.sync.drain import Mirror
    from metafield_sync.sync.errands import ErrandKind
    from metafield_sync.sync.turn import Turn

ERRANDS_TURN_S = 1.0
"""After so long nothing more is begun in a turn: pushing balances matters more, and needs the same lease."""
LEASE_WAIT_S = 15.0
"""How long a drain at work is waited for. Its turn ends after 10 s."""
CLAIM_S = 60
"""How long a claim is good for: so much later an errand whose worker was killed is gone on again."""
RETRY_FIRST_S = 5
RETRY_LAST_S = 3_600
"""An errand that fails is tried again after 5 s, then 10 s … at last every hour, each up to a quarter longer by chance,
for as long as it takes."""
TOGETHER_FAILURES_MAX = 2
"""Subjects that have failed so often are gone on one by one: one that can never be done then holds up no others."""

End = Literal["idle", "turn_over", "busy", "paused", "trouble"]

log = structlog.get_logger()


@dataclass(slots=True)
class ErrandReport:
    """What one round came to, in subjects. `detail` explains an `end` of busy, paused or trouble.

    `end`: `idle` nothing left that is due; `turn_over` there may be more; `busy` others hold the shop; `paused` nothing
    may be asked for the shop; `trouble` Shopify does not answer.
    """

    end: End = "idle"
    done: int = 0
    again: int = 0
    failed: int = 0
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class _Batch:
    """Errands of one kind in hand: subjects, and how often each was wished for when they were claimed."""

    shop_id: ShopId
    kind: ErrandKind
    wishes: Mapping[str, int]
    until: datetime

    @property
    def subjects(self) -> list[str]:
        return list(self.wishes)


async def go_on_errands(mirror: Mirror, shop_id: ShopId, kinds: Mapping[str, ErrandKind]) -> ErrandReport:
    """Go on what is due in a shop, until nothing is or the turn is over. Trouble is noted and reported, not raised.

    Args:
        mirror: the shop's lease, budget and access.
        shop_id: whose errands.
        kinds: by name. An errand of any other kind is left for whoever knows it.

    Raises:
        DatabaseUnusable: the database is gone; claims end by themselves.
    """
    report = ErrandReport()
    due, is_held = await _due_kinds(mirror.db, shop_id, list(kinds))
    known = [kinds[name] for name in due if kinds[name].even_if_held or not is_held]
    for kind in known:
        if kind.run_without_turn is not None and report.end == "idle":
            await _without_turn(mirror, shop_id, kind, report)
    with_turn = [kind for kind in known if kind.run is not None]
    if not with_turn or report.end != "idle":
        return report
    try:
        async with mirror.short_turn(shop_id, wait_s=LEASE_WAIT_S, even_if_held=is_held) as turn:
            await _in_turn(turn, with_turn, report)
    except ShopPaused as paused:
        report.end, report.detail = "paused", paused.detail
    except (ShopBusy, LeaseLost) as busy:
        report.end, report.detail = "busy", busy.detail
    except (TokenUnreadable, Unreachable) as unusable:
        # No fault of the errand's, nor of the shop's: others may hold the right key, or Shopify answer again.
        report.end, report.detail = "trouble", unusable.detail
    return report


async def _due_kinds(db: Database, shop_id: ShopId, known: Sequence[str]) -> tuple[list[str], bool]:
    """The kinds that are due, longest first, and whether the shop is held, so that only some of them may be done."""
    async with db.shop(shop_id) as conn, conn.cursor() as cur:
        await cur.execute(DUE_KINDS, {"shop": shop_id, "kinds": known})
        rows = await cur.fetchall()
    return [kind for kind, _ in rows], any(is_held for _, is_held in rows)


DUE_KINDS = """
select e.kind, s.status <> 'active' or s.hold is not null as is_held
from errands e
join shops s on s.id = e.shop_id and s.status <> 'removed'
where
  e.shop_id = %(shop)s
  and e.kind = any (%(kinds)s)
  and e.due_at <= clock_timestamp()
  and (e.claimed_until is null or e.claimed_until <= clock_timestamp())
group by e.kind, s.status, s.hold
order by min(e.due_at)
"""


async def _without_turn(mirror: Mirror, shop_id: ShopId, kind: ErrandKind, report: ErrandReport) -> None:
    assert kind.run_without_turn is not None, "the caller looks"  # noqa: S101 - the kind says so itself
    batch = await _claim(mirror.db, shop_id, kind)
    if batch is None:
        return
    try:
        again = await kind.run_without_turn(mirror, shop_id, batch.subjects)
    except asyncio.CancelledError:
        await asyncio.shield(_give_back(mirror.db, batch))
        raise
    except Exception as error:  # noqa: BLE001 - whatever it was, it is on record, and tried again
        await _note_failure(mirror.db, batch, error, report)
        return
    await _finish(mirror.db, batch, again, report)


async def _in_turn(turn: Turn, kinds: Sequence[ErrandKind], report: ErrandReport) -> None:
    """Batch after batch, kind after kind, while there is time and Shopify answers."""
    began = time.monotonic()
    for kind in kinds:
        while (batch := await _claim(turn.db, turn.shop.id, kind)) is not None:
            await _run(turn, batch, report)
            if report.end == "idle" and time.monotonic() - began > ERRANDS_TURN_S:
                report.end = "turn_over"
            if report.end != "idle":
                return


async def _run(turn: Turn, batch: _Batch, report: ErrandReport) -> None:
    assert batch.kind.run is not None, "the caller looks"  # noqa: S101 - the kind says so itself
    try:
        again = await batch.kind.run(turn, batch.subjects)
    except (ShopStops, LeaseLost, asyncio.CancelledError):
        # Nothing is wrong with the errand: its shop is refused as a whole, or another process has taken over.
        await asyncio.shield(_give_back(turn.db, batch))
        raise
    except Exception as error:  # noqa: BLE001 - whatever it was, it is on record, and tried again
        await _note_failure(turn.db, batch, error, report)
        return
    await _finish(turn.db, batch, again, report)


async def _claim(db: Database, shop_id: ShopId, kind: ErrandKind) -> _Batch | None:
    parameters = {
        "shop": shop_id,
        "kind": kind.name,
        "most": kind.batch_max,
        "together": TOGETHER_FAILURES_MAX,
        "claim": CLAIM_S,
    }
    async with db.shop(shop_id) as conn, conn.cursor() as cur:
        await cur.execute(CLAIM_ERRANDS, parameters)
        rows = await cur.fetchall()
    if not rows:
        return None
    return _Batch(shop_id, kind, {subject: wish for subject, wish, _ in rows}, rows[0][2])


# The one that has waited longest, and others beside it; by itself if it has failed again and again. The time is the
# statement's, one for all rows, so that the batch is known by it.
CLAIM_ERRANDS = """
with due as (
  select e.subject, e.due_at, e.attempts
  from errands e
  where
    e.shop_id = %(shop)s
    and e.kind = %(kind)s
    and e.due_at <= statement_timestamp()
    and (e.claimed_until is null or e.claimed_until <= statement_timestamp())
  order by e.due_at
  limit %(most)s
  for no key update skip locked
),
first as (
  select d.subject, d.attempts from due d order by d.due_at, d.subject limit 1
)
update errands e
set claimed_until = statement_timestamp() + make_interval(secs => %(claim)s)
from due d
cross join first f
where
  e.shop_id = %(shop)s
  and e.kind = %(kind)s
  and e.subject = d.subject
  and (d.subject = f.subject or (f.attempts < %(together)s and d.attempts < %(together)s))
returning e.subject, e.wish, e.claimed_until
"""


async def _finish(db: Database, batch: _Batch, again: Mapping[str, float], report: ErrandReport) -> None:
    """Remove what is done, put off what goes on, and leave due what was wished for meanwhile."""
    parameters = {
        "shop": batch.shop_id,
        "kind": batch.kind.name,
        "until": batch.until,
        "subjects": batch.subjects,
        "wishes": list(batch.wishes.values()),
        "agains": [again.get(subject) for subject in batch.wishes],
    }
    # Each waits for whoever wishes for one of them at this moment, and then counts that wish.
    await _record(db, batch.shop_id, parameters, REMOVE_DONE, PUT_OFF)
    report.again += len(again)
    report.done += len(batch.wishes) - len(again)
    log.debug("errands", shop_id=batch.shop_id, kind=batch.kind.name, subjects=len(batch.wishes), again=len(again))


REMOVE_DONE = """
delete from errands e
using unnest(%(subjects)s::text[], %(wishes)s::integer[], %(agains)s::double precision[]) as t (subject, wish, again)
where
  e.shop_id = %(shop)s
  and e.kind = %(kind)s
  and e.subject = t.subject
  and e.claimed_until = %(until)s
  and e.wish = t.wish
  and t.again is null
"""

PUT_OFF = """
update errands e
set
  due_at = case when e.wish = t.wish then clock_timestamp() + make_interval(secs => t.again) else e.due_at end,
  attempts = 0,
  claimed_until = null,
  failing_since = null,
  error = null
from unnest(%(subjects)s::text[], %(wishes)s::integer[], %(agains)s::double precision[]) as t (subject, wish, again)
where e.shop_id = %(shop)s and e.kind = %(kind)s and e.subject = t.subject and e.claimed_until = %(until)s
"""


async def _note_failure(db: Database, batch: _Batch, error: Exception, report: ErrandReport) -> None:
    """Note when to try again, and whether to go on with others: not if it is Shopify that does not answer."""
    text = error_text(error)
    parameters = {
        "shop": batch.shop_id,
        "kind": batch.kind.name,
        "until": batch.until,
        "subjects": batch.subjects,
        "error": text,
        "first": RETRY_FIRST_S,
        "last": RETRY_LAST_S,
    }
    await _record(db, batch.shop_id, parameters, NOTE_FAILURE)
    report.failed += len(batch.wishes)
    if isinstance(error, Unreachable | OutcomeUnknown | Throttled):
        report.end, report.detail = "trouble", text
    log.warning("errands failed", shop_id=batch.shop_id, kind=batch.kind.name, subjects=len(batch.wishes), error=text)


NOTE_FAILURE = """
update errands e
set
  due_at = clock_timestamp()
    + make_interval(secs => least(%(first)s * 2 ^ least(e.attempts, 20), %(last)s) * (1 + random() * 0.25)),
  attempts = e.attempts + 1,
  claimed_until = null,
  failing_since = coalesce(e.failing_since, clock_timestamp()),
  error = %(error)s
where
  e.shop_id = %(shop)s
  and e.kind = %(kind)s
  and e.subject = any (%(subjects)s)
  and e.claimed_until = %(until)s
"""


async def _give_back(db: Database, batch: _Batch) -> None:
    parameters = {
        "shop": batch.shop_id,
        "kind": batch.kind.name,
        "until": batch.until,
        "subjects": batch.subjects,
    }
    await _record(db, batch.shop_id, parameters, GIVE_BACK)


GIVE_BACK = """
update errands e
set claimed_until = null
where
  e.shop_id = %(shop)s
  and e.kind = %(kind)s
  and e.subject = any (%(subjects)s)
  and e.claimed_until = %(until)s
"""


async def _record(db: Database, shop_id: ShopId, parameters: Mapping[str, object], *statements: LiteralString) -> None:
    """Run statements in one transaction. Handlers wish for errands in any order, so it may meet them crosswise."""

    async def transact() -> None:
        async with db.shop(shop_id) as conn:
            for statement in statements:
                await conn.execute(statement, parameters)

    await again_after_deadlock(transact)
