-- Merged and redacted customers. A merged one stays, with its history, and points to who has its points now; a redacted
-- one stays too, with its amounts, but nothing says any more who it was.

alter table customers
add column merged_into uuid,
add column merged_at timestamptz,
add column redacted_at timestamptz,
add column has_absorbed boolean not null default false,
-- squawk-ignore ban-drop-not-null -- a process of before is told to restart by its own start
alter column shopify_customer_id drop not null,
add constraint customers_merged_into_another check (merged_into <> id) not valid, -- old rows hold
add constraint customers_merged_at_a_time check ((merged_into is null) = (merged_at is null)) not valid,
add constraint customers_redacted_are_nameless
check ((shopify_customer_id is null) = (redacted_at is not null)) not valid,
add constraint customers_survivor_exists
foreign key (shop_id, merged_into) references customers (shop_id, id) not valid;
comment on column customers.merged_into is
'who has the points now: never itself merged, for whoever was merged into it goes along when it is';
comment on column customers.has_absorbed is 'others were merged into this one: their keys count too';
comment on column customers.shopify_customer_id is 'null: redacted';
-- squawk-ignore require-concurrent-index-creation -- one transaction a migration; empty until the first merge
create index customers_merged on customers (shop_id, merged_into) where merged_into is not null;

-- Shopify's ids of who was redacted, so that a late webhook does not bring them back: as digests, and beside no amount,
-- so that it names nobody whom one does not know already.
create table redacted_customers (
  shop_id integer not null references shops (id),
  digest bytea not null,
  primary key (shop_id, digest)
);

-- What a shopper has asked the merchant for, as Shopify passed it on. The document is made when it is read.
create table data_requests (
  shop_id integer not null references shops (id),
  id bigint not null,
  shopify_customer_id bigint,
  orders_requested bigint[] not null default '{}',
  received_at timestamptz not null default clock_timestamp(),
  completed_at timestamptz,
  primary key (shop_id, id)
);
comment on column data_requests.id is 'Shopify''s number of the request';
comment on column data_requests.shopify_customer_id is 'null: redacted since';
comment on column data_requests.completed_at is 'when the merchant said that the document was handed over';

alter table redacted_customers enable row level security;
alter table data_requests enable row level security;
create policy redacted_customers_of_the_shop on redacted_customers using (shop_id = current_shop_id());
create policy data_requests_of_the_shop on data_requests using (shop_id = current_shop_id());
grant select, insert on redacted_customers to metafield_sync_app;
grant select, insert, update on data_requests to metafield_sync_app;
grant update (merged_into, merged_at, redacted_at, has_absorbed, shopify_customer_id)
on customers to metafield_sync_app;

create function redaction_digest(p_shop_id integer, p_shopify_customer_id bigint) returns bytea
language sql immutable parallel safe
as $$ select sha256(convert_to(p_shop_id || '/' || p_shopify_customer_id, 'UTF8')) $$;

create function is_redacted(p_shop_id integer, p_shopify_customer_id bigint) returns boolean
language sql stable parallel safe
as $$
  select exists (
    select from redacted_customers r
    where r.shop_id = p_shop_id and r.digest = redaction_digest(p_shop_id, p_shopify_customer_id)
  )
$$;

-- Whether a webhook is about somebody who was redacted, or one of their orders. In a shop that has never redacted
-- anybody it costs one look into an empty index.
create function names_redacted(p_shop_id integer, p_topic text, p_payload jsonb) returns boolean
language plpgsql stable
as $$
begin
  if not exists (select from redacted_customers r where r.shop_id = p_shop_id) then
    return false;
  end if;
  return exists (
    select
    from
      unnest(
        array[
          p_payload #>> '{customer,id}',
          case when p_topic like 'customers/%' then p_payload ->> 'id' end,
          substring(p_payload ->> 'admin_graphql_api_customer_kept_id' from '[0-9]+$'),
          substring(p_payload ->> 'admin_graphql_api_customer_deleted_id' from '[0-9]+$')
        ]
      ) as n (id)
    where n.id ~ '^[0-9]{1,18}$' and is_redacted(p_shop_id, n.id::bigint)
  ) or exists (
    select
    from orders o
    where
      o.shop_id = p_shop_id
      and o.is_forgotten
      and o.order_id::text = case
        when p_topic like 'orders/%' then p_payload ->> 'id'
        when p_topic like 'refunds/%' then p_payload ->> 'order_id'
      end
  );
