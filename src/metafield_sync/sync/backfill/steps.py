"""Taking a backfill's steps: as many as can be taken now."""

from __future__ import annotations

import random
import tempfile
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import structlog

from metafield_sync.shopify import (
    FIND_BULK_COST,
    GET_BULK_COST,
    RUN_BULK_COST,
    STAGE_UPLOAD_COST,
    BulkRefused,
    BulkRefusedKind,
    BulkStatus,
    QueryRefused,
    Refusal,
    ShopifyError,
    Throttled,
    UnknownOutcome,
    Unreachable,
    bulk_set_mutation,
    download_lines,
    find_bulk_operation,
    get_bulk_operation,
    read_bulk_line,
    run_bulk_mutation,
    stage_upload,
    upload,
)
from metafield_sync.sync.backfill import store
from metafield_sync.sync.backfill.lines import (
    Results,
    claims_on,
    collect,
    collected_so_far,
    is_anybody_behind,
    lines_left,
    record_results,
    written_lines,
)
from metafield_sync.sync.backfill.values import read_values
from metafield_sync.sync.push import failure_of
from metafield_sync.sync.turn import paid_call

if TYPE_CHECKING:
    from metafield_sync.shopify import BulkLine, BulkOperation, StagedTarget
    from metafield_sync.sync.backfill.store import Backfill, File
    from metafield_sync.sync.claims import Claim
    from metafield_sync.sync.outcomes import Failure
    from metafield_sync.sync.turn import Turn

FILES_AT_ONCE_MAX = 5
"""Shopify runs so many bulk mutations of an app in a shop at once, since API 2026-01."""
POLL_FIRST_S = 0.5
POLL_LAST_S = 15.0
POLL_GROWTH = 1.5
LOST_START_S = 30.0
"""So long after an operation was asked for without an answer, one that cannot be found was not started: Shopify gives a
request up after some 10 s."""
STEP_RETRY_FIRST_S = 2.0
STEP_RETRY_LAST_S = 300.0
STEP_FAILURES_MAX = 10
"""So many failures in a row and the backfill is given up; its customers are pushed in plain calls."""
RESULTS_MAX = 500
"""Result lines recorded in one transaction."""

log = structlog.get_logger()


async def advance(turn: Turn, backfill: Backfill) -> None:
    """Take every step of the backfill that can be taken now, and note when to come back. Trouble is noted, not raised.

    Raises:
        ShopStops: Shopify refuses the shop.
        LeaseLost: another process has taken over.
    """
    try:
        delay_s = await _advance(turn, backfill)
    except (ShopifyError, OSError) as error:
        # OSError: no room for the file. Someone has to see to that; until then plain pushes go on.
        pointless = isinstance(error, QueryRefused) or (
            isinstance(error, BulkRefused) and error.kind is BulkRefusedKind.INVALID
        )
        await _note_failure(turn, backfill, str(error), is_final=pointless)
        return
    if delay_s is None:
        await store.note(turn.db, turn.lease, store.FINISHED, backfill=backfill.id)
        log.info("backfill finished", shop=turn.shop.domain, backfill=str(backfill.id))
    else:
        await store.note(turn.db, turn.lease, store.NEXT_STEP, backfill=backfill.id, delay=delay_s)


async def _advance(turn: Turn, backfill: Backfill) -> float | None:
    """Seconds until the next step; None: there is none."""
    if backfill.collected_at is None:
        await _collect(turn, backfill)
    if backfill.values_read_at is None and not await read_values(turn, backfill):
        # The longer it has taken, the longer until the next look, as with the files.
        elapsed_s = (datetime.now(UTC) - backfill.started_at).total_seconds()
        return min(max(POLL_FIRST_S, elapsed_s / 4), POLL_LAST_S)
    files = await store.files_under_way(turn.db, turn.shop.id, backfill)
    for file in files[:FILES_AT_ONCE_MAX]:
        if file.operation is None:
            await _start(turn, backfill, file)
        elif file.is_due:
            await _look(turn, backfill, file)
    left = await store.files_under_way(turn.db, turn.shop.id, backfill)
    if not left:
        return None
    return min(_poll_delay_s(file.polls) for file in left)


