"""Bulk operations from the first call to the last line, over HTTP: what the scripted answers only claim."""

from __future__ import annotations

import json
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import anyio
import pytest
from scripted_server import DOMAIN, TOKEN

from devstore import DevStore, Fault, FaultAnswer, FaultApply, ShopSpec
from metafield_sync.shopify import (
    FIND_BULK_COST,
    GET_BULK_COST,
    RUN_BULK_COST,
    STAGE_UPLOAD_COST,
    AdminClient,
    BulkKind,
    BulkOperation,
    BulkRefused,
    BulkRefusedKind,
    BulkStatus,
    Cost,
    DownloadFailed,
    MetafieldSpec,
    MetafieldWrite,
    OutcomeUnknown,
    Refusal,
    RefusalKind,
    ShopAccess,
    StagedTarget,
    UploadFailed,
    WrittenMetafield,
    bulk_set_mutation,
    customer_values_query,
    download_lines,
    find_bulk_operation,
    get_bulk_operation,
    metafield_input,
    read_bulk_line,
    read_metafields,
    read_queried_customer,
    run_bulk_mutation,
    run_bulk_query,
    set_metafields,
    stage_upload,
    upload,
)
from metafield_sync.shopify.bulk import FIND_BULK_PAGE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    import httpx

SPEC = MetafieldSpec("loyalty", "points_balance")
CUSTOMERS = 300
MARKER = "Backfill_0123456789abcdef0123456789abcdef"
POLL_S = 0.01
POLLS_MAX = 500


@pytest.fixture
async def store() -> AsyncIterator[DevStore]:
    async with DevStore([ShopSpec(DOMAIN, TOKEN, customers=CUSTOMERS)]) as running:
        yield running


@pytest.fixture
async def client(http: httpx.AsyncClient, store: DevStore) -> AdminClient:
    return AdminClient(http, origin=store.admin_origin, api_version="2026-10")


def within(cost: Cost | None, points: int) -> bool:
    return cost is not None and cost.requested is not None and cost.requested <= points


async def uploaded(
    client: AdminClient, access: ShopAccess, folder: Path, writes: Sequence[MetafieldWrite]
) -> StagedTarget:
    file = anyio.Path(folder / "balances.jsonl")
    lines = [json.dumps({"metafields": [metafield_input(SPEC, write)]}) for write in writes]
    await file.write_text("".join(f"{line}\n" for line in lines))
    target, cost = await stage_upload(client, access, file.name)
    assert within(cost, STAGE_UPLOAD_COST)
    await upload(client, target, folder / "balances.jsonl")
    return target


async def begun(
    client: AdminClient, access: ShopAccess, folder: Path, writes: Sequence[MetafieldWrite]
) -> BulkOperation:
    target = await uploaded(client, access, folder, writes)
    operation, cost = await run_bulk_mutation(client, access, bulk_set_mutation(MARKER), target.path, MARKER)
    assert within(cost, RUN_BULK_COST)
    return operation


async def ended(client: AdminClient, access: ShopAccess, operation: BulkOperation) -> BulkOperation:
    for _ in range(POLLS_MAX):
        found, cost = await get_bulk_operation(client, access, operation.id)
        assert within(cost, GET_BULK_COST)
        assert found is not None
        if found.ended:
            return found
        await anyio.sleep(POLL_S)
    raise AssertionError("it does not end")


async def lines_of(client: AdminClient, operation: BulkOperation) -> list[bytes]:
    assert operation.result_url is not None
    async with aclosing(download_lines(client, operation.result_url)) as lines:
        return [line async for line in lines]


async def find(client: AdminClient, access: ShopAccess, kind: BulkKind = "MUTATION") -> BulkOperation | None:
    found, cost = await find_bulk_operation(client, access, kind=kind, marker=MARKER, since=datetime.now(UTC))
    assert within(cost, FIND_BULK_COST)
    return found