end
$$;

-- However somebody comes to be inserted (a posting, a webhook, an import): nobody who was redacted is. They are left
-- out rather than refused, so that their neighbours in the same statement are not.
create function keep_redacted_customers_out() returns trigger
language plpgsql
as $$
begin
  if is_redacted(new.shop_id, new.shopify_customer_id) then
    return null;
  end if;
  return new;
end
$$;
create trigger redacted_customers_stay_out
before insert on customers
for each row execute function keep_redacted_customers_out();

-- Two further reasons for a mirror row to be at rest, for good: it is neither pushed, nor read back, nor counted.
alter table mirror_states
-- squawk-ignore ban-drop-constraint -- replaced by a wider one, which old rows satisfy as they are
drop constraint mirror_states_status_known,
add constraint mirror_states_status_known check (status in ('live', 'missing', 'merged', 'redacted')) not valid;

create or replace function mirror_changed_balance() returns trigger
language plpgsql
as $$
begin
  update mirror_states m
  set
    wanted_version = m.wanted_version + 1,
    changed_at = clock_timestamp(),
    stale_since = coalesce(m.stale_since, clock_timestamp()),
    due_at = case when m.stale_since is null then clock_timestamp() else m.due_at end
  where m.shop_id = new.shop_id and m.customer_id = new.id and m.status in ('live', 'missing');
  return null;
end
$$;

-- As before; merged customers say so, and whom to ask for instead. Redacted ones are not shown.
create or replace view customer_standings with (security_invoker = true) as
select
  c.shop_id,
  c.id,
  c.shopify_customer_id,
  c.current_balance as balance,
  coalesce(tip.sequence, 0) as sequence,
  c.created_at,
  case
    when m.status in ('missing', 'merged') then m.status
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
  m.dismissed_at,
  c.merged_into
from customers c
join mirror_states m on m.shop_id = c.shop_id and m.customer_id = c.id
join shops s on s.id = c.shop_id
left join lateral (
  select l.sequence
  from ledger_entries l
  where l.shop_id = c.shop_id and l.customer_id = c.id
  order by l.sequence desc
  limit 1
) tip on true
where c.redacted_at is null;

-- An entry of a merged customer is taken back from the survivor, whose entries have numbers of their own: so a reversal
-- says whose entry it takes back, if not one of its own customer's. Taken back is an entry once, wherever it was.
alter table ledger_entries add column reverses_customer_id uuid;
comment on column ledger_entries.reverses_customer_id is 'whose entry number `reverses` is; null: of the same customer';
-- squawk-ignore require-concurrent-index-deletion -- one transaction a migration
drop index ledger_entries_reversed_once;
-- squawk-ignore require-concurrent-index-creation -- one transaction a migration; few entries are reversals
create unique index ledger_entries_reversed_once
on ledger_entries (
  shop_id, (case when reverses_customer_id is not null then reverses_customer_id else customer_id end), reverses
)
where reverses is not null;

-- The entry that a key stands for, of a customer and of all who were merged into it. Two of them may have used the same
-- key, each for a posting of their own: then the one that was the same request, and of such the first.
create function entry_along_the_merges(
  p_shop_id integer, p_customer_id uuid, p_external_id text, p_amount bigint, p_reason text
)
returns setof ledger_entries
language sql stable rows 1
as $$
  select l.*
  from ledger_entries l
  join customers c on c.shop_id = l.shop_id and c.id = l.customer_id
  where
    l.shop_id = p_shop_id
    and l.external_id = p_external_id
    and (c.id = p_customer_id or c.merged_into = p_customer_id)
  order by (l.amount = p_amount and l.reason = p_reason) desc, l.created_at, l.customer_id
  limit 1