async def _note_failure(turn: Turn, backfill: Backfill, what: str, *, is_final: bool) -> None:
    if not is_final and backfill.attempts + 1 < STEP_FAILURES_MAX:
        delay_s = min(STEP_RETRY_FIRST_S * 2**backfill.attempts, STEP_RETRY_LAST_S) * random.uniform(1, 1.25)  # noqa: S311 - spreads load
        log.warning("backfill held up", shop=turn.shop.domain, detail=what, again_in_s=round(delay_s, 1))
        await store.note(turn.db, turn.lease, store.STEP_FAILED, backfill=backfill.id, delay=delay_s)
        return
    log.error("backfill given up; plain pushes go on", shop=turn.shop.domain, detail=what)
    for file in await store.files_under_way(turn.db, turn.shop.id, backfill):
        await _release_the_rest(turn, backfill, file, error=what)
    await store.note(turn.db, turn.lease, store.GIVEN_UP, backfill=backfill.id, error=what)


async def _collect(turn: Turn, backfill: Backfill) -> None:
    collected = await collected_so_far(turn.db, turn.lease, backfill)
    while not collected.is_done:
        # No drain claims a customer between the look at who is in flight and the hold on who is not.
        async with turn.claiming:
            collected = await collect(turn.db, turn.lease, backfill, turn.metafield, collected, turn.in_flight)
    turn.collecting_since = None


async def _start(turn: Turn, backfill: Backfill, file: File) -> None:
    """Have Shopify run the file, unless it does already, or shows every balance on it as it is."""
    if file.staged_path is None and not await is_anybody_behind(turn.db, turn.lease, backfill, file.number):
        await _release_the_rest(turn, backfill, file, error=None)
        return
    if file.asked_at is not None:
        async with paid_call(turn, FIND_BULK_COST) as call:
            found, call.cost = await find_bulk_operation(
                turn.client,
                turn.access,
                kind="MUTATION",
                marker=backfill.marker(file.number),
                since=file.asked_at,
            )
        if found is not None:
            await _note(turn, backfill, file, found)
            return
        if datetime.now(UTC) - file.asked_at < timedelta(seconds=LOST_START_S):
            return
    path = file.staged_path or await _upload(turn, backfill, file)
    await store.note(turn.db, turn.lease, store.FILE_ASKED, backfill=backfill.id, file=file.number)
    marker = backfill.marker(file.number)
    try:
        async with paid_call(turn, RUN_BULK_COST) as call:
            operation, call.cost = await run_bulk_mutation(
                turn.client, turn.access, bulk_set_mutation(marker), path, marker
            )
    except BulkRefused as error:
        not_there = error.kind is BulkRefusedKind.NO_FILE
        statement = store.FILE_NOT_THERE if not_there else store.FILE_NOT_STARTED
        await store.note(turn.db, turn.lease, statement, backfill=backfill.id, file=file.number)
        if error.kind is BulkRefusedKind.IN_PROGRESS:
            return
        raise
    except (Throttled, Unreachable, QueryRefused):
        await store.note(turn.db, turn.lease, store.FILE_NOT_STARTED, backfill=backfill.id, file=file.number)
        raise
    await _note(turn, backfill, file, operation)


async def _note(turn: Turn, backfill: Backfill, file: File, operation: BulkOperation) -> None:
    await store.note(
        turn.db, turn.lease, store.FILE_STARTED, backfill=backfill.id, file=file.number, operation=operation.id
    )
    log.info("backfill file runs", shop=turn.shop.domain, file=file.number, lines=file.lines, operation=operation.id)


