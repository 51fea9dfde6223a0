"""What came of pushing and reading back, recorded. SQL only; nothing is recorded under a lease that was lost."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString

from metafield_sync.db.database import again_after_deadlock
from metafield_sync.sync.lease import Lease, require_lease

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from metafield_sync.db.database import Database
    from metafield_sync.sync.claims import Batch, Check, Claim

RETRY_FIRST_S = 2.0
RETRY_LAST_S = 900.0
RETRY_TROUBLE_LAST_S = 30.0
RETRY_JITTER = 0.25
"""A customer that fails is tried again after 2 s, 4 s … at last every 15 minutes, each ± a quarter by chance."""
CONFLICTS_AT_ONCE_MAX = 2
"""So often in a row a customer whose digest was refused is written again at once; then somebody fights with us."""

GONE_CODE = "customer_missing"
GONE_ERROR = "Shopify has no such customer: deleted, or never there."


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong with one claimed customer.

    `gone`: Shopify has no such customer. `in_doubt`: it may have been written. `is_trouble`: Shopify did not answer,
    which is not this customer's fault. `conflict`: Shopify holds something else than the digest says.
    """

    claim: Claim
    code: str
    message: str
    gone: bool = False
    in_doubt: bool = False
    is_trouble: bool = False
    conflict: bool = False

    @property
    def delay_s(self) -> float:
        """Seconds until the next attempt. Who is in conflict is read back and written again at once, at first."""
        if self.conflict and self.claim.attempts < CONFLICTS_AT_ONCE_MAX:
            return 0.0
        return retry_delay_s(self.claim.attempts, is_trouble=self.is_trouble)

    @property
    def is_tried(self) -> bool:
        """Whether runs and whoever waits are told. First trouble, and a conflict at first, get another chance soon."""
        if self.conflict:
            return self.claim.attempts >= CONFLICTS_AT_ONCE_MAX
        return not self.is_trouble or self.claim.attempts > 0


@dataclass(frozen=True, slots=True)
class Reading:
    """What Shopify holds for one customer. `value` and `digest`: None if there is no metafield, or no whole number."""

    check: Check
    value: int | None
    digest: str | None
    gone: bool = False

    @property
    def agrees(self) -> bool:
        """Whether Shopify shows the balance that was claimed."""
        return not self.gone and self.value is not None and self.value == self.check.balance

    @property
    def is_ours(self) -> bool:
        """Whether what is there may be a write of our own whose outcome was unknown, or the last acknowledged one."""
        ours = {*(self.check.doubtful_balances or ()), self.check.pushed_balance}
        return self.value is not None and self.value in ours


async def record_pushed(db: Database, lease: Lease, batch: Batch, digests: Mapping[int, str]) -> None:
    """Note that Shopify acknowledged these claims, under the versions that were claimed.

    `digests` are Shopify's by its customer id; who has none is read back before the next write.

    Raises:
        LeaseLost: the lease is no longer ours; nothing was recorded.
    """
    await _record(db, lease, batch.call_id, RECORD_PUSHED, pushed_parameters(batch.claims, digests))


def pushed_parameters(claims: Sequence[Claim], digests: Mapping[int, str]) -> dict[str, Any]:
    """The parameters of `RECORD_PUSHED`, but for the shop."""
    return {
        "customers": [claim.customer_id for claim in claims],
        "versions": [claim.version for claim in claims],
        "balances": [claim.balance for claim in claims],
        "digests": [digests.get(claim.shopify_customer_id) for claim in claims],
        "claimed": [claim.claimed_at for claim in claims],
    }


# A posting that came after the claim has raised wanted_version: the customer stays stale, since the claim, and due.
# If a run is at work that covers the customer, what it changed is noted.
RECORD_PUSHED = """
with acknowledged as materialized (
  select t.*, m.pushed_balance as before, m.stale_since as behind_since
  from unnest(
    %(customers)s::uuid[], %(versions)s::bigint[], %(balances)s::bigint[], %(digests)s::text[],
    %(claimed)s::timestamptz[]
  ) as t (customer_id, version, balance, digest, claimed_at)
  join mirror_states m on m.shop_id = %(shop)s and m.customer_id = t.customer_id and m.status in ('live', 'missing')
),
noted as (
  insert into sync_run_changes (shop_id, run_id, customer_id, change, before, after, reason)
  select r.shop_id, r.id, a.customer_id, 'pushed', a.before::text, a.balance::text, r.kind
  from acknowledged a
  join sync_runs r on r.shop_id = %(shop)s and r.status = 'running' and a.behind_since <= r.started_at
  on conflict (shop_id, run_id, customer_id, change)
  do update set after = excluded.after, noted_at = clock_timestamp()
)
update mirror_states m
set
  pushed_version = a.version,
  pushed_balance = a.balance,
  pushed_at = clock_timestamp(),
  stale_since = case when m.wanted_version = a.version then null else a.claimed_at end,
  due_at = case when m.due_at = 'infinity' then m.due_at else clock_timestamp() end,
  status = 'live',
  digest = a.digest,
  check_at = case when a.digest is null then clock_timestamp() else m.check_at end,
  in_doubt = false,
  conflicted = false,
  attempts = 0,
  attempted_at = a.claimed_at,
  failing_since = null,
  error_code = null,
  error = null,
  dismissed_at = null
from acknowledged a
where m.shop_id = %(shop)s and m.customer_id = a.customer_id and m.pushed_version < a.version
"""