$$;

-- Both answer one column more, and are therefore made anew.
-- squawk-ignore ban-drop-function -- a process of before is told to restart by its own start
drop function post_entry(integer, text, uuid, bigint, bigint, text, text, jsonb, timestamptz, boolean);
-- squawk-ignore ban-drop-function -- the same
drop function post_entries(integer, text, jsonb);

-- As before, and a posting that names a merged customer is the survivor's. Merges are rare: an ordinary posting finds
-- its customer by the same one look as before, and only who was merged with somebody pays for more.
create function post_entry(
  p_shop_id integer, p_actor text, p_customer_id uuid, p_shopify_customer_id bigint, p_amount bigint, p_reason text,
  p_external_id text, p_metadata jsonb, p_occurred_at timestamptz, p_allow_negative boolean
)
returns table (
  ord integer, outcome text, customer_id uuid, sequence bigint, amount bigint, balance_after bigint, reason text,
  external_id text, metadata jsonb, actor text, reverses_customer_id uuid, reverses bigint, occurred_at timestamptz,
  created_at timestamptz, balance bigint
)
language plpgsql volatile
as $$
#variable_conflict use_column
declare
  found_id uuid;
  stored_balance bigint;
  absorbed_others boolean;
  named customers;
  tip_sequence bigint := 0;
  tip_created_at timestamptz;
  entry ledger_entries;
  tries integer := 0;