async def _upload(turn: Turn, backfill: Backfill, file: File) -> str:
    target: StagedTarget
    with tempfile.TemporaryDirectory(prefix="metafield-sync-") as folder:
        path = Path(folder) / f"{backfill.marker(file.number)}.jsonl"
        async with (
            await anyio.open_file(path, "wb") as content,
            aclosing(written_lines(turn.db, turn.lease, backfill, file.number, turn.metafield)) as pieces,
        ):
            async for piece in pieces:
                await content.write(piece)
        async with paid_call(turn, STAGE_UPLOAD_COST) as call:
            target, call.cost = await stage_upload(turn.client, turn.access, path.name)
        await upload(turn.client, target, path)
    await store.note(turn.db, turn.lease, store.FILE_STAGED, backfill=backfill.id, file=file.number, path=target.path)
    return target.path


async def _look(turn: Turn, backfill: Backfill, file: File) -> None:
    """See how far Shopify is with the file; when it has ended, record what came of it."""
    assert file.operation is not None, "asked of files that run"  # noqa: S101 - the caller looks
    async with paid_call(turn, GET_BULK_COST) as call:
        operation, call.cost = await get_bulk_operation(turn.client, turn.access, file.operation)
    if operation is not None and not operation.ended:
        await store.note(
            turn.db,
            turn.lease,
            store.FILE_POLLED,
            backfill=backfill.id,
            file=file.number,
            delay=_poll_delay_s(file.polls),
        )
        return
    if operation is not None and operation.result_url is not None:
        await _record_result(turn, backfill, file, operation.result_url)
    if operation is None:
        error = f"Shopify does not know {file.operation} any more."
    elif operation.status is BulkStatus.COMPLETED:
        error = None
    else:
        error = f"Shopify ended {operation.id} as {operation.status}: {operation.error_code}."
    await _release_the_rest(turn, backfill, file, error=error)


async def _record_result(turn: Turn, backfill: Backfill, file: File, url: str) -> None:
    some: list[BulkLine] = []
    async with aclosing(download_lines(turn.client, url)) as lines:
        async for line in lines:
            some.append(read_bulk_line(line))
            if len(some) >= RESULTS_MAX:
                await _record_some(turn, backfill, file, some)
                some.clear()
    if some:
        await _record_some(turn, backfill, file, some)


async def _record_some(turn: Turn, backfill: Backfill, file: File, some: list[BulkLine]) -> None:
    claims = await claims_on(turn.db, turn.lease, backfill, file.number, [line.number for line in some])
    written: dict[int, tuple[Claim, str | None]] = {}
    refused: dict[int, Failure] = {}
    unknown: dict[int, Claim] = {}
    for line in some:
        claim = claims.get(line.number)
        if claim is None:
            continue
        match line.outcome:
            case Refusal() as refusal:
                refused[line.number] = failure_of(claim, refusal)
            case UnknownOutcome():
                unknown[line.number] = claim
            case result if result.value is not None and result.value != str(claim.balance):
                unknown[line.number] = claim
            case result:
                written[line.number] = (claim, result.digest)
    await record_results(turn.db, turn.lease, backfill, file.number, Results(written, refused, unknown))
    turn.pushed += len(written)
    turn.refused += sum(not failure.conflict for failure in refused.values())


async def _release_the_rest(turn: Turn, backfill: Backfill, file: File, *, error: str | None) -> None:
    """Lines without a result: whether they were executed is unknown, but the operation is over and nothing is late.

    They are pushed again over the digest known before: what was executed is acknowledged as unchanged, or refused as a
    conflict and read back.
    """
    left = await lines_left(turn.db, turn.lease, backfill, file.number)
    if left and file.operation is not None:
        log.warning("backfill lines without a result", shop=turn.shop.domain, file=file.number, error=error)
    while left:
        await record_results(turn.db, turn.lease, backfill, file.number, Results({}, {}, left))
        left = await lines_left(turn.db, turn.lease, backfill, file.number)
    await store.note(turn.db, turn.lease, store.FILE_FINISHED, backfill=backfill.id, file=file.number, error=error)


def _poll_delay_s(polls: int) -> float:
    return min(POLL_FIRST_S * POLL_GROWTH ** min(polls, 20), POLL_LAST_S)
