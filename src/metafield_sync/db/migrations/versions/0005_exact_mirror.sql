-- The mirror at full strength: no late write wins, whole shops go by bulk operation, every run says what it changed.

alter table mirror_states
add column digest text,
add column check_at timestamptz,
add column doubt_since timestamptz,
add column doubtful_balances bigint[],
add column conflicted boolean not null default false;
comment on column mirror_states.digest is 'Shopify''s compareDigest of what it was last known to hold; null: none known';
comment on column mirror_states.in_doubt is 'what Shopify holds is unknown; it is read back before anything is written';
comment on column mirror_states.check_at is 'when to read back what Shopify holds; null: no need';
comment on column mirror_states.doubt_since is 'the last write without a known outcome; it may be applied late';
comment on column mirror_states.doubtful_balances is 'what such writes would have written: ours, if it turns up';
comment on column mirror_states.conflicted is 'Shopify holds something else than the digest says: somebody else wrote';
comment on column mirror_states.due_at is
'when to push next; -infinity: somebody is waiting for it; infinity: a backfill holds it';

update mirror_states set check_at = clock_timestamp() where in_doubt;
alter table mirror_states
add constraint mirror_states_in_doubt_is_behind check (not in_doubt or stale_since is not null) not valid; -- old rows hold
-- squawk-ignore require-concurrent-index-creation -- one transaction a migration; empty until the first doubt
create index mirror_states_checks on mirror_states (shop_id, check_at) where check_at is not null;

-- Calls that have left and whose outcome is not recorded: written before they leave, removed with what came of them.
-- What a killed process leaves here tells whoever takes over which customers may have been written, and what.
create table push_calls (
  shop_id integer not null references shops (id),
  id bigint generated always as identity,
  token bigint not null,
  customers uuid[] not null,
  balances bigint[] not null,
  sent_at timestamptz not null default clock_timestamp(),
  primary key (shop_id, id)
);
comment on column push_calls.token is 'the fencing token of the drain that sent it';
alter table push_calls enable row level security;
create policy push_calls_of_the_shop on push_calls using (shop_id = current_shop_id());
grant select, insert, delete on push_calls to metafield_sync_app;

alter table shop_activity
add column customers_read bigint not null default 0,
add column conflicts_ours bigint not null default 0,
add column conflicts_foreign bigint not null default 0,
add column late_writes bigint not null default 0,
add column backfilled bigint not null default 0,
add column drifts bigint not null default 0;
comment on column shop_activity.conflicts_ours is 'refused digests where a late write of our own had come between';
comment on column shop_activity.conflicts_foreign is 'refused digests where somebody else had written';
comment on column shop_activity.late_writes is 'customers in step whose reading back showed that a late write had won';

-- A whole shop at once: one at a time for each shop, its steps on record so that a restart goes on where it was.
create table backfills (
  shop_id integer not null references shops (id),
  id uuid not null default gen_random_uuid(),
  started_at timestamptz not null default clock_timestamp(),
  finished_at timestamptz,
  reading_asked_at timestamptz,
  reading_operation text,
  values_read_at timestamptz,
  collected_after uuid,
  collected_at timestamptz,
  customers bigint not null default 0,
  written bigint not null default 0,
  refused bigint not null default 0,
  unknown bigint not null default 0,
  attempts integer not null default 0,
  next_step_at timestamptz not null default clock_timestamp(),
  error text,
  primary key (shop_id, id)
);
create unique index backfills_open on backfills (shop_id) where finished_at is null;
comment on column backfills.reading_asked_at is 'from then on Shopify may be running the query that reads its values';

create table backfill_files (
  shop_id integer not null,
  backfill_id uuid not null,
  number integer not null,
  lines integer not null default 0,
  staged_path text,
  asked_at timestamptz,
  operation text,
  polls integer not null default 0,
  poll_at timestamptz,
  finished_at timestamptz,
  primary key (shop_id, backfill_id, number),
  foreign key (shop_id, backfill_id) references backfills (shop_id, id)
);
comment on column backfill_files.asked_at is 'from then on Shopify may be running it';

