-- The ledger: who has points, every change of them, and the one function that writes a change.

-- Shopify's number_integer ends at ±(2^53 − 1); a balance must always be showable.
-- A constant of Shopify's, so the trouble of changing a domain later is not to be feared.
-- squawk-ignore ban-create-domain-with-constraint
create domain points as bigint check (value between -9007199254740991 and 9007199254740991);

create table customers (
  shop_id integer not null references shops (id),
  id uuid not null default gen_random_uuid(),
  shopify_customer_id bigint not null,
  current_balance points not null default 0,
  created_at timestamptz not null default clock_timestamp(),
  primary key (shop_id, id),
  constraint customers_shopify_id_unique unique (shop_id, shopify_customer_id),
  constraint customers_shopify_id_positive check (shopify_customer_id > 0)
)
with (fillfactor = 85); -- room on the page, so that a changed balance needs no index entry (HOT)

-- Nothing personal in here: free text lives in ledger_metadata, which redaction may empty. An entry's public id is its
-- customer and its sequence, which saves the bytes of an id of its own and of the index that would carry it.
create table ledger_entries (
  shop_id integer not null,
  customer_id uuid not null,
  sequence bigint not null,
  amount points not null,
  balance_after points not null,
  reverses bigint,
  occurred_at timestamptz not null,
  created_at timestamptz not null,
  reason text not null,
  actor text not null,
  external_id text,
  primary key (shop_id, customer_id, sequence),
  foreign key (shop_id, customer_id) references customers (shop_id, id),
  constraint ledger_entries_amount_not_zero check (amount <> 0),
  constraint ledger_entries_sequence_positive check (sequence > 0)
);
create unique index ledger_entries_external_id_unique
on ledger_entries (shop_id, customer_id, external_id) where external_id is not null;
create unique index ledger_entries_reversed_once
on ledger_entries (shop_id, customer_id, reverses) where reverses is not null;
-- "Which entries did order 1001 make?" when the customer is not known.
create index ledger_entries_by_external_id
on ledger_entries (shop_id, external_id, reason) where external_id is not null;

create table ledger_metadata (
  shop_id integer not null,
  customer_id uuid not null,
  sequence bigint not null,
  metadata jsonb not null,
  primary key (shop_id, customer_id, sequence),
  foreign key (shop_id, customer_id, sequence) references ledger_entries (shop_id, customer_id, sequence)
);

-- Each time a stored balance was found not to be the sum of its entries.
create table balance_corrections (
  shop_id integer not null,
  id bigint generated always as identity,
  customer_id uuid not null,
  stored points not null,
  calculated points not null,
  found_by text not null,
  run_id uuid,
  corrected_at timestamptz not null default clock_timestamp(),
  primary key (shop_id, id),
  foreign key (shop_id, customer_id) references customers (shop_id, id),
  constraint balance_corrections_found_by_known check (found_by in ('posting', 'verification'))
);
create index balance_corrections_of_run on balance_corrections (shop_id, run_id, id) where run_id is not null;

alter table customers enable row level security;
alter table ledger_entries enable row level security;
alter table ledger_metadata enable row level security;
alter table balance_corrections enable row level security;
create policy customers_of_the_shop on customers using (shop_id = current_shop_id());
create policy ledger_entries_of_the_shop on ledger_entries using (shop_id = current_shop_id());
create policy ledger_metadata_of_the_shop on ledger_metadata using (shop_id = current_shop_id());
create policy balance_corrections_of_the_shop on balance_corrections using (shop_id = current_shop_id());

grant select, insert on ledger_entries to metafield_sync_app; -- and nothing else: entries are history
grant select, insert, update (current_balance) on customers to metafield_sync_app;
grant select, insert, update, delete on ledger_metadata to metafield_sync_app;
grant select, insert on balance_corrections to metafield_sync_app;

-- Grants bind the application; this binds everybody, the owner at a psql prompt too. Insert-only history is worth an
-- error message of its own.
create function refuse_rewriting_history() returns trigger
language plpgsql
as $$
begin
  raise exception 'ledger entries are never changed or removed; post an opposite entry instead'
    using errcode = 'restrict_violation';
end
$$;
create trigger ledger_entries_are_history
before update or delete or truncate on ledger_entries
for each statement execute function refuse_rewriting_history();

