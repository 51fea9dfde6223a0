"""Connections for the running program. Every transaction gives up its privileges and names its shop first."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, NewType, Self, TypeVar

import psycopg
from psycopg import AsyncConnection, AsyncCursor, AsyncPipeline
from psycopg.rows import Row, TupleRow
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from metafield_sync.db.migrate import CONNECT_TIMEOUT_S, DatabaseUnusable
from metafield_sync.errors import AppError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

T = TypeVar("T")

ShopId = NewType("ShopId", int)
"""Our number for a shop; the first column of every key."""

POOL_CONNECTIONS_MAX = 20
DEADLOCK_TRIES_MAX = 5
POOL_WAIT_S = 10
"""How long a request waits for a free connection before it is told the database is busy."""


LOCK_WAIT_S = 5
"""How long a transaction waits for a lock (`act_for_shop` sets it), so that one customer held by a hand-written
transaction cannot use up the connections of all."""


class RowsBusy(AppError):
    """Somebody else's transaction holds rows that this one needs; nothing was changed."""

    code = "rows_busy"
    status = 503


class _Connection(AsyncConnection[TupleRow]):
    """One that knows the pipeline it is in, if any."""

    pipeline_at_work: AsyncPipeline | None = None


class _Cursor(AsyncCursor[Row]):
    """One that ends its request before it reads the answer, in a pipeline too.

    By itself psycopg only asks for the answers so far, and until the next request is ended the server waits for more of
    it, without any limit of time. So a frozen process would never count as idle in its transaction.
    """

    async def fetchone(self) -> Row | None:
        await self._end_request()
        return await super().fetchone()

    async def fetchall(self) -> list[Row]:
        await self._end_request()
        return await super().fetchall()

    async def _end_request(self) -> None:
        conn = self.connection
        if self.pgresult is None and isinstance(conn, _Connection) and conn.pipeline_at_work is not None:
            await conn.pipeline_at_work.sync()


class Database:
    """A pool of connections to one PostgreSQL. Open it with `async with`.

    Args:
        conninfo: where it is; a function, when that may change while we run.
        connections_max: how many connections at most.
    """

    def __init__(self, conninfo: str | Callable[[], str], *, connections_max: int = POOL_CONNECTIONS_MAX) -> None:
        # Autocommit: a single statement is its own transaction and one round trip; longer ones open theirs below.
        self._pool = AsyncConnectionPool(
            conninfo,
            connection_class=_Connection,
            min_size=1,
            max_size=connections_max,
            timeout=POOL_WAIT_S,
            open=False,
            kwargs={"autocommit": True, "connect_timeout": CONNECT_TIMEOUT_S, "cursor_factory": _Cursor},
            configure=self._configure,
        )
        self._isolated_otherwise = False
        """Whether transactions that do not say so would be isolated in another way than ours must be."""

    async def __aenter__(self) -> Self:
        await self._pool.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._pool.close()

    async def _configure(self, conn: _Connection) -> None:
        async with conn.cursor() as cur:
            await cur.execute(BEGIN_SESSION)
            row = await cur.fetchone()
        assert row is not None, "a select without a table has one row"  # noqa: S101 - PostgreSQL's promise
        server_pid, isolation, _ = row
        if server_pid != conn.info.backend_pid:
            # Somebody in between invents these numbers: a pooler, which may hand each transaction to another session,
            # where what was prepared in the last one is unknown, or known by the name of something else.
            conn.prepare_threshold = None
        self._isolated_otherwise = self._isolated_otherwise or isolation != "read committed"

    @asynccontextmanager
    async def shop(self, shop_id: ShopId) -> AsyncGenerator[AsyncConnection]:
        """One transaction that sees and touches `shop_id`'s rows alone; committed at the end, rolled back on an error.

        BEGIN, the role and the shop travel with the first statement (a pipeline), so they cost no round trip.

        Raises:
            DatabaseUnusable: no connection could be had.
        """
        async with self._pooled() as conn, _transaction(conn):
            await conn.execute("select act_for_shop(%s)", (shop_id,))
            yield conn

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[AsyncConnection]:
        """A connection in autocommit, for one statement that takes its role itself (a function such as post_entries).

        Raises:
            DatabaseUnusable: no connection could be had.
        """
        async with self._pooled() as conn:
            if self._isolated_otherwise:
                async with _transaction(conn):
                    yield conn
            else:
                yield conn

    @asynccontextmanager
    async def _pooled(self) -> AsyncGenerator[_Connection]:
        try:
            async with self._pool.connection() as conn:
                yield conn
        except PoolTimeout as error:
            raise DatabaseUnusable("The database is unreachable or overloaded; try again in a moment.") from error
        except psycopg.errors.LockNotAvailable as error:
            raise RowsBusy(
                f"Another transaction has held what this needs for {LOCK_WAIT_S} s; try again in a moment. "
                "If it goes on, look for a session that is idle in a transaction."
            ) from error
        except psycopg.OperationalError as error:
            if error.sqlstate is None or error.sqlstate.startswith(("57P", "08")):
                # Where one connection broke, the idle ones did too: replaced now, they cost no further request.
                await self._pool.check()
                raise DatabaseUnusable("The connection to the database was lost; try again in a moment.") from error
            raise

    @asynccontextmanager
    async def unscoped(self) -> AsyncGenerator[AsyncConnection]:
        """One transaction in our unprivileged role that acts for no shop: `shops`, and the functions that find one.

        Every other table looks empty from here.
        """
        async with self.shop(ShopId(0)) as conn:
            yield conn


# What a pool's new connection is asked. Times are read in UTC: in another zone the first and last hours of the calendar
# cannot be represented. (Where sessions change behind a pooler, it carries the time zone along.)
BEGIN_SESSION = """
select
  pg_backend_pid(), current_setting('default_transaction_isolation'), set_config('TimeZone', 'UTC', false)
"""

# Whatever the database's default is: at another level, who has waited for a lock could not see what it waited for.
BEGIN = "begin isolation level read committed"


@asynccontextmanager
async def _transaction(conn: _Connection) -> AsyncGenerator[None]:
    """BEGIN and COMMIT, or ROLLBACK on an error."""
    try:
        # By hand, because psycopg's `transaction()` waits for the answer to BEGIN before anything may follow, and once
        # more before COMMIT. Here they travel with what comes next to them.
        async with conn.pipeline() as conn.pipeline_at_work:
            await conn.execute(BEGIN, prepare=False)
            yield
            await conn.execute("commit", prepare=False)
    except BaseException:
        with suppress(psycopg.Error):
            await conn.rollback()
        raise
    finally:
        conn.pipeline_at_work = None


async def again_after_deadlock(transact: Callable[[], Awaitable[T]]) -> T:
    """Run a whole transaction, and again when PostgreSQL chose it to break a deadlock.

    Ours lock in one order, so it takes a hand-written one from outside, such as a repair of many balances in one
    statement. The server has rolled ours back whole; running it again is safe.
    """
    for _ in range(1, DEADLOCK_TRIES_MAX):
        with suppress(psycopg.errors.DeadlockDetected):
            return await transact()
    return await transact()