create table backfill_lines (
  shop_id integer not null,
  backfill_id uuid not null,
  file integer not null,
  line integer not null,
  customer_id uuid not null,
  shopify_customer_id bigint not null,
  version bigint not null,
  balance bigint not null,
  claimed_at timestamptz not null,
  primary key (shop_id, backfill_id, file, line),
  foreign key (shop_id, backfill_id, file) references backfill_files (shop_id, backfill_id, number),
  foreign key (shop_id, customer_id) references mirror_states (shop_id, customer_id)
);
comment on column backfill_lines.line is 'counted from 0, as Shopify counts them; a line goes when its result is recorded';

alter table backfills enable row level security;
alter table backfill_files enable row level security;
alter table backfill_lines enable row level security;
create policy backfills_of_the_shop on backfills using (shop_id = current_shop_id());
create policy backfill_files_of_the_shop on backfill_files using (shop_id = current_shop_id());
create policy backfill_lines_of_the_shop on backfill_lines using (shop_id = current_shop_id());
grant select, insert, update on backfills to metafield_sync_app;
grant select, insert, update on backfill_files to metafield_sync_app;
grant select, insert, delete on backfill_lines to metafield_sync_app;

-- Reconciliation is a third kind of run.
alter table sync_runs
add column repair boolean not null default false,
-- squawk-ignore ban-drop-constraint -- replaced by a wider one, which old rows satisfy as they are
drop constraint sync_runs_kind_known,
add constraint sync_runs_kind_known check (kind in ('sync', 'verify', 'reconcile')) not valid;
comment on column sync_runs.repair is 'a reconciliation that writes what it found wrong, rather than only report it';

-- What a run changed or could not change, customer by customer: the answer to "why did this balance change in Shopify?".
create table sync_run_changes (
  shop_id integer not null,
  run_id uuid not null,
  customer_id uuid not null,
  change text not null,
  before text,
  after text,
  reason text not null,
  noted_at timestamptz not null default clock_timestamp(),
  primary key (shop_id, run_id, customer_id, change),
  foreign key (shop_id, run_id) references sync_runs (shop_id, id),
  foreign key (shop_id, customer_id) references customers (shop_id, id),
  constraint sync_run_changes_change_known check (change in ('pushed', 'failed', 'drift'))
);
comment on column sync_run_changes.before is 'what Shopify showed, as far as known, as text; null: nothing, or unknown';
comment on column sync_run_changes.after is 'pushed: what it shows now; failed and drift: what it should show';
comment on column sync_run_changes.reason is 'pushed: sync, verify …; failed: the error; drift: its class';
alter table sync_run_changes enable row level security;
create policy sync_run_changes_of_the_shop on sync_run_changes using (shop_id = current_shop_id());
grant select, insert, update on sync_run_changes to metafield_sync_app;

-- Somebody to push, somebody to read back, or a step of a backfill to take; a shop that Shopify refused is asked from
-- time to time whether it is back, whatever there is to do.
create or replace function shops_with_work() returns setof integer
language sql stable security definer set search_path = public, pg_temp
as $$
  select s.id
  from shops s
  where
    (s.status = 'paused' and s.probe_at <= clock_timestamp())
    or (
      s.status = 'active'
      and (
        exists (
          select from mirror_states m
          where
            m.shop_id = s.id
            and m.stale_since is not null
            and m.status = 'live'
            and m.due_at <= clock_timestamp()
        )
        or exists (select from mirror_states m where m.shop_id = s.id and m.check_at <= clock_timestamp())
        or exists (
          select from backfills b
          where b.shop_id = s.id and b.finished_at is null and b.next_step_at <= clock_timestamp()
        )
      )
    )
  order by s.id
$$;

