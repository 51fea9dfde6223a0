"""Webhooks about customers; and what is left of one who was redacted: amounts, and nothing that says whose."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
import pytest
from inbox_support import Inbox
from test_people_merges import earn, merge

from metafield_sync.customers.identity import CustomerRedacted, ShopifyCustomerId, ensure_customer
from metafield_sync.ledger.posting import Posting, PostingToRedactedCustomer, post, post_batch, reverse
from metafield_sync.shops.registry import add_shop
from metafield_sync.sync.inbox.handlers import HANDLERS
from metafield_sync.sync.people.data_requests import (
    DataRequestNotFound,
    complete_data_request,
    data_document,
    get_data_request,
)
from metafield_sync.sync.standing import customer_page, one_standing, shop_standing

if TYPE_CHECKING:
    from metafield_sync.db.database import Database, ShopId

MARY = 7_000_000_000_007
ORDER = 820_982_911_946_154_508
TEXTS = """
select format('select %L, t::text from %I t', relname, relname)
from pg_class
where relnamespace = 'public'::regnamespace and relkind = 'r' and relname not like 'procrastinate%'
"""


@pytest.fixture
def inbox(db: Database, owner: psycopg.Connection, shop_id: ShopId) -> Inbox:
    return Inbox(db, owner, shop_id, dict(HANDLERS))


async def handled(inbox: Inbox, topic: str, payload: dict[str, Any]) -> str:
    (number,) = inbox.deliver(payload, topic=topic)
    await inbox.handle_all()
    row = inbox.owner.execute("select outcome, error from inbox where id = %s", (number,)).fetchone()
    assert row is not None
    assert row[1] is None, row[1]
    return row[0]


def redact(customer: int, *orders: int) -> dict[str, Any]:
    return {"customer": {"id": customer}, "orders_to_redact": list(orders), "shop_domain": "demo.myshopify.com"}


def mirror(owner: psycopg.Connection, customer: int) -> Any:
    return owner.execute(
        """
        select m.status, m.dismissed_at is not null
        from mirror_states m
        join customers c on c.id = m.customer_id
        where c.shopify_customer_id = %s
        """,
        (customer,),
    ).fetchone()


def where_it_stands(owner: psycopg.Connection, *needles: object) -> list[tuple[str, str]]:
    """Every row of every table that has one of these in it."""
    found: list[tuple[str, str]] = []
    for (query,) in owner.execute(TEXTS).fetchall():
        rows = owner.execute(query.encode()).fetchall()
        found += [(table, text) for table, text in rows if any(str(needle) in text for needle in needles)]
    return found


async def test_a_created_customer_is_known_at_nothing_and_mirrored(inbox: Inbox) -> None:
    for _ in range(2):
        await handled(inbox, "customers/create", {"id": MARY})
    assert inbox.owner.execute("select shopify_customer_id, current_balance from customers").fetchall() == [(MARY, 0)]
    assert mirror(inbox.owner, MARY) == ("live", False)


async def test_a_deleted_customer_is_not_pushed_and_on_nobodys_list(inbox: Inbox, shop_id: ShopId) -> None:
    await earn(inbox.db, shop_id, MARY, 5)
    assert "no longer pushed" in await handled(inbox, "customers/delete", {"id": MARY})
    assert mirror(inbox.owner, MARY) == ("missing", True)
    assert "nothing was pushed" in await handled(inbox, "customers/delete", {"id": MARY + 1})
    assert inbox.points() == 5
    assert "pushed again" in await handled(inbox, "customers/create", {"id": MARY})
    assert mirror(inbox.owner, MARY) == ("live", True)


@pytest.mark.parametrize(
    ("status", "errors"),
    [
        ("failed", [{"customer_ids": [1], "field": "merge_in_progress"}]),
        ("failed", []),
        ("in_progress", []),
        ("completed", [{"customer_ids": [1], "field": "merge_in_progress"}]),
    ],
)
async def test_a_merge_that_failed_is_not_even_asked_about(inbox: Inbox, status: str, errors: list[Any]) -> None:
    await handled(inbox, "customers/merge", merged(status, errors))
    assert inbox.ask("select count(*) from errands where kind = 'merge'") == 0
    assert inbox.ask("select count(*) from customers") == 0


async def test_a_merge_that_may_have_happened_is_asked_about_once(inbox: Inbox) -> None:
    for status in ("completed", "succeeded", "something new"):
        await handled(inbox, "customers/merge", merged(status, []))
    assert inbox.owner.execute("select subject from errands where kind = 'merge'").fetchall() == [("1/2",)]
    assert inbox.ask("select count(*) from customers") == 0, "the payload alone is believed nothing"


def merged(status: str, errors: list[Any]) -> dict[str, Any]:
    return {
        "admin_graphql_api_customer_kept_id": "gid://shopify/Customer/1",
        "admin_graphql_api_customer_deleted_id": "gid://shopify/Customer/2",
        "admin_graphql_api_job_id": None,
        "status": status,
        "errors": errors,
    }


async def fill(inbox: Inbox, shop_id: ShopId) -> UUID:
    """Mary everywhere there is: merged with another, with metadata, an order, webhooks, errands, results, a request."""
    wish = Posting(shopify_customer_id=MARY, amount=5, reason="gift", metadata={"note": f"for {MARY}"})
    mary = (await post(inbox.db, shop_id, "test", wish)).entry.customer_id
    await earn(inbox.db, shop_id, MARY + 1, 20)
    await merge(inbox.db, shop_id, MARY + 1, MARY)
    await earn(inbox.db, shop_id, 3, 1)
    inbox.deliver({"id": MARY}, topic="customers/create")
    inbox.deliver({"id": ORDER, "customer": {"id": MARY}}, topic="orders/unheard_of")
    await inbox.handle_all()
    await handled(
        inbox,
        "customers/merge",
        merged("completed", []) | {"admin_graphql_api_customer_deleted_id": f"gid://shopify/Customer/{MARY}"},
    )
    await handled(
        inbox,
        "customers/data_request",
        {"customer": {"id": MARY}, "orders_requested": [ORDER], "data_request": {"id": 9999}},
    )
    rows = [{"customerId": str(one), "shopifyCustomerId": str(number)} for one, number in ((mary, MARY), (shop_id, 3))]
    inbox.owner.execute(
        "insert into sync_runs (shop_id, kind, trigger, result) values (%s, 'sync', 'api', %s)",
        (shop_id, json.dumps({"message": "Sync complete", "total": 2, "failedSyncs": rows})),
    )
    inbox.owner.execute(
        "insert into found_values (shop_id, shopify_customer_id, digest) values (%s, %s, 'd')", (shop_id, MARY)
    )
    inbox.owner.execute(
        "insert into orders (shop_id, order_id, shopify_customer_id) values (%s, %s, %s)", (shop_id, ORDER, MARY)
    )
    return mary


async def test_nothing_says_who_a_redacted_customer_was_and_the_amounts_stay(
    inbox: Inbox, owner: psycopg.Connection, shop_id: ShopId
) -> None:
    mary = await fill(inbox, shop_id)
    assert len({table for table, _ in where_it_stands(owner, MARY, MARY + 1)}) >= 8
    for _ in range(2):
        await handled(inbox, "customers/redact", redact(MARY, ORDER))
    assert where_it_stands(owner, MARY, MARY + 1) == []
    assert owner.execute("select sum(amount), count(*) from ledger_entries").fetchone() == (26, 5)
    assert owner.execute("select result from sync_runs").fetchone() == (
        {
            "message": "Sync complete",
            "total": 2,
            "failedSyncs": [{"customerId": str(shop_id), "shopifyCustomerId": "3"}],
        },
    )
    states = owner.execute("select status, count(*) from mirror_states group by 1 order by 1").fetchall()
    assert states == [("live", 1), ("redacted", 2)]
    async with inbox.db.shop(shop_id) as conn:
        assert (await shop_standing(conn, shop_id))["customers"] == 1
        assert [one.shopify_customer_id for one in await customer_page(conn, shop_id, after=None, limit=9)] == [3]
        with pytest.raises(CustomerRedacted):
            await one_standing(conn, shop_id, customer_id=mary)


async def test_what_comes_late_does_not_bring_a_redacted_customer_back(
    inbox: Inbox, owner: psycopg.Connection, shop_id: ShopId
) -> None:
    mary = await fill(inbox, shop_id)
    await handled(inbox, "customers/redact", redact(MARY, ORDER))
    before = owner.execute("select * from customers order by id").fetchall()
    by_her_ids = [
        Posting(shopify_customer_id=MARY, amount=1, reason="x"),
        Posting(shopify_customer_id=MARY + 1, amount=1, reason="x"),
        Posting(customer_id=mary, amount=1, reason="x"),
        Posting(shopify_customer_id=MARY, amount=-1, reason="x"),
    ]
    for posting in by_her_ids:
        with pytest.raises(PostingToRedactedCustomer):
            await post(inbox.db, shop_id, "test", posting)
    outcomes = await post_batch(
        inbox.db, shop_id, "test", [*by_her_ids, Posting(shopify_customer_id=3, amount=1, reason="x")]
    )
    assert [isinstance(outcome, PostingToRedactedCustomer) for outcome in outcomes] == [True] * 4 + [False]
    with pytest.raises(PostingToRedactedCustomer):
        await reverse(inbox.db, shop_id, "test", f"{mary}-1", reason="undo")
    assert await handled(inbox, "customers/create", {"id": MARY}) == "redacted"
    await handled(inbox, "customers/delete", {"id": MARY})
    await handled(inbox, "customers/data_request", {"customer": {"id": MARY}, "data_request": {"id": 10_000}})
    async with inbox.db.shop(shop_id) as conn:
        with pytest.raises(CustomerRedacted):
            await ensure_customer(conn, shop_id, ShopifyCustomerId(MARY))
    assert "redacted" in await merge(inbox.db, shop_id, MARY, 3)
    after = owner.execute("select * from customers order by id").fetchall()
    assert [row[:3] for row in after] == [row[:3] for row in before]
    assert [row for row in where_it_stands(owner, MARY) if row[0] != "inbox"] == []


async def test_who_was_merged_into_a_redacted_customer_is_redacted_too(
    inbox: Inbox, owner: psycopg.Connection, shop_id: ShopId
) -> None:
    await earn(inbox.db, shop_id, MARY + 1, 20)
    await handled(inbox, "customers/redact", redact(MARY))
    assert "so is the deleted one" in await merge(inbox.db, shop_id, MARY + 1, MARY)
    assert [row for row in where_it_stands(owner, MARY, MARY + 1) if row[0] != "inbox"] == []


async def test_a_shop_is_forgotten_whole_and_another_is_not(
    inbox: Inbox, owner: psycopg.Connection, shop_id: ShopId
) -> None:
    await fill(inbox, shop_id)
    async with inbox.db.unscoped() as conn:
        other, _ = await add_shop(conn, "other.myshopify.com", None)
    await earn(inbox.db, other.id, MARY, 1)
    assert "nothing is forgotten" in await handled(inbox, "shop/redact", {"shop_domain": "demo.myshopify.com"})
    assert len(where_it_stands(owner, MARY)) > 2
    owner.execute("update shops set status = 'removed' where id = %s", (shop_id,))
    assert await handled(inbox, "shop/redact", {"shop_domain": "demo.myshopify.com"}) == (
        "forgotten who 3 customers were; amounts are kept"
    )
    assert [table for table, _ in where_it_stands(owner, MARY, MARY + 1)] == ["customers"], "the other shop's own"
    assert inbox.points() == 27
    again = await earn(inbox.db, shop_id, MARY, 2)
    assert again.balance == 2, "installed again, the shop brings the same customers as new ones"


async def test_the_document_to_hand_over_has_everything_and_no_other_shops(inbox: Inbox, shop_id: ShopId) -> None:
    mary = await fill(inbox, shop_id)
    async with inbox.db.shop(shop_id) as conn:
        request = await get_data_request(conn, shop_id, 9999)
        document = json.loads(json.dumps(await data_document(conn, shop_id, request)))
        assert (await complete_data_request(conn, shop_id, 9999)).completed_at is not None
    assert "no name, no e-mail address, no phone" in document["statement"]
    hers, others = document["customers"]
    assert (hers["customerId"], hers["shopifyCustomerId"], hers["balance"]) == (str(mary), str(MARY), 25)
    assert others["mergedInto"] == str(mary)
    assert [entry["amount"] for entry in hers["entries"]] == [20, 5]
    assert hers["entries"][1]["metadata"] == {"note": f"for {MARY}"}
    assert [entry["amount"] for entry in others["entries"]] == [-20, 20]
    assert [order["orderId"] for order in document["orders"]] == [str(ORDER)]
    async with inbox.db.unscoped() as conn:
        other, _ = await add_shop(conn, "other.myshopify.com", None)
    async with inbox.db.shop(other.id) as conn:
        with pytest.raises(DataRequestNotFound):
            await get_data_request(conn, other.id, 9999)


async def test_of_what_comes_about_a_redacted_customer_later_nothing_is_kept(
    inbox: Inbox, owner: psycopg.Connection
) -> None:
    kept = 7_000_000_000_008
    await handled(inbox, "customers/create", {"id": MARY})
    await handled(inbox, "customers/redact", redact(MARY, ORDER))
    late: list[tuple[str, dict[str, Any]]] = [
        ("customers/create", {"id": MARY}),
        ("customers/delete", {"id": MARY}),
        (
            "customers/merge",
            {
                "admin_graphql_api_customer_kept_id": f"gid://shopify/Customer/{kept}",
                "admin_graphql_api_customer_deleted_id": f"gid://shopify/Customer/{MARY}",
                "status": "completed",
                "errors": [],
            },
        ),
        ("refunds/create", {"id": 5, "order_id": ORDER, "created_at": "2026-11-20T10:00:00Z"}),
    ]
    for topic, payload in late:
        assert await handled(inbox, topic, payload) == "redacted"
    assert where_it_stands(owner, MARY) == []
    await handled(inbox, "customers/create", {"id": kept})
    assert where_it_stands(owner, kept) != []
