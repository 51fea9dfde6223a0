"""`demo`: from an empty folder to every metafield equal to its balance, and then there to be tried."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import psycopg
from cyclopts import Parameter
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from metafield_sync import logs
from metafield_sync.cli.demo import report
from metafield_sync.cli.demo.comparison import compare
from metafield_sync.cli.demo.folder import DemoFolder
from metafield_sync.cli.demo.purchases import points_earned, read_orders
from metafield_sync.cli.demo.store import CLIENT_ID, SHOP_DOMAIN, DevStore, Plan, started
from metafield_sync.cli.output import progress, show_json, stderr, stdout
from metafield_sync.cli.parts import DONE, FAILURES, JsonOption, Whole, quiet_level
from metafield_sync.cli.running import run_all
from metafield_sync.cli.serving import PortTaken, listen, serving, with_port_of
from metafield_sync.customers.identity import ShopifyCustomerId, ensure_customer
from metafield_sync.db.embedded import EmbeddedPostgres
from metafield_sync.errors import AppError
from metafield_sync.ledger.posting import BATCH_ENTRIES_MAX, PostingRefused, post_batch
from metafield_sync.runtime import open_runtime
from metafield_sync.settings import Settings
from metafield_sync.shops.api_keys import create_key
from metafield_sync.shops.registry import add_shop, remember_definition
from metafield_sync.sync.standing import one_standing

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from rich.console import Console

    from metafield_sync.cli.demo.purchases import Order
    from metafield_sync.cli.serving import Served
    from metafield_sync.runtime import Runtime
    from metafield_sync.shops.registry import Shop

ACTOR = "demo"


class DemoFailed(AppError):
    """Something went wrong that cannot go wrong on a fresh database."""

    code = "demo_failed"


@dataclass(frozen=True, slots=True)
class Stage:
    """The demo's parts, all at work."""

    runtime: Runtime
    store: DevStore
    served: Served
    shop: Shop


async def demo(
    *,
    check: Annotated[
        bool, Parameter(negative=(), help="Do the whole job once and exit: 0 only if every row agrees.")
    ] = False,
    plan: Annotated[
        Plan, Parameter(help="The Shopify plan to imitate: it decides how fast may be pushed.")
    ] = "standard",
    port: Annotated[
        Whole | None, Parameter(metavar="PORT", help="Where to serve; wins over PORT. Else 8000, or a free one.")
    ] = None,
    json: JsonOption = False,
) -> int:
    """Show the whole job on real purchases, with nothing to set up.

    Starts a PostgreSQL of its own (below DATA_DIR, never DATABASE_URL) and a local stand-in for Shopify, turns 6,919
    real orders of 2,357 customers into ledger entries, one point a whole dollar, pushes every balance, and holds
    database and Shopify against each other. Then it serves until Ctrl-C, with lines to try, and the shop sends it
    webhooks: an order placed in its pages earns points. Run again: afresh.
    """
    began = time.monotonic()
    given = Settings.load()
    logs.configure(given, level=quiet_level(given))
    console = stderr() if json else stdout()
    folder = DemoFolder(given.data_dir)
    if given.database_url is not None:
        console.print("DATABASE_URL is set; the demo leaves it alone and uses a PostgreSQL of its own.", soft_wrap=True)
    async with AsyncExitStack() as stack:
        stack.enter_context(folder.held())
        listener = stack.enter_context(_listen(given, port, console))
        stage = await _set_up(stack, given, folder, listener, plan, console)
        outcome = await _do_the_job(stage, console, began)
        report.show(console, outcome)
        if json:
            show_json(report.document(outcome))
            sys.stdout.flush()
        if not check:
            await _show_around(stage, outcome, folder, console)
            logs.configure(given)
            await stage.served.until_stopped()
            console.print("Stopping …")
    return DONE if outcome.all_agree else FAILURES


def _listen(given: Settings, port: int | None, console: Console) -> socket.socket:
    """Take the port: the one asked for, or else the usual one, or else any."""
    wanted = given.port if port is None else Settings.load(port=port).port
    asked_for = port is not None or "port" in given.model_fields_set
    try:
        return listen(given.model_copy(update={"port": wanted}))
    except PortTaken:
        if asked_for:
            raise
    listener = listen(given.model_copy(update={"port": 0}))
    free = listener.getsockname()[1]
    console.print(f"Port {wanted} is in use; serving on {free} instead (--port chooses).", soft_wrap=True)
    return listener