begin
  -- As act_for_shop does, without the cost of another function. And until the end of the transaction no table is
  -- scanned: a session that planned this while the ledger was empty would go on reading all of it for every posting.
  perform
    set_config('role', 'metafield_sync_app', true),
    set_config('metafield_sync.shop_id', p_shop_id::text, true),
    set_config('lock_timeout', '5s', true),
    set_config('enable_seqscan', 'off', true);
  ord := 1;
  balance := 0;

  -- The lock comes before anything of the customer's is read; what follows sees every entry that was waited for. Who
  -- was merged into another, or redacted, is not found this way, nor who was at the very moment of waiting.
  loop
    if p_customer_id is not null then
      select c.id, c.current_balance, c.has_absorbed into found_id, stored_balance, absorbed_others
      from customers c
      where c.shop_id = p_shop_id and c.id = p_customer_id and c.merged_into is null and c.redacted_at is null
      for no key update;
    else
      select c.id, c.current_balance, c.has_absorbed into found_id, stored_balance, absorbed_others
      from customers c
      where c.shop_id = p_shop_id and c.shopify_customer_id = p_shopify_customer_id and c.merged_into is null
      for no key update;
    end if;
    exit when found_id is not null;
    tries := tries + 1;
    if tries > 100 then
      raise exception 'customer % is merged into nobody who is there', p_customer_id;
    end if;

    if p_customer_id is not null then
      select c.* into named
      from customers c
      where c.shop_id = p_shop_id and c.id = p_customer_id;
    else
      select c.* into named
      from customers c
      where c.shop_id = p_shop_id and c.shopify_customer_id = p_shopify_customer_id;
    end if;
    -- Unlocked until now, so that customers are locked in no other order than everywhere.
    if named.merged_into is not null and named.redacted_at is null then
      p_customer_id := named.merged_into;
      continue;
    end if;
    if named.redacted_at is not null or (named.id is null and is_redacted(p_shop_id, p_shopify_customer_id)) then
      outcome := 'customer_redacted';
      return next;
      return;
    end if;
    continue when named.id is not null; -- it was made, or let go, between the two looks
    if p_customer_id is not null then
      outcome := 'customer_not_found';
      return next;
      return;
    end if;
    outcome := refusal_of(0, p_amount, p_allow_negative);
    if outcome is not null then
      return next;
      return;
    end if;
    -- Whoever else creates the same customer at this moment is waited for, and found the next time round.
    insert into customers (shop_id, shopify_customer_id)
    values (p_shop_id, p_shopify_customer_id)
    on conflict (shop_id, shopify_customer_id) do nothing;
  end loop;

  select l.sequence, l.balance_after, l.created_at into tip_sequence, balance, tip_created_at
  from ledger_entries l
  where l.shop_id = p_shop_id and l.customer_id = found_id
  order by l.sequence desc
  limit 1;
  tip_sequence := coalesce(tip_sequence, 0);
  balance := coalesce(balance, 0);

  if p_external_id is not null then
    if absorbed_others then
      select l.* into entry
      from entry_along_the_merges(p_shop_id, found_id, p_external_id, p_amount, p_reason) l;
    else
      select l.* into entry
      from ledger_entries l
      where l.shop_id = p_shop_id and l.customer_id = found_id and l.external_id = p_external_id;
    end if;
  end if;
  if entry.sequence is not null then
    outcome := case
      when entry.amount = p_amount and entry.reason = p_reason then 'replayed' else 'idempotency_conflict'
    end;
    select m.metadata into metadata
    from ledger_metadata m
    where m.shop_id = p_shop_id and m.customer_id = entry.customer_id and m.sequence = entry.sequence;
  else
    outcome := refusal_of(balance, p_amount, p_allow_negative);
    if outcome is not null then
      return next;
      return;
    end if;
    outcome := 'recorded';
    metadata := p_metadata;
    -- Counts from the last entry, never from the stored balance, which somebody may have damaged.
    if stored_balance <> balance then
      insert into balance_corrections (shop_id, customer_id, stored, calculated, found_by)
      values (p_shop_id, found_id, stored_balance, balance, 'posting');
    end if;
    entry.shop_id := p_shop_id;
    entry.customer_id := found_id;
    entry.sequence := tip_sequence + 1;
    entry.amount := p_amount;
    entry.balance_after := balance + p_amount;
    entry.created_at := greatest(clock_timestamp(), tip_created_at);
    entry.occurred_at := coalesce(p_occurred_at, entry.created_at);
    entry.reason := p_reason;
    entry.actor := p_actor;
    entry.external_id := p_external_id;
    insert into ledger_entries select entry.*;
    if p_metadata is not null then
      insert into ledger_metadata (shop_id, customer_id, sequence, metadata)
      values (p_shop_id, found_id, entry.sequence, p_metadata);
    end if;
    update customers c
    set current_balance = entry.balance_after
    where c.shop_id = p_shop_id and c.id = found_id;
    balance := entry.balance_after;
  end if;

  customer_id := entry.customer_id; -- of a replayed one, whoever it was posted to
  sequence := entry.sequence;
  amount := entry.amount;
  balance_after := entry.balance_after;
  reason := entry.reason;
  external_id := entry.external_id;
  actor := entry.actor;
  reverses_customer_id := entry.reverses_customer_id;
  reverses := entry.reverses;
  occurred_at := entry.occurred_at;
  created_at := entry.created_at;
  return next;
end
$$;

-- As before, and merges as in post_entry. A reversal is of the entry that it names, whoever that was posted to, and is
-- posted to the survivor. Further outcomes: customer_redacted, and not_reversible for one of the two entries of a merge.
create function post_entries(p_shop_id integer, p_actor text, p_entries jsonb)
returns table (
  ord integer, outcome text, customer_id uuid, sequence bigint, amount bigint, balance_after bigint, reason text,
  external_id text, metadata jsonb, actor text, reverses_customer_id uuid, reverses bigint, occurred_at timestamptz,
  created_at timestamptz, balance bigint
)
language plpgsql volatile
set plan_cache_mode = force_generic_plan -- planning afresh would cost more than the posting
set enable_seqscan = off -- a plan made while the tables were small must not scan them once they are large
as $$
#variable_conflict use_column
declare
  r record;
  group_key text;
  balance_now bigint; -- of the customer being walked, after the entries accepted so far
  sequence_now bigint;
  clock_now timestamptz;
  named_ids uuid[];
  some_are_new boolean;
  created boolean := false;
  locked integer;
  tries integer := 0;
  prior ledger_entries;
  prior_metadata jsonb;
  accepted ledger_entries[] := '{}';
  accepted_metadata jsonb[] := '{}';
  made_by integer[] := '{}'; -- made_by[ord]: which accepted entry answers this request
  touched_ids uuid[] := '{}';
  touched_balances bigint[] := '{}';
  has_metadata boolean := false;
  n integer := 0;
