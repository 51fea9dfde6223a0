-- Webhooks received: recorded first, answered, handled later. And errands: what has to be asked of Shopify because of them.

create table inbox (
  shop_id integer not null references shops (id),
  id bigint generated always as identity,
  delivery_id text not null,
  topic text not null,
  event_id text,
  api_version text,
  triggered_at timestamptz,
  received_at timestamptz not null default clock_timestamp(),
  body_digest bytea not null,
  payload jsonb not null,
  due_at timestamptz default clock_timestamp(),
  attempts integer not null default 0,
  handled_at timestamptz,
  outcome text,
  failed_at timestamptz,
  error text,
  primary key (shop_id, id),
  constraint inbox_delivery_unique unique (shop_id, delivery_id),
  constraint inbox_stands_in_one_way check (num_nonnulls(due_at, handled_at, failed_at) = 1)
);
comment on column inbox.delivery_id is 'X-Shopify-Webhook-Id: the same for every attempt to deliver';
comment on column inbox.body_digest is 'SHA-256 of the body as it came';
comment on column inbox.payload is 'the fields that are needed, and no others: no names, addresses or e-mails';
comment on column inbox.due_at is
'when to handle it next, or until when it is claimed; null: handled, or given up';
comment on column inbox.outcome is 'what came of it, in words';
comment on column inbox.failed_at is 'given up; staff may have it handled again';
-- squawk-ignore require-concurrent-index-creation -- a table made in this very migration
create index inbox_due on inbox (shop_id, due_at) where due_at is not null;
-- squawk-ignore require-concurrent-index-creation -- the same
create index inbox_failed on inbox (shop_id, id) where failed_at is not null;
-- squawk-ignore require-concurrent-index-creation -- the same
create index inbox_handled on inbox (handled_at) where handled_at is not null;

-- What has to be asked of Shopify, once, however often it was wished for.
create table errands (
  shop_id integer not null references shops (id),
  kind text not null,
  subject text not null default '',
  due_at timestamptz not null default clock_timestamp(),
  wish integer not null default 1,
  noted_at timestamptz not null default clock_timestamp(),
  attempts integer not null default 0,
  claimed_until timestamptz,
  failing_since timestamptz,
  error text,
  primary key (shop_id, kind, subject)
);
comment on column errands.due_at is 'when to go on it next';
comment on column errands.claimed_until is 'somebody is on it until then, or died meanwhile';
comment on column errands.failing_since is 'when it failed for the first time since it was last done';
comment on column errands.wish is 'raised by each wish, so that one made meanwhile is not lost when the errand is done';
-- squawk-ignore require-concurrent-index-creation -- a table made in this very migration
create index errands_due on errands (shop_id, due_at);

alter table inbox enable row level security;
alter table errands enable row level security;
create policy inbox_of_the_shop on inbox using (shop_id = current_shop_id());
create policy errands_of_the_shop on errands using (shop_id = current_shop_id());
grant select, insert, update on inbox to metafield_sync_app;
grant select, insert, update, delete on errands to metafield_sync_app;

-- One webhook recorded, in one round trip. Its shop is known by a domain only, so it is found here, in our unprivileged
-- role, before that shop is acted for. Whether the app is installed there makes no difference: compliance webhooks come
-- after an uninstall.
create function take_delivery(
  p_domain text, p_delivery_id text, p_topic text, p_event_id text, p_api_version text, p_triggered_at timestamptz,
  p_body_digest bytea, p_payload jsonb
)
returns text
language plpgsql volatile
as $$
declare
  of_shop integer;
begin
  perform set_config('role', 'metafield_sync_app', true);
  select s.id into of_shop from shops s where s.domain = p_domain;
  if of_shop is null then
    return 'unknown_shop';
  end if;
  perform act_for_shop(of_shop);
  insert into inbox (shop_id, delivery_id, topic, event_id, api_version, triggered_at, body_digest, payload)
  values (of_shop, p_delivery_id, p_topic, p_event_id, p_api_version, p_triggered_at, p_body_digest, p_payload)
  on conflict (shop_id, delivery_id) do nothing;
  return case when found then 'taken' else 'repeated' end;