async def _set_up(
    stack: AsyncExitStack, given: Settings, folder: DemoFolder, listener: socket.socket, plan: Plan, console: Console
) -> Stage:
    """Bring up the database, the devstore, the web and the worker, each to be taken down again by the stack."""
    console.print(f"Starting PostgreSQL and a local stand-in for Shopify, below {folder.root} …", soft_wrap=True)
    server = EmbeddedPostgres(folder.root)
    stack.push_async_callback(asyncio.to_thread, server.stop)
    url = await asyncio.to_thread(_fresh_database, server)
    store = await stack.enter_async_context(started(plan, folder.devstore_log))
    bound = with_port_of(given, listener)
    settings = Settings.load(
        database_url=url,
        database_owner_url=None,
        data_dir=folder.root,
        port=bound.port,
        shopify_admin_origin=store.admin_origin,
        shopify_api_key=CLIENT_ID,
        shopify_api_secret=store.client_secret,
        shopify_api_secret_old=None,
        encryption_keys=(folder.encryption_key(),),
    )
    folder.write_environment(
        {
            "DATABASE_URL": "",
            "DATABASE_OWNER_URL": "",
            "DATA_DIR": str(folder.root),
            "SHOPIFY_ADMIN_ORIGIN": store.admin_origin,
            "SHOPIFY_API_KEY": CLIENT_ID,
            "SHOPIFY_API_SECRET": store.client_secret,
            "ENCRYPTION_KEYS": settings.encryption_keys[0],
        }
    )
    runtime = await stack.enter_async_context(open_runtime(settings))
    ensured = await runtime.mirror.check_shop(SHOP_DOMAIN, store.token)
    async with runtime.db.unscoped() as conn:
        shop, _ = await add_shop(conn, SHOP_DOMAIN, runtime.vault.seal(store.token))
        await remember_definition(conn, shop.id, runtime.mirror.definition_fingerprint)
    console.print(
        f"Added {shop.domain}; metafield definition {settings.metafield_namespace}.{settings.metafield_key} "
        f"{ensured.outcome}{' and pinned' if ensured.pinned else ''}.",
        soft_wrap=True,
    )
    served = await stack.enter_async_context(serving(runtime, listener, with_worker=True))
    return Stage(runtime, store, served, shop)


def _fresh_database(server: EmbeddedPostgres) -> str:
    """Start the demo's server with an empty database on it, whatever the last demo left, finished or not."""
    url = server.start()
    database = conninfo_to_dict(url)["dbname"]
    with psycopg.connect(url, dbname="postgres", autocommit=True) as conn:
        name = sql.Identifier(str(database))
        conn.execute(sql.SQL("drop database if exists {} with (force)").format(name))
        conn.execute(sql.SQL("create database {}").format(name))
    return url


async def _do_the_job(stage: Stage, console: Console, began: float) -> report.Outcome:
    """Orders in, points out: customers created, entries posted, balances pushed, both sides read and compared."""
    runtime, shop = stage.runtime, stage.shop
    orders = read_orders()
    earned = points_earned(orders)
    with progress("Creating customers in Shopify", plain_lines=True) as tell:
        await stage.store.add_customers(sorted(earned), tell)
    pushing_since = time.monotonic()
    await _post(runtime, shop, orders)
    await _mirror_the_rest(runtime, shop, [customer for customer, points in earned.items() if points == 0])
    # The worker has been pushing since the first batch; the run joins in, and ends when everybody has been told.
    (result,) = await run_all(runtime, [shop], kind="sync", trigger="demo", plain_lines=True)
    push_seconds = time.monotonic() - pushing_since
    if result["errors"]:
        console.print(f"{result['errors']:,} could not be synced: {result['failedSyncs'][0]['error']}", soft_wrap=True)
    spent = await stage.store.spent()
    with progress("Reading the metafields back", plain_lines=True) as tell:
        shown = await stage.store.read_back(runtime.settings, tell, len(earned))
    rows = await compare(runtime.db, shop.id, earned, shown)
    return report.Outcome(rows, spent, time.monotonic() - began, push_seconds)


async def _post(runtime: Runtime, shop: Shop, orders: Sequence[Order]) -> None:
    """One entry for each order that earns something, a thousand to a batch."""
    postings = [order.posting for order in orders if order.points > 0]
    with progress("Posting orders to the ledger", plain_lines=True) as tell:
        for start in range(0, len(postings), BATCH_ENTRIES_MAX):
            batch = postings[start : start + BATCH_ENTRIES_MAX]
            for outcome in await post_batch(runtime.db, shop.id, ACTOR, batch):
                if isinstance(outcome, PostingRefused):
                    raise DemoFailed(f"The ledger refused an order: {outcome.detail}")
            tell(start + len(batch), len(postings))


async def _mirror_the_rest(runtime: Runtime, shop: Shop, customers: Sequence[int]) -> None:
    """Who has earned nothing is a customer all the same, and is shown 0."""
    async with runtime.db.shop(shop.id) as conn:
        for customer in customers:
            await ensure_customer(conn, shop.id, ShopifyCustomerId(customer))


async def _show_around(stage: Stage, outcome: report.Outcome, folder: DemoFolder, console: Console) -> None:
    runtime = stage.runtime
    await stage.store.connect_app(stage.served.address)
    customer = outcome.rows[0]
    async with runtime.db.shop(stage.shop.id) as conn:
        key = await create_key(conn, stage.shop.id, name="demo", scope="write")
        standing = await one_standing(conn, stage.shop.id, shopify_customer_id=customer.customer)
    report.show_addresses(
        console,
        address=stage.served.address,
        store=stage.store,
        settings=runtime.settings,
        key=key,
        customer=customer,
        customer_id=str(standing.id),
        environment=str(folder.environment_file),
    )