begin
  perform act_for_shop(p_shop_id);

  -- Who is meant? Of a merged customer, the survivor. A customer named by an unknown Shopify id is created, but only
  -- for a posting that will be accepted: from zero that is any that adds, or may go below. Nobody redacted is created.
  loop
    select
      array_agg(distinct coalesce(k.merged_into, k.id)) filter (where k.id is not null),
      coalesce(
        bool_or(k.id is null and e."shopifyCustomerId" is not null and (e.amount > 0 or e."allowNegative")), false
      )
    into named_ids, some_are_new
    from jsonb_to_recordset(p_entries)
      as e ("customerId" uuid, "shopifyCustomerId" bigint, amount bigint, "allowNegative" boolean)
    left join lateral (
      select k.id, k.merged_into
      from customers k
      where k.shop_id = p_shop_id and k.shopify_customer_id = e."shopifyCustomerId"
      union all
      select k.id, k.merged_into
      from customers k
      where k.shop_id = p_shop_id and k.id = e."customerId"
      limit 1
    ) k on true;

    if some_are_new and not created then
      -- Sorted, so that two batches creating the same customers cannot deadlock.
      insert into customers (shop_id, shopify_customer_id)
      select p_shop_id, e."shopifyCustomerId"
      from jsonb_to_recordset(p_entries)
        as e ("shopifyCustomerId" bigint, amount bigint, "allowNegative" boolean)
      where e."shopifyCustomerId" is not null and (e.amount > 0 or e."allowNegative")
      group by e."shopifyCustomerId"
      order by e."shopifyCustomerId"
      on conflict do nothing;
      created := true;
      continue;
    end if;

    -- The lock order of the whole system lives here: customers by id, before anything of theirs is read. What follows
    -- runs on a snapshot taken after the last lock was granted, so it sees every entry that was waited for. Who was
    -- merged into another at the moment of waiting is not found: then it is asked again who is meant.
    perform
    from customers c
    where c.shop_id = p_shop_id and c.id = any (named_ids) and c.merged_into is null
    order by c.id
    for no key update;
    get diagnostics locked = row_count;
    exit when locked = coalesce(cardinality(named_ids), 0);
    tries := tries + 1;
    if tries > 100 then
      raise exception 'of customers % some are merged into nobody who is there', named_ids;
    end if;
  end loop;

  clock_now := clock_timestamp();

  -- Requests of one customer stand together, in the order they came. The laterals with their limits keep the planner
  -- on the indexes whatever the statistics say; a plan made while the tables were empty stays good.
  for r in
    select
      e.*,
      c.id as found_id,
      c.current_balance as stored_balance,
      c.has_absorbed,
      c.redacted_at is not null as is_redacted,
      tip.sequence as tip_sequence,
      tip.balance_after as tip_balance,
      tip.created_at as tip_created_at,
      origin.amount as origin_amount,
      origin.external_id as origin_external_id,
      coalesce(c.id::text, e."shopifyCustomerId"::text, e.ordinality::text) as who,
      lag(e.ordinality) over (
        partition by
          coalesce(c.id::text, e."shopifyCustomerId"::text), e."externalId", e.reverses,
          case when e.reverses is not null then e."customerId" end
        order by e.ordinality
      ) as same_key_before
    from rows from (
      jsonb_to_recordset(p_entries) as (
        "customerId" uuid, "shopifyCustomerId" bigint, amount bigint, reason text, "externalId" text,
        metadata jsonb, "occurredAt" timestamptz, "allowNegative" boolean, reverses bigint
      )
    ) with ordinality as e
    left join lateral (
      select k.*
      from customers k
      where k.shop_id = p_shop_id and k.shopify_customer_id = e."shopifyCustomerId"
      union all
      select k.*
      from customers k
      where k.shop_id = p_shop_id and k.id = e."customerId"
      limit 1
    ) named on true
    left join lateral (
      select k.*
      from customers k
      where k.shop_id = p_shop_id and k.id = named.merged_into
      limit 1
    ) survivor on true
    -- By CASE: under row-level security a condition on COALESCE is kept from the index.
    cross join lateral (
      select
        case when survivor.id is not null then survivor.id else named.id end as id,
        coalesce(survivor.current_balance, named.current_balance) as current_balance,
        coalesce(survivor.has_absorbed, named.has_absorbed) as has_absorbed,
        coalesce(survivor.redacted_at, named.redacted_at) as redacted_at
    ) c
    left join lateral (
      select l.sequence, l.balance_after, l.created_at
      from ledger_entries l
      where l.shop_id = p_shop_id and l.customer_id = c.id
      order by l.sequence desc
      limit 1
    ) tip on true
    left join lateral (
      select l.amount, l.external_id
      from ledger_entries l
      where l.shop_id = p_shop_id and l.customer_id = named.id and l.sequence = e.reverses
      limit 1
    ) origin on true
    order by who, e.ordinality
  loop
    ord := r.ordinality;
    customer_id := r.found_id;

    if group_key is distinct from r.who then
      group_key := r.who;
      balance_now := coalesce(r.tip_balance, 0);
      sequence_now := coalesce(r.tip_sequence, 0);
    end if;
    balance := balance_now;

    if r.found_id is null and r."shopifyCustomerId" is null then
      outcome := 'customer_not_found';
      return next;
      continue;
    end if;
    if r.is_redacted or (r.found_id is null and is_redacted(p_shop_id, r."shopifyCustomerId")) then
      outcome := 'customer_redacted';
      return next;
      continue;
    end if;

    if r.reverses is not null then
      if r.origin_amount is null then
        outcome := 'entry_not_found';
        return next;
        continue;
      end if;
      -- Points that were moved are not earned again by taking one half of the move back.
      if r.origin_external_id ~ '^merge/(from|into)/[-0-9a-f]{36}$' then
        outcome := 'not_reversible';
        return next;
        continue;
      end if;
      r.amount := -r.origin_amount;
    end if;

    -- Was it posted before, by an earlier call or earlier in this one?
    prior := null;
    if r."externalId" is not null or r.reverses is not null then
      if made_by[r.same_key_before] is not null then
        made_by[ord] := made_by[r.same_key_before];
        prior := accepted[made_by[ord]];
        prior_metadata := accepted_metadata[made_by[ord]];
      elsif r.reverses is not null then
        select l.* into prior
        from ledger_entries l
        where
          l.shop_id = p_shop_id
          and case when l.reverses_customer_id is not null then l.reverses_customer_id else l.customer_id end
          = r."customerId"
          and l.reverses = r.reverses;
      elsif r.has_absorbed then
        select l.* into prior
        from entry_along_the_merges(p_shop_id, r.found_id, r."externalId", r.amount, r.reason) l;
      else
        select l.* into prior
        from ledger_entries l
        where l.shop_id = p_shop_id and l.customer_id = r.found_id and l.external_id = r."externalId";
      end if;
    end if;

    if prior.sequence is not null then
      if r.reverses is null and (prior.amount <> r.amount or prior.reason <> r.reason) then
        outcome := 'idempotency_conflict';
      else
        outcome := 'replayed';
      end if;
      if made_by[ord] is null then
        select m.metadata into prior_metadata
        from ledger_metadata m
        where m.shop_id = p_shop_id and m.customer_id = prior.customer_id and m.sequence = prior.sequence;
      end if;
      customer_id := prior.customer_id;
      sequence := prior.sequence;
      amount := prior.amount;
      balance_after := prior.balance_after;
      reason := prior.reason;
      external_id := prior.external_id;
      metadata := prior_metadata;
      actor := prior.actor;
      reverses_customer_id := prior.reverses_customer_id;
      reverses := prior.reverses;
      occurred_at := prior.occurred_at;
      created_at := prior.created_at;
      return next;
      continue;
    end if;

    sequence := null;
    outcome := refusal_of(balance_now, r.amount, r."allowNegative");
    if outcome is not null then
      return next;
      continue;
    end if;

    -- Accepted. It counts from the last entry, never from the stored balance, which somebody may have damaged.
    if sequence_now = coalesce(r.tip_sequence, 0) and r.stored_balance <> balance_now then
      insert into balance_corrections (shop_id, customer_id, stored, calculated, found_by)
      values (p_shop_id, r.found_id, r.stored_balance, balance_now, 'posting');
    end if;
    balance_now := balance_now + r.amount;
    sequence_now := sequence_now + 1;
    n := n + 1;

    outcome := 'recorded';
    sequence := sequence_now;
    amount := r.amount;
    balance_after := balance_now;
    balance := balance_now;
    reason := r.reason;
    external_id := r."externalId";
    metadata := r.metadata;
    actor := p_actor;
    reverses_customer_id := case when r.reverses is not null and r."customerId" <> r.found_id then r."customerId" end;
    reverses := r.reverses;
    created_at := greatest(clock_now, r.tip_created_at);
    occurred_at := coalesce(r."occurredAt", created_at);
    made_by[ord] := n;
    accepted[n] := row(
      p_shop_id, customer_id, sequence, amount, balance_after, reverses, occurred_at, created_at, reason, actor,
      external_id, reverses_customer_id
    )::ledger_entries;
    accepted_metadata[n] := metadata;
    has_metadata := has_metadata or metadata is not null;
    if touched_ids[array_upper(touched_ids, 1)] is distinct from customer_id then
      touched_ids := touched_ids || customer_id;
      touched_balances := touched_balances || balance_now;
    else
      touched_balances[array_upper(touched_balances, 1)] := balance_now;
    end if;
    return next;
  end loop;

  if n > 0 then
    insert into ledger_entries select a.* from unnest(accepted) as a;
    -- The second half of the lock order: a changed balance raises its mirror row, and the drains lock those by customer
    -- id. In what order the update below comes to them is the planner's choice, so they are locked before it.
    if cardinality(touched_ids) > 1 then
      perform
      from mirror_states m
      where m.shop_id = p_shop_id and m.customer_id = any (touched_ids)
      order by m.customer_id
      for no key update;
    end if;
    update customers c
    set current_balance = t.balance
    from unnest(touched_ids, touched_balances) as t (id, balance)
    where c.shop_id = p_shop_id and c.id = t.id;
  end if;
  if has_metadata then
    insert into ledger_metadata (shop_id, customer_id, sequence, metadata)
    select a.shop_id, a.customer_id, a.sequence, accepted_metadata[i]
    from generate_subscripts(accepted, 1) as i, lateral (select (accepted[i]).*) as a
    where accepted_metadata[i] is not null;
  end if;
end
$$;

revoke all on function post_entries (integer, text, jsonb) from public;
grant execute on function post_entries (integer, text, jsonb) to metafield_sync_app;
revoke all on function post_entry (integer, text, uuid, bigint, bigint, text, text, jsonb, timestamptz, boolean) from public;
grant execute on function post_entry (integer, text, uuid, bigint, bigint, text, text, jsonb, timestamptz, boolean) to metafield_sync_app;