async def test_a_whole_shop_is_written_and_read_back_with_its_digests(
    client: AdminClient, access: ShopAccess, tmp_path: Path
) -> None:
    writes = [MetafieldWrite(number, number * 10, None) for number in range(1, CUSTOMERS + 1)]
    operation = await ended(client, access, await begun(client, access, tmp_path, writes))
    assert (operation.status, operation.kind, operation.object_count) == (BulkStatus.COMPLETED, "MUTATION", CUSTOMERS)
    results = [read_bulk_line(line) for line in await lines_of(client, operation)]
    assert sorted(one.number for one in results) == list(range(CUSTOMERS))
    written = {one.number: one.outcome for one in results if isinstance(one.outcome, WrittenMetafield)}
    assert {number: (one.customer_id, one.value) for number, one in written.items()} == {
        number: (write.customer_id, str(write.value)) for number, write in enumerate(writes)
    }

    query = customer_values_query(SPEC, MARKER)
    started, cost = await run_bulk_query(client, access, query)
    assert within(cost, RUN_BULK_COST)
    assert started.query == query
    export = await ended(client, access, started)
    customers = [read_queried_customer(line) for line in await lines_of(client, export)]
    shown = dict(one for one in customers if one is not None)
    assert len(customers) == len(shown) == CUSTOMERS
    for write, one in zip(writes, (written[number] for number in range(CUSTOMERS)), strict=True):
        found = shown[write.customer_id]
        assert found is not None
        assert (found.as_balance(), found.digest) == (write.value, one.digest)


async def test_each_line_stands_for_itself(
    client: AdminClient, access: ShopAccess, store: DevStore, tmp_path: Path
) -> None:
    first = await set_metafields(client, access, SPEC, [MetafieldWrite(1, 5, None), MetafieldWrite(2, 5, None)])
    store.shop(DOMAIN).delete_customer(3)
    writes = [
        MetafieldWrite(1, 6, first.digests[1]),
        MetafieldWrite(2, 6, None),
        MetafieldWrite(3, 6, None),
        MetafieldWrite(4, 6, "0" * 64),
        MetafieldWrite(5, 6, None),
    ]
    operation = await ended(client, access, await begun(client, access, tmp_path, writes))
    assert operation.status is BulkStatus.COMPLETED
    outcomes = {one.number: one.outcome for one in map(read_bulk_line, await lines_of(client, operation))}
    kinds = {number: one.kind for number, one in outcomes.items() if isinstance(one, Refusal)}
    assert kinds == {1: RefusalKind.CONFLICT, 2: RefusalKind.OWNER_GONE, 3: RefusalKind.CONFLICT}
    shown, _ = await read_metafields(client, access, SPEC, [1, 2, 3, 4, 5])
    assert {number: one and one.as_balance() for number, one in shown.items()} == {1: 6, 2: 5, 4: None, 5: 6}


async def test_one_whose_start_got_no_answer_is_found_by_its_marker(
    client: AdminClient, access: ShopAccess, store: DevStore, tmp_path: Path
) -> None:
    target = await uploaded(client, access, tmp_path, [MetafieldWrite(1, 1, None)])
    assert await find(client, access) is None
    for name in ("Backfill_another_one", "Backfill_yet_another"):
        await run_bulk_mutation(client, access, bulk_set_mutation(name), target.path, name)
    store.world.faults.add(Fault(FaultAnswer.DROP, FaultApply.FIRST))
    with pytest.raises(OutcomeUnknown):
        await run_bulk_mutation(client, access, bulk_set_mutation(MARKER), target.path, MARKER)
    await run_bulk_query(client, access, customer_values_query(SPEC, MARKER))
    found = await find(client, access)
    assert found is not None
    assert (found.kind, found.query) == ("MUTATION", bulk_set_mutation(MARKER))
    query = await find(client, access, "QUERY")
    assert query is not None
    assert query.id != found.id
    later = datetime.now(UTC) + timedelta(hours=1)
    assert (await find_bulk_operation(client, access, kind="MUTATION", marker=MARKER, since=later))[0] is None