end
$$;

-- Who works for whom is found by asking. Shops with a webhook to handle; removed ones, too, have to forget and to say
-- that they did.
create function shops_with_inbox() returns setof integer
language sql stable security definer set search_path = public, pg_temp
as $$
  select s.id
  from shops s
  where exists (select from inbox i where i.shop_id = s.id and i.due_at <= clock_timestamp())
  order by s.id
$$;
revoke all on function shops_with_inbox () from public;
grant execute on function shops_with_inbox () to metafield_sync_app;

-- Shops with an errand that is due and of a kind the asker knows. Who is paused, or not installed to the end, is left
-- alone, but for the kinds that are done even then.
create function shops_with_errands(p_kinds text [], p_even_if_held text []) returns setof integer
language sql stable security definer set search_path = public, pg_temp
as $$
  select s.id
  from shops s
  where
    s.status <> 'removed'
    and exists (
      select
      from errands e
      where
        e.shop_id = s.id
        and e.due_at <= clock_timestamp()
        and e.kind = any (p_kinds)
        and ((s.status = 'active' and s.hold is null) or e.kind = any (p_even_if_held))
        and (e.claimed_until is null or e.claimed_until <= clock_timestamp())
    )
  order by s.id
$$;
revoke all on function shops_with_errands (text [], text []) from public;
grant execute on function shops_with_errands (text [], text []) to metafield_sync_app;

-- How both stand over all shops, for metrics that name none. Errands of a shop that staff paused, or whose installation
-- waits for staff's choice, wait because they are meant to; those of a removed one wait for nothing.
create function fleet_incoming()
returns table (
  inbox_waiting bigint, inbox_failed bigint, inbox_oldest_seconds double precision,
  errands_waiting bigint, errands_failing bigint, errands_oldest_seconds double precision
)
language sql stable security definer set search_path = public, pg_temp
as $$
  select
    w.waiting,
    (select count(*) from inbox i where i.failed_at is not null),
    coalesce(extract(epoch from clock_timestamp() - w.oldest)::double precision, 0),
    e.waiting,
    e.failing,
    greatest(coalesce(extract(epoch from clock_timestamp() - e.oldest)::double precision, 0), 0)
  from (
    select count(*) as waiting, min(i.received_at) as oldest from inbox i where i.due_at is not null
  ) w
  cross join (
    select
      count(*) filter (where r.due_at <= clock_timestamp()) as waiting,
      count(*) filter (where r.failing_since is not null) as failing,
      min(coalesce(r.failing_since, r.due_at)) as oldest
    from errands r
    join shops s
      on
        s.id = r.shop_id
        and (s.status = 'active' or s.probe_at is not null)
        and s.hold is distinct from 'values_found'
  ) e
$$;
revoke all on function fleet_incoming () from public;
grant execute on function fleet_incoming () to metafield_sync_app;

-- Remove webhooks that were handled so many days ago, and those given up so many days ago: at most so many rows, the
-- oldest first. Fewer removed than allowed: there are no more. The application itself may remove none.
create function prune_inbox(p_handled_days integer, p_failed_days integer, p_rows integer) returns integer
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
  removed integer;
  n integer;
begin
  delete from inbox i
  where i.ctid = any (
    array(
      select d.ctid
      from inbox d
      where d.handled_at < clock_timestamp() - make_interval(days => greatest(p_handled_days, 1))
      order by d.handled_at
      limit p_rows
    )
  );
  get diagnostics removed = row_count;
  delete from inbox i
  where i.ctid = any (
    array(
      select d.ctid
      from inbox d
      where d.failed_at < clock_timestamp() - make_interval(days => greatest(p_failed_days, 1))
      limit p_rows - removed
    )
  );
  get diagnostics n = row_count;
  return removed + n;
end
$$;
revoke all on function prune_inbox (integer, integer, integer) from public;
grant execute on function prune_inbox (integer, integer, integer) to metafield_sync_app;
