-- The mirror: what Shopify should show, what it was last told, and what stands between the two. State, not a queue: ten
-- changes in a second cost one push, and a crash loses nothing.

create table mirror_states (
  shop_id integer not null,
  customer_id uuid not null,
  wanted_version bigint not null default 1,
  pushed_version bigint not null default 0,
  pushed_balance bigint,
  pushed_at timestamptz,
  changed_at timestamptz not null default clock_timestamp(),
  stale_since timestamptz default clock_timestamp(),
  due_at timestamptz not null default clock_timestamp(),
  status text not null default 'live',
  in_doubt boolean not null default false,
  attempts integer not null default 0,
  attempted_at timestamptz,
  failing_since timestamptz,
  error_code text,
  error text,
  dismissed_at timestamptz,
  primary key (shop_id, customer_id),
  foreign key (shop_id, customer_id) references customers (shop_id, id),
  constraint mirror_states_status_known check (status in ('live', 'missing')),
  constraint mirror_states_stale_means_behind check ((stale_since is null) = (wanted_version = pushed_version))
)
with (fillfactor = 70); -- these rows are updated far more often than added
comment on column mirror_states.stale_since is 'when Shopify fell behind; null: in step';
comment on column mirror_states.due_at is 'when to push next; -infinity: somebody is waiting for it';
comment on column mirror_states.changed_at is 'when the balance last changed';
comment on column mirror_states.in_doubt is 'the last write may or may not have been applied';

-- What the drains look for, in the order they take it. A row that is stale already is changed without touching this
-- index, so a busy customer costs it nothing.
create index mirror_states_due on mirror_states (shop_id, due_at) where stale_since is not null and status = 'live';
create index mirror_states_troubled on mirror_states (shop_id, customer_id) where failing_since is not null;

-- Raised by the database itself, in the transaction that changes the balance, so that a repair typed into psql reaches
-- Shopify too. Whoever changes many balances at once locks these rows first, by customer id, as the drains do.
create function mirror_new_customers() returns trigger
language plpgsql
as $$
begin
  insert into mirror_states (shop_id, customer_id)
  select a.shop_id, a.id from added a;
  return null;
end
$$;
create trigger customers_are_mirrored
after insert on customers referencing new table as added
for each statement execute function mirror_new_customers();

create function mirror_changed_balance() returns trigger
language plpgsql
as $$
begin
  update mirror_states m
  set
    wanted_version = m.wanted_version + 1,
    changed_at = clock_timestamp(),
    stale_since = coalesce(m.stale_since, clock_timestamp()),
    due_at = case when m.stale_since is null then clock_timestamp() else m.due_at end
  where m.shop_id = new.shop_id and m.customer_id = new.id;
  return null;
end
$$;
create trigger balances_are_mirrored
after update of current_balance on customers
for each row when (old.current_balance <> new.current_balance) execute function mirror_changed_balance();

-- One drain a shop at a time over the whole fleet. The token is checked when results are recorded, so that a drain
-- which slept through the end of its lease can do no harm when it wakes.
create table shop_leases (
  shop_id integer primary key references shops (id),
  token bigint not null default 0,
  holder text not null default '',
  expires_at timestamptz not null default '-infinity'
);

-- What a shop's mirroring has cost so far and what its budget looked like when Shopify last said: one row, raised by
-- whichever process drains, so that any process can tell.
create table shop_activity (
  shop_id integer primary key references shops (id),
  calls bigint not null default 0,
  throttled bigint not null default 0,
  points_spent bigint not null default 0,
  customers_pushed bigint not null default 0,
  customers_refused bigint not null default 0,
  outcomes_unknown bigint not null default 0,
  budget_maximum double precision,
  budget_available double precision,
  budget_restore_rate double precision,
  budget_seen_at timestamptz
);

create function prepare_new_shop() returns trigger
language plpgsql security definer set search_path = public, pg_temp
as $$
begin
  insert into shop_leases (shop_id) values (new.id);
  insert into shop_activity (shop_id) values (new.id);
  return null;
end
$$;
revoke all on function prepare_new_shop () from public; -- a trigger's function is run without asking for the right
create trigger shops_are_prepared
after insert on shops
for each row execute function prepare_new_shop();

alter table mirror_states enable row level security;
alter table shop_leases enable row level security;
alter table shop_activity enable row level security;
create policy mirror_states_of_the_shop on mirror_states using (shop_id = current_shop_id());
create policy shop_leases_of_the_shop on shop_leases using (shop_id = current_shop_id());
create policy shop_activity_of_the_shop on shop_activity using (shop_id = current_shop_id());
grant select, insert, update on mirror_states to metafield_sync_app;
grant select, update on shop_leases to metafield_sync_app;
grant select, update on shop_activity to metafield_sync_app;

-- A drain must find its shops before it acts for one: ids only. One probe of an index a shop, however many customers.
create function shops_with_work() returns setof integer
language sql stable security definer set search_path = public, pg_temp
as $$
  select s.id
  from shops s
  where
    (s.status = 'active' or (s.status = 'paused' and s.probe_at <= clock_timestamp()))
    and exists (
      select from mirror_states m
      where
        m.shop_id = s.id
        and m.stale_since is not null
        and m.status = 'live'
        and m.due_at <= clock_timestamp()
    )
  order by s.id
$$;

-- Numbers over every shop, for metrics that name none.
create function fleet_counts()
returns table (
  shops_active bigint, shops_paused bigint, stale bigint, failing bigint, missing bigint, in_doubt bigint,
  oldest_stale_seconds double precision, calls numeric, throttled numeric, points_spent numeric,
  customers_pushed numeric, customers_refused numeric, outcomes_unknown numeric
)
language sql stable security definer set search_path = public, pg_temp
as $$
  select
    (select count(*) from shops where status = 'active'),
    (select count(*) from shops where status = 'paused'),
    (select count(*) from mirror_states where stale_since is not null and status = 'live'),
    (select count(*) from mirror_states where failing_since is not null and status = 'live'),
    (select count(*) from mirror_states where failing_since is not null and status = 'missing'),
    (select count(*) from mirror_states where failing_since is not null and in_doubt),
    (
      select coalesce(max(extract(epoch from clock_timestamp() - m.stale_since)), 0)::double precision
      from mirror_states m
      join shops s on s.id = m.shop_id and s.status = 'active'
      where m.stale_since is not null and m.status = 'live'
    ),
    (select coalesce(sum(calls), 0) from shop_activity),
    (select coalesce(sum(throttled), 0) from shop_activity),
    (select coalesce(sum(points_spent), 0) from shop_activity),
    (select coalesce(sum(customers_pushed), 0) from shop_activity),
    (select coalesce(sum(customers_refused), 0) from shop_activity),
    (select coalesce(sum(outcomes_unknown), 0) from shop_activity)
$$;

revoke all on function shops_with_work () from public;
revoke all on function fleet_counts () from public;
grant execute on function shops_with_work () to metafield_sync_app;
grant execute on function fleet_counts () to metafield_sync_app;

-- How each customer stands, in the words the API uses, for people at a psql prompt too. What is worst about a customer
-- names the status. With the caller's own rights, so that row-level security holds.
create view customer_standings with (security_invoker = true) as
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
  case when m.stale_since is not null and m.status = 'live' then greatest(m.due_at, s.probe_at, clock_timestamp()) end
    as next_attempt_at,
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
grant select on customer_standings to metafield_sync_app;