async def record_failures(
    db: Database, lease: Lease, batch: Batch, failures: Sequence[Failure], *, unread: Sequence[UUID] = ()
) -> None:
    """Note what went wrong with each, and when to try it again: never, by itself, for one who is gone.

    `unread` are further customers of the call that are to be read back before anything is written: nothing is known
    of what Shopify holds for them, and it holds something for one like them.

    Raises:
        LeaseLost: the lease is no longer ours; nothing was recorded.
    """
    await _record(db, lease, batch.call_id, RECORD_FAILURES, failure_parameters(failures, unread))


def failure_parameters(failures: Sequence[Failure], unread: Sequence[UUID] = ()) -> dict[str, Any]:
    """The parameters of `RECORD_FAILURES`, but for the shop."""
    return {
        "customers": [failure.claim.customer_id for failure in failures] + list(unread),
        "failed": [failure.claim.customer_id for failure in failures],
        "codes": [failure.code for failure in failures],
        "errors": [failure.message for failure in failures],
        "gone": [failure.gone for failure in failures],
        "doubts": [failure.in_doubt for failure in failures],
        "conflicts": [failure.conflict for failure in failures],
        "tried": [failure.is_tried for failure in failures],
        "delays": [failure.delay_s for failure in failures],
        "versions": [failure.claim.version for failure in failures],
        "balances": [failure.claim.balance for failure in failures],
        "claimed": [failure.claim.claimed_at for failure in failures],
        "unread": list(unread),
        "at_once": CONFLICTS_AT_ONCE_MAX,
    }


# One that Shopify did not answer for the first time is not tried yet: a run gives it a second chance. A conflict is no
# failure until it repeats: it is read back and written again at once.
RECORD_FAILURES = """
with unread as (
  update mirror_states m
  set check_at = clock_timestamp()
  where
    m.shop_id = %(shop)s
    and m.customer_id = any (%(unread)s)
    and m.status = 'live'
    and m.digest is null
    and m.check_at is null
)
update mirror_states m
set
  status = case when t.gone then 'missing' else 'live' end,
  in_doubt = not t.gone and (m.in_doubt or t.in_doubt or t.conflict),
  conflicted = t.conflict,
  digest = case when not t.gone then m.digest end,
  doubt_since = case when t.in_doubt then clock_timestamp() when not t.gone then m.doubt_since end,
  doubtful_balances = case
    when t.in_doubt then coalesce(m.doubtful_balances, '{}') || t.balance
    when not t.gone then m.doubtful_balances
  end,
  check_at = case
    when t.gone then null
    when t.in_doubt or t.conflict then clock_timestamp() + make_interval(secs => t.delay)
    else m.check_at
  end,
  attempts = m.attempts + 1,
  attempted_at = case when t.tried then t.claimed_at else m.attempted_at end,
  failing_since = case
    when t.conflict and m.attempts < %(at_once)s then m.failing_since
    else coalesce(m.failing_since, clock_timestamp())
  end,
  due_at = clock_timestamp() + make_interval(secs => t.delay),
  error_code = t.code,
  error = t.error
from unnest(
  %(failed)s::uuid[], %(codes)s::text[], %(errors)s::text[], %(gone)s::boolean[], %(doubts)s::boolean[],
  %(conflicts)s::boolean[], %(tried)s::boolean[], %(delays)s::double precision[], %(balances)s::bigint[],
  %(claimed)s::timestamptz[], %(versions)s::bigint[]
) as t (customer_id, code, error, gone, in_doubt, conflict, tried, delay, balance, claimed_at, version)
where
  m.shop_id = %(shop)s
  and m.customer_id = t.customer_id
  and m.pushed_version < t.version
  and m.status in ('live', 'missing')
"""