-- squawk-ignore ban-drop-function -- it answers more columns; a process of before is told to restart by its own start
drop function fleet_counts();
create function fleet_counts()
returns table (
  shops_active bigint, shops_paused bigint, stale bigint, failing bigint, missing bigint, in_doubt bigint,
  oldest_stale_seconds double precision, backfilling bigint, calls numeric, throttled numeric, points_spent numeric,
  customers_pushed numeric, customers_read numeric, customers_refused numeric, outcomes_unknown numeric,
  conflicts_ours numeric, conflicts_foreign numeric, late_writes numeric, drifts numeric
)
language sql stable security definer set search_path = public, pg_temp
as $$
  select
    (select count(*) from shops where status = 'active'),
    (select count(*) from shops where status = 'paused'),
    (select count(*) from mirror_states where stale_since is not null and status = 'live'),
    (select count(*) from mirror_states where failing_since is not null and status = 'live'),
    (select count(*) from mirror_states where failing_since is not null and status = 'missing'),
    (select count(*) from mirror_states where check_at is not null and in_doubt),
    (
      select coalesce(max(extract(epoch from clock_timestamp() - m.stale_since)), 0)::double precision
      from mirror_states m
      join shops s on s.id = m.shop_id and (s.status = 'active' or s.probe_at is not null)
      where m.stale_since is not null and m.status = 'live'
    ),
    (select count(*) from backfills where finished_at is null),
    coalesce(sum(a.calls), 0), coalesce(sum(a.throttled), 0), coalesce(sum(a.points_spent), 0),
    coalesce(sum(a.customers_pushed), 0), coalesce(sum(a.customers_read), 0), coalesce(sum(a.customers_refused), 0),
    coalesce(sum(a.outcomes_unknown), 0), coalesce(sum(a.conflicts_ours), 0), coalesce(sum(a.conflicts_foreign), 0),
    coalesce(sum(a.late_writes), 0), coalesce(sum(a.drifts), 0)
  from shop_activity a
$$;

-- Failures by Shopify's or our own code, and runs by kind and outcome: numbers over every shop.
create function fleet_failures() returns table (code text, customers bigint)
language sql stable security definer set search_path = public, pg_temp
as $$
  select coalesce(m.error_code, 'unknown'), count(*)
  from mirror_states m
  where m.failing_since is not null
  group by 1
$$;
create function fleet_runs() returns table (kind text, trigger text, status text, runs bigint)
language sql stable security definer set search_path = public, pg_temp
as $$
  select r.kind, r.trigger, r.status, count(*)
  from sync_runs r
  group by r.kind, r.trigger, r.status
$$;
-- The figures to alarm on, shop by shop: who is stale, and what is left of the budget.
create function fleet_shops()
returns table (
  shop_id integer, oldest_stale_seconds double precision, points_available double precision,
  points_maximum double precision
)
language sql stable security definer set search_path = public, pg_temp
as $$
  select
    s.id,
    coalesce(
      (
        select extract(epoch from clock_timestamp() - min(m.stale_since))::double precision
        from mirror_states m
        where m.shop_id = s.id and m.stale_since is not null and m.status = 'live'
      ),
      0
    ),
    least(
      a.budget_maximum,
      a.budget_available + a.budget_restore_rate * extract(epoch from clock_timestamp() - a.budget_seen_at)
    ),
    a.budget_maximum
  from shops s
  join shop_activity a on a.shop_id = s.id
  where s.status = 'active' or (s.status = 'paused' and s.probe_at is not null)
$$;
revoke all on function fleet_shops () from public;
grant execute on function fleet_shops () to metafield_sync_app;

revoke all on function fleet_counts () from public;
revoke all on function fleet_failures () from public;
revoke all on function fleet_runs () from public;
grant execute on function fleet_counts () to metafield_sync_app;
grant execute on function fleet_failures () to metafield_sync_app;
grant execute on function fleet_runs () to metafield_sync_app;

-- As before, but one that a backfill holds has no next attempt of its own: infinity is no date outside PostgreSQL.
create or replace view customer_standings with (security_invoker = true) as
select
  c.shop_id,
  c.id,
  c.shopify_customer_id,
  c.current_balance as balance,
  coalesce(tip.sequence, 0) as sequence,
  c.created_at,
  case
    when m.status = 'missing' then 'missing'
    when m.in_doubt then 'in_doubt'
    when m.stale_since is null then 'in_step'
    when s.status = 'paused' then 'paused'
    when m.failing_since is not null then 'failing'
    else 'stale'
  end as status,
  m.pushed_balance,
  m.pushed_at,
  m.stale_since,
  m.attempts,
  case when m.stale_since is not null and s.status = 'paused' then coalesce(m.error, s.paused_detail) else m.error end
    as error,
  m.failing_since,
  case
    when m.stale_since is not null and m.status = 'live' and m.due_at < 'infinity'
      then greatest(m.due_at, s.probe_at, clock_timestamp())
  end as next_attempt_at,
  m.dismissed_at
from customers c
join mirror_states m on m.shop_id = c.shop_id and m.customer_id = c.id
join shops s on s.id = c.shop_id
left join lateral (
  select l.sequence
  from ledger_entries l
  where l.shop_id = c.shop_id and l.customer_id = c.id
  order by l.sequence desc
  limit 1
) tip on true;