async def test_one_is_found_behind_a_page_of_others(
    client: AdminClient, access: ShopAccess, store: DevStore, tmp_path: Path
) -> None:
    operation = await begun(client, access, tmp_path, [MetafieldWrite(1, 1, None)])
    target = await uploaded(client, access, tmp_path, [MetafieldWrite(2, 1, None)])
    for number in range(FIND_BULK_PAGE):
        marker = f"Backfill_other_{number}"
        await run_bulk_mutation(client, access, bulk_set_mutation(marker), target.path, marker)
        await store.shop(DOMAIN).bulk.settle()
    found, cost = await find_bulk_operation(client, access, kind="MUTATION", marker=MARKER, since=datetime.now(UTC))
    assert found is not None
    assert found.id == operation.id
    assert within(cost, 2 * FIND_BULK_COST)


async def test_a_sixth_at_once_has_to_wait_and_one_without_a_file_does_not_start(
    client: AdminClient, access: ShopAccess, store: DevStore, tmp_path: Path
) -> None:
    store.shop(DOMAIN).bulk.settings.paused = True
    for _ in range(5):
        await begun(client, access, tmp_path, [MetafieldWrite(1, 1, None)])
    with pytest.raises(BulkRefused) as caught:
        await begun(client, access, tmp_path, [MetafieldWrite(1, 1, None)])
    assert caught.value.kind is BulkRefusedKind.IN_PROGRESS
    with pytest.raises(BulkRefused) as caught:
        await run_bulk_mutation(client, access, bulk_set_mutation(MARKER), "tmp/none.jsonl", MARKER)
    assert caught.value.kind is BulkRefusedKind.NO_FILE
    with pytest.raises(BulkRefused) as caught:
        await run_bulk_mutation(client, access, "mutation {", "tmp/none.jsonl", MARKER)
    assert caught.value.kind is BulkRefusedKind.INVALID


async def test_one_that_is_cancelled_tells_what_it_came_to(
    client: AdminClient, access: ShopAccess, store: DevStore, tmp_path: Path
) -> None:
    bulk = store.shop(DOMAIN).bulk
    bulk.settings.lines_per_s = 200
    writes = [MetafieldWrite(number, 1, None) for number in range(1, CUSTOMERS + 1)]
    operation = await begun(client, access, tmp_path, writes)
    await anyio.sleep(0.1)
    bulk.cancel(bulk.operations[-1])
    operation = await ended(client, access, operation)
    assert operation.status is BulkStatus.CANCELED
    lines = await lines_of(client, operation)
    assert 0 < len(lines) < CUSTOMERS


async def test_none_of_that_id_is_none(client: AdminClient, access: ShopAccess) -> None:
    assert (await get_bulk_operation(client, access, "gid://shopify/BulkOperation/1"))[0] is None


async def test_an_empty_file_and_a_changed_field_are_not_accepted(
    client: AdminClient, access: ShopAccess, tmp_path: Path
) -> None:
    with pytest.raises(UploadFailed, match="EntityTooSmall"):
        await uploaded(client, access, tmp_path, [])
    target, _ = await stage_upload(client, access, "balances.jsonl")
    changed = tuple((name, "x" if name == "acl" else value) for name, value in target.parameters)
    await anyio.Path(tmp_path / "balances.jsonl").write_text("{}\n")
    with pytest.raises(UploadFailed, match="HTTP 4"):
        await upload(client, StagedTarget(target.url, changed), tmp_path / "balances.jsonl")


async def test_a_result_at_a_changed_address_has_expired(
    client: AdminClient, access: ShopAccess, tmp_path: Path
) -> None:
    writes = [MetafieldWrite(1, 1, None)]
    operation = await ended(client, access, await begun(client, access, tmp_path, writes))
    assert operation.result_url is not None
    with pytest.raises(DownloadFailed) as caught:
        await anext(download_lines(client, operation.result_url + "x"))
    assert caught.value.expired