async def record_readings(db: Database, lease: Lease, readings: Sequence[Reading]) -> None:
    """Note what Shopify holds: the digests to write against, who is in step after all, who is gone.

    Raises:
        LeaseLost: the lease is no longer ours; nothing was recorded.
    """
    parameters = {
        "customers": [reading.check.customer_id for reading in readings],
        "versions": [reading.check.version for reading in readings],
        "balances": [reading.check.balance for reading in readings],
        "agree": [reading.agrees for reading in readings],
        "digests": [reading.digest for reading in readings],
        "gone": [reading.gone for reading in readings],
        "claimed": [reading.check.claimed_at for reading in readings],
        "gone_code": GONE_CODE,
        "gone_error": GONE_ERROR,
        "late": sum(not r.agrees and not r.check.stale and r.is_ours for r in readings),
        "ours": sum(r.check.conflicted and r.is_ours for r in readings),
        "foreign": sum(is_foreign(r) for r in readings),
    }
    await _record(db, lease, None, RECORD_READINGS, parameters)


def is_foreign(reading: Reading) -> bool:
    """Whether somebody else has written, or removed, what we believed to be there."""
    surprised = reading.check.conflicted or (not reading.check.stale and not reading.agrees)
    return surprised and not reading.gone and not reading.is_ours


# A write without a known outcome may be applied late: the customer is read again 10 s, 60 s and 5 min after it,
# whatever was written since, because a digest cannot tell a value that returned to what it was. A push that turns out
# to have gone through is noted with the run it was for, as an acknowledged one is.
RECORD_READINGS = """
with counted as (
  update shop_activity
  set
    late_writes = late_writes + %(late)s,
    conflicts_ours = conflicts_ours + %(ours)s,
    conflicts_foreign = conflicts_foreign + %(foreign)s
  where shop_id = %(shop)s and %(late)s + %(ours)s + %(foreign)s > 0
),
seen as (
  select
    t.*, m.pushed_balance as before, m.stale_since as behind_since,
    t.agrees and m.in_doubt and t.balance = any (m.doubtful_balances) as was_written,
    case
      when t.gone then null
      when clock_timestamp() < m.doubt_since + interval '10 seconds' then m.doubt_since + interval '10 seconds'
      when clock_timestamp() < m.doubt_since + interval '60 seconds' then m.doubt_since + interval '60 seconds'
      when clock_timestamp() < m.doubt_since + interval '5 minutes' then m.doubt_since + interval '5 minutes'
    end as next_check_at
  from unnest(
    %(customers)s::uuid[], %(versions)s::bigint[], %(balances)s::bigint[], %(agree)s::boolean[], %(digests)s::text[],
    %(gone)s::boolean[], %(claimed)s::timestamptz[]
  ) as t (customer_id, version, balance, agrees, digest, gone, claimed_at)
  join mirror_states m on m.shop_id = %(shop)s and m.customer_id = t.customer_id and m.status in ('live', 'missing')
),
noted as (
  insert into sync_run_changes (shop_id, run_id, customer_id, change, before, after, reason)
  select r.shop_id, r.id, s.customer_id, 'pushed', s.before::text, s.balance::text, r.kind
  from seen s
  join sync_runs r on r.shop_id = %(shop)s and r.status = 'running' and s.behind_since <= r.started_at
  where s.was_written
  on conflict (shop_id, run_id, customer_id, change)
  do update set after = excluded.after, noted_at = clock_timestamp()
)
update mirror_states m
set
  status = case when s.gone then 'missing' else 'live' end,
  digest = s.digest,
  in_doubt = false,
  conflicted = false,
  check_at = s.next_check_at,
  doubt_since = case when s.next_check_at is null then null else m.doubt_since end,
  doubtful_balances = case when s.next_check_at is null then null else m.doubtful_balances end,
  wanted_version = m.wanted_version + (not s.agrees and m.stale_since is null)::integer,
  pushed_version = case when s.agrees then s.version else m.pushed_version end,
  pushed_balance = case when s.agrees then s.balance else m.pushed_balance end,
  pushed_at = case when s.agrees and m.stale_since is not null then clock_timestamp() else m.pushed_at end,
  stale_since = case
    when not s.agrees then coalesce(m.stale_since, clock_timestamp())
    when m.wanted_version > s.version then s.claimed_at
  end,
  due_at = case
    when s.agrees and m.wanted_version = s.version then m.due_at
    when m.due_at in ('infinity', '-infinity') then m.due_at
    else clock_timestamp()
  end,
  attempts = case when s.agrees then 0 else m.attempts end,
  attempted_at = case
    when s.agrees or s.gone then s.claimed_at
    when m.status = 'missing' then null
    else m.attempted_at
  end,
  failing_since = case
    when s.agrees then null
    when s.gone then coalesce(m.failing_since, clock_timestamp())
    else m.failing_since
  end,
  error_code = case when s.gone then %(gone_code)s when not s.agrees then m.error_code end,
  error = case when s.gone then %(gone_error)s when not s.agrees then m.error end,
  dismissed_at = case when s.gone then m.dismissed_at end
from seen s
where m.shop_id = %(shop)s and m.customer_id = s.customer_id and m.wanted_version >= s.version
"""