-- The two rules a change of balance must keep, in one place for the one posting and for the batch. Null: it may be.
create function refusal_of(p_balance bigint, p_amount bigint, p_allow_negative boolean) returns text
language sql immutable parallel safe
as $$
  select case
    when p_amount < 0 and p_balance + p_amount < 0 and p_allow_negative is not true then 'insufficient_balance'
    when abs(p_balance + p_amount) > 9007199254740991 then 'balance_out_of_range'
  end
$$;

-- post_entry: one posting, in one round trip and as few statements as its guarantees need. It answers as post_entries
-- does for a batch of one, and keeps the same rules; it is here because almost every posting comes alone, and the
-- machinery of a batch would cost more than the posting.
create function post_entry(
  p_shop_id integer, p_actor text, p_customer_id uuid, p_shopify_customer_id bigint, p_amount bigint, p_reason text,
  p_external_id text, p_metadata jsonb, p_occurred_at timestamptz, p_allow_negative boolean
)
returns table (
  ord integer, outcome text, customer_id uuid, sequence bigint, amount bigint, balance_after bigint, reason text,
  external_id text, metadata jsonb, actor text, reverses bigint, occurred_at timestamptz, created_at timestamptz,
  balance bigint
)
language plpgsql volatile
as $$
#variable_conflict use_column
declare
  stored_balance bigint;
  tip_sequence bigint := 0;
  tip_created_at timestamptz;
  entry ledger_entries;
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

  -- The lock comes before anything of the customer's is read; what follows sees every entry that was waited for.
  loop
    if p_customer_id is not null then
      select c.id, c.current_balance into customer_id, stored_balance
      from customers c
      where c.shop_id = p_shop_id and c.id = p_customer_id
      for no key update;
    else
      select c.id, c.current_balance into customer_id, stored_balance
      from customers c
      where c.shop_id = p_shop_id and c.shopify_customer_id = p_shopify_customer_id
      for no key update;
    end if;
    exit when customer_id is not null;
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
  where l.shop_id = p_shop_id and l.customer_id = post_entry.customer_id
  order by l.sequence desc
  limit 1;
  tip_sequence := coalesce(tip_sequence, 0);
  balance := coalesce(balance, 0);

  if p_external_id is not null then
    select l.* into entry
    from ledger_entries l
    where l.shop_id = p_shop_id and l.customer_id = post_entry.customer_id and l.external_id = p_external_id;
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
      values (p_shop_id, customer_id, stored_balance, balance, 'posting');
    end if;
    entry.shop_id := p_shop_id;
    entry.customer_id := customer_id;
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
      values (p_shop_id, customer_id, entry.sequence, p_metadata);
    end if;
    update customers c
    set current_balance = entry.balance_after
    where c.shop_id = p_shop_id and c.id = post_entry.customer_id;
    balance := entry.balance_after;
  end if;

  sequence := entry.sequence;
  amount := entry.amount;
  balance_after := entry.balance_after;
  reason := entry.reason;
  external_id := entry.external_id;
  actor := entry.actor;
  reverses := entry.reverses;
  occurred_at := entry.occurred_at;
  created_at := entry.created_at;
  return next;
end
$$;

