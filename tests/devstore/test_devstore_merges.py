"""Two customers become one: who stays, what they keep, and who is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
from devstore_support import entry, gid
from order_support import MERGE, MERGE_STATUS, Ear, an_order

from devstore import DevStore, MergeStatus, ShopSpec
from devstore.customers import CustomerDetails
from devstore.merges import MergeError

if TYPE_CHECKING:
    from devstore_support import Bench


WAIT_S = 5


def emails(bench: Bench, *customers: int) -> None:
    for number in customers:
        bench.shop.customers.describe(number, CustomerDetails(email=f"{number}@example.org"))


@pytest.mark.parametrize(
    ("with_email", "keep", "kept"),
    [((), None, 2), ((1,), None, 1), ((2,), None, 2), ((1, 2), None, 2), ((1, 2), 1, 1)],
)
def test_who_is_kept_is_not_the_first(bench: Bench, with_email: tuple[int, ...], keep: int | None, kept: int) -> None:
    emails(bench, *with_email)
    merge = bench.shop.merges.request(1, 2, keep_email_of=keep)
    assert {merge.kept, merge.deleted} == {1, 2}
    assert merge.kept == kept


def test_a_merge_happens_later(bench: Bench) -> None:
    ear = Ear(bench.shop)
    order = an_order(bench.shop, customer=1)
    ear.heard()
    payload = bench.data(MERGE, {"one": gid(1), "two": gid(2)})["customerMerge"]
    job = payload["job"]["id"]
    assert (payload["resultingCustomerId"], payload["job"]["done"], payload["userErrors"]) == (gid(2), False, [])
    assert bench.data(MERGE_STATUS, {"id": job})["customerMergeJobStatus"]["status"] == "REQUESTED"
    assert (bench.shop.customers.exists(1), ear.heard()) == (True, [])
    assert bench.shop.merges.settle() == 1
    status = bench.data(MERGE_STATUS, {"id": job})
    assert (status["job"]["done"], status["customerMergeJobStatus"]["status"]) == (True, "COMPLETED")
    assert bench.data(f'{{ customer(id: "{gid(1)}") {{ id }} }}')["customer"] is None
    moved = bench.shop.orders.get(order.number)
    assert moved is not None
    assert (moved.customer, moved.updated_s) == (2, order.updated_s)
    told: dict[str, object] = {
        "admin_graphql_api_customer_kept_id": gid(2),
        "admin_graphql_api_customer_deleted_id": gid(1),
        "admin_graphql_api_job_id": job,
        "status": "completed",
        "errors": [],
    }
    assert ear.heard() == [("customers/merge", told)]


def test_the_kept_customers_metafield_stays_and_is_no_sum(bench: Bench) -> None:
    bench.set(entry(1, "70"), entry(2, "30"), entry(1, "5", key="only_here"))
    bench.shop.merges.request(1, 2)
    bench.shop.merges.settle()
    kept = {one.slot.key: one.value for one in bench.shop.metafields.of_owner("CUSTOMER", 2)}
    assert kept == {"points_balance": "30", "only_here": "5"}
    assert bench.shop.metafields.of_owner("CUSTOMER", 1) == []


def test_what_is_known_of_both_is_combined(bench: Bench) -> None:
    bench.shop.customers.describe(1, CustomerDetails(first_name="Ann", note="Rings twice", tags=("vip", "old")))
    bench.shop.customers.describe(2, CustomerDetails(email="a@example.org", first_name="Anna", tags=("new", "vip")))
    bench.shop.merges.request(1, 2)
    bench.shop.merges.settle()
    expected = CustomerDetails("a@example.org", "Anna", None, "Rings twice", ("new", "vip", "old"))
    assert bench.shop.customers.details(2) == expected


def test_a_customer_who_is_being_merged_cannot_be_merged_again(bench: Bench) -> None:
    ear = Ear(bench.shop)
    bench.shop.merges.request(1, 2)
    failed = bench.shop.merges.request(2, 3)
    assert failed.status is MergeStatus.FAILED
    ((topic, told),) = ear.heard()
    message = "Customer 2 is currently being merged."
    assert (topic, told["status"], told["admin_graphql_api_job_id"]) == ("customers/merge", "failed", None)
    assert told["errors"] == [{"customer_ids": [2], "field": "merge_in_progress", "message": message}]
    status = bench.data(MERGE_STATUS, {"id": failed.job})["customerMergeJobStatus"]
    assert status["customerMergeErrors"] == [{"errorFields": ["MERGE_IN_PROGRESS"], "message": message}]
    assert bench.shop.merges.settle() == 1
    assert bench.shop.customers.exists(3)


def test_a_merge_fails_if_one_is_deleted_meanwhile(bench: Bench) -> None:
    merge = bench.shop.merges.request(1, 2)
    bench.shop.delete_customer(1)
    bench.shop.merges.settle()
    assert (merge.status, merge.problems[0].field) == (MergeStatus.FAILED, "deleted_at")
    assert bench.shop.customers.exists(2)


def test_a_merge_that_makes_no_sense_is_refused(bench: Bench) -> None:
    for one, two in ((1, 1), (1, 99)):
        payload = bench.data(MERGE, {"one": gid(one), "two": gid(two)})["customerMerge"]
        (error,) = payload["userErrors"]
        assert (payload["job"], payload["resultingCustomerId"], error["code"]) == (None, None, "INVALID_CUSTOMER_ID")
    with pytest.raises(MergeError):
        bench.shop.merges.request(99, 1)
    assert bench.shop.merges.merges == []


def test_how_success_is_spelled_may_be_chosen(bench: Bench) -> None:
    ear = Ear(bench.shop)
    bench.shop.merges.settings.success_status = "succeeded"
    bench.shop.merges.request(1, 2)
    bench.shop.merges.settle()
    assert [told["status"] for _, told in ear.heard()] == ["succeeded"]


async def test_a_running_shop_merges_by_itself() -> None:
    async with DevStore([ShopSpec("a.myshopify.com", "t", customers=3)]) as store:
        shop = store.shop("a.myshopify.com")
        shop.merges.settings.delay_ms = 0
        merge = shop.merges.request(1, 2)
        with anyio.fail_after(WAIT_S):
            while merge.status is MergeStatus.REQUESTED:
                await anyio.lowlevel.checkpoint()
        assert not shop.customers.exists(1)
        shop.merges.settings.paused = True
        waiting = shop.merges.request(2, 3)
    assert waiting.status is MergeStatus.REQUESTED