async def record_not_read(db: Database, lease: Lease, checks: Sequence[Check], *, code: str, error: str) -> None:
    """Note that these could not be read back, and when to try again; who is in doubt stays so.

    Raises:
        LeaseLost: the lease is no longer ours; nothing was recorded.
    """
    parameters = {
        "customers": [check.customer_id for check in checks],
        "delays": [retry_delay_s(check.attempts, is_trouble=True) for check in checks],
        "claimed": [check.claimed_at for check in checks],
        "code": code,
        "error": error,
    }
    await _record(db, lease, None, RECORD_NOT_READ, parameters)


RECORD_NOT_READ = """
update mirror_states m
set
  check_at = clock_timestamp() + make_interval(secs => t.delay),
  due_at = case when m.due_at = 'infinity' then m.due_at else clock_timestamp() + make_interval(secs => t.delay) end,
  attempts = m.attempts + 1,
  attempted_at = case when m.in_doubt and m.attempts > 0 then t.claimed_at else m.attempted_at end,
  failing_since = case when m.in_doubt then coalesce(m.failing_since, clock_timestamp()) else m.failing_since end,
  error_code = case when m.in_doubt then %(code)s else m.error_code end,
  error = case when m.in_doubt then %(error)s else m.error end
from unnest(%(customers)s::uuid[], %(delays)s::double precision[], %(claimed)s::timestamptz[])
  as t (customer_id, delay, claimed_at)
where m.shop_id = %(shop)s and m.customer_id = t.customer_id and m.status = 'live'
"""


async def find_out_by_writing(db: Database, lease: Lease, missing: Sequence[Check]) -> None:
    """Make these due again: Shopify will not say whether they exist; a write will tell.

    Raises:
        LeaseLost: the lease is no longer ours; nothing was recorded.
    """
    await _record(db, lease, None, FIND_OUT_BY_WRITING, {"customers": [check.customer_id for check in missing]})


FIND_OUT_BY_WRITING = """
update mirror_states
set status = 'live', due_at = clock_timestamp(), attempted_at = null
where shop_id = %(shop)s and customer_id = any (%(customers)s) and status = 'missing'
"""


def retry_delay_s(attempts: int, *, is_trouble: bool = False) -> float:
    """How long to leave a customer alone that has failed `attempts` times before this one.

    In trouble that is not the customer's (Shopify did not answer) never long: the drains pace themselves then, and when
    Shopify is back everybody should be in step within a minute.
    """
    delay = min(RETRY_FIRST_S * 2 ** min(attempts, 20), RETRY_TROUBLE_LAST_S if is_trouble else RETRY_LAST_S)
    return delay * random.uniform(1 - RETRY_JITTER, 1 + RETRY_JITTER)  # noqa: S311 - spreads load, guards no secret


async def _record(
    db: Database, lease: Lease, call_id: int | None, statement: LiteralString, parameters: dict[str, Any]
) -> None:
    async def record() -> None:
        async with db.shop(lease.shop_id) as conn:
            await require_lease(conn, lease)
            await conn.execute(LOCK_ROWS, {"shop": lease.shop_id, "customers": parameters["customers"]})
            await conn.execute(statement, {"shop": lease.shop_id, **parameters})
            if call_id is not None:
                await conn.execute(END_CALL, {"shop": lease.shop_id, "call": call_id})

    await again_after_deadlock(record)


END_CALL = "delete from push_calls where shop_id = %(shop)s and id = %(call)s"

# By customer id, the order in which postings lock these rows too: nobody waits in a circle.
LOCK_ROWS = """
select 1
from mirror_states
where shop_id = %(shop)s and customer_id = any (%(customers)s)
order by customer_id
for no key update
"""