-- post_entries: together with post_entry the only writer of ledger entries, for one posting as for a thousand. One call is one round trip and,
-- outside an explicit transaction, one transaction.
--
-- p_entries is a JSON array of
--   {customerId | shopifyCustomerId, amount, reason, externalId?, metadata?, occurredAt?, allowNegative?}
-- or, for a reversal, {customerId, reverses, reason, allowNegative?}, whose amount is the opposite of the reversed one.
-- It returns one row a request: `ord` (its place, from 1), `outcome`, and the entry it made or found. The outcomes:
-- recorded, replayed, idempotency_conflict, insufficient_balance, balance_out_of_range, customer_not_found,
-- entry_not_found. A refusal is an outcome, not an exception, so that one bad request never undoes its neighbours.
create function post_entries(p_shop_id integer, p_actor text, p_entries jsonb)
returns table (
  ord integer, outcome text, customer_id uuid, sequence bigint, amount bigint, balance_after bigint, reason text,
  external_id text, metadata jsonb, actor text, reverses bigint, occurred_at timestamptz, created_at timestamptz,
  balance bigint
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

  -- Who is meant? A customer named by an unknown Shopify id is created, but only for a posting that will be accepted:
  -- from zero that is any that adds, or may go below.
  loop
    select array_agg(distinct c.id), coalesce(bool_or(c.id is null and (e.amount > 0 or e."allowNegative")), false)
    into named_ids, some_are_new
    from jsonb_to_recordset(p_entries)
      as e ("customerId" uuid, "shopifyCustomerId" bigint, amount bigint, "allowNegative" boolean)
    left join lateral (
      select k.id
      from customers k
      where k.shop_id = p_shop_id and k.shopify_customer_id = e."shopifyCustomerId"
      limit 1
    ) k on true
    cross join lateral (select coalesce(e."customerId", k.id) as id) c;
    exit when not some_are_new;

    -- Sorted, so that two batches creating the same customers cannot deadlock.
    insert into customers (shop_id, shopify_customer_id)
    select p_shop_id, e."shopifyCustomerId"
    from jsonb_to_recordset(p_entries)
      as e ("shopifyCustomerId" bigint, amount bigint, "allowNegative" boolean)
    where e."shopifyCustomerId" is not null and (e.amount > 0 or e."allowNegative")
    group by e."shopifyCustomerId"
    order by e."shopifyCustomerId"
    on conflict do nothing;
  end loop;

  -- The lock order of the whole system lives here: customers by id, before anything of theirs is read. What follows
  -- runs on a snapshot taken after the last lock was granted, so it sees every entry that was waited for.
  perform
  from customers c
  where c.shop_id = p_shop_id and c.id = any (named_ids)
  order by c.id
  for no key update;

  clock_now := clock_timestamp();

  -- Requests of one customer stand together, in the order they came. The laterals with their limits keep the planner
  -- on the indexes whatever the statistics say; a plan made while the tables were empty stays good.
  for r in
    select
      e.*,
      c.id as found_id,
      c.current_balance as stored_balance,
      tip.sequence as tip_sequence,
      tip.balance_after as tip_balance,
      tip.created_at as tip_created_at,
      origin.amount as origin_amount,
      coalesce(c.id::text, e."shopifyCustomerId"::text, e.ordinality::text) as who,
      lag(e.ordinality) over (
        partition by coalesce(c.id::text, e."shopifyCustomerId"::text), e."externalId", e.reverses
        order by e.ordinality
      ) as same_key_before
    from rows from (
      jsonb_to_recordset(p_entries) as (
        "customerId" uuid, "shopifyCustomerId" bigint, amount bigint, reason text, "externalId" text,
        metadata jsonb, "occurredAt" timestamptz, "allowNegative" boolean, reverses bigint
      )
    ) with ordinality as e
    left join lateral (
      select k.id, k.current_balance
      from customers k
      where k.shop_id = p_shop_id and k.shopify_customer_id = e."shopifyCustomerId"
      union all
      select k.id, k.current_balance
      from customers k
      where k.shop_id = p_shop_id and k.id = e."customerId"
      limit 1
    ) c on true
    left join lateral (
      select l.sequence, l.balance_after, l.created_at
      from ledger_entries l
      where l.shop_id = p_shop_id and l.customer_id = c.id
      order by l.sequence desc
      limit 1
    ) tip on true
    left join lateral (
      select l.amount
      from ledger_entries l
      where l.shop_id = p_shop_id and l.customer_id = c.id and l.sequence = e.reverses
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

    if r.reverses is not null then
      if r.origin_amount is null then
        outcome := 'entry_not_found';
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
        where l.shop_id = p_shop_id and l.customer_id = r.found_id and l.reverses = r.reverses;
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
      sequence := prior.sequence;
      amount := prior.amount;
      balance_after := prior.balance_after;
      reason := prior.reason;
      external_id := prior.external_id;
      metadata := prior_metadata;
      actor := prior.actor;
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
    reverses := r.reverses;
    created_at := greatest(clock_now, r.tip_created_at);
    occurred_at := coalesce(r."occurredAt", created_at);
    made_by[ord] := n;
    accepted[n] := row(
      p_shop_id, customer_id, sequence, amount, balance_after, reverses, occurred_at, created_at, reason, actor,
      external_id
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
