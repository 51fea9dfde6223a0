-- Shopify Flow is told of changed balances, once a change has reached the metafield: workflows that read it find what they
-- were told. Only in shops where a workflow listens.

create table flow_triggers (
  shop_id integer primary key references shops (id),
  has_enabled_flow boolean not null,
  as_of timestamptz not null,
  error text
);
comment on column flow_triggers.has_enabled_flow is 'whether a workflow listens, as Flow last said';
comment on column flow_triggers.as_of is 'of when that is; an older word changes nothing';

-- One row a customer, however many changes: a burst of them is told as one.
create table flow_changes (
  shop_id integer not null,
  customer_id uuid not null,
  balance_before points not null,
  noted_at timestamptz not null default clock_timestamp(),
  due_at timestamptz not null default clock_timestamp() + interval '2 seconds',
  primary key (shop_id, customer_id),
  foreign key (shop_id, customer_id) references mirror_states (shop_id, customer_id)
);
comment on column flow_changes.balance_before is 'what Flow was last told, or would have been';
-- squawk-ignore require-concurrent-index-creation -- a table made in this very migration
create index flow_changes_due on flow_changes (shop_id, due_at);

alter table flow_triggers enable row level security;
alter table flow_changes enable row level security;
create policy flow_triggers_of_the_shop on flow_triggers using (shop_id = current_shop_id());
create policy flow_changes_of_the_shop on flow_changes using (shop_id = current_shop_id());
grant select, insert, update on flow_triggers to metafield_sync_app;
grant select, insert, update, delete on flow_changes to metafield_sync_app;

-- Raised where a push is recorded, whichever way it went: not by postings, which it must not slow. A customer's first
-- value is no change: a shop that is filled for the first time is not told of each customer.
create function note_flow_change() returns trigger
language plpgsql
as $$
begin
  insert into flow_changes (shop_id, customer_id, balance_before)
  select new.shop_id, new.customer_id, old.pushed_balance
  from flow_triggers t
  where t.shop_id = new.shop_id and t.has_enabled_flow
  on conflict (shop_id, customer_id) do nothing;
  return null;
end
$$;
create trigger pushes_are_told_to_flow
after update of pushed_balance on mirror_states
for each row when (old.pushed_balance <> new.pushed_balance) execute function note_flow_change();
