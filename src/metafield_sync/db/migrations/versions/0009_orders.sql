-- Orders, what they earned, and the rule they earn by.

-- Rules are never edited: a changed one is a new row, so that it can always be told by which an order earned. A shop
-- without any has rule 0, which is in the code: one point a whole unit, from when the shop was added.
create table earning_rules (
  shop_id integer not null references shops (id),
  version integer not null,
  points_per_unit numeric(12, 6) not null,
  rounding text not null,
  excluded_tags text[] not null default '{}',
  takes_tax_off boolean not null default true,
  is_enabled boolean not null default true,
  starts_at timestamptz not null,
  saved_at timestamptz not null default clock_timestamp(),
  actor text not null,
  primary key (shop_id, version),
  constraint earning_rules_version_positive check (version > 0),
  constraint earning_rules_points_not_negative check (points_per_unit >= 0),
  constraint earning_rules_rounding_known check (rounding in ('down', 'half_up', 'up'))
);
comment on column earning_rules.points_per_unit is 'points for one unit of the shop''s currency';
comment on column earning_rules.starts_at is
'orders placed from then on earn by it, unless a rule saved later has started too';

-- What is known of each order, and what came of it. The row is also the lock under which its points are worked out.
create table orders (
  shop_id integer not null references shops (id),
  order_id bigint not null,
  shopify_customer_id bigint,
  updated_at timestamptz,
  facts jsonb,
  facts_digest bytea,
  known_since timestamptz,
  rule_version integer,
  is_left_out boolean,
  read_wanted_at timestamptz,
  is_forgotten boolean not null default false,
  money numeric,
  currency text,
  target points,
  waits_for text,
  postings integer not null default 0,
  refusal text,
  primary key (shop_id, order_id),
  constraint orders_facts_whole check ((facts is null) = (updated_at is null)),
  constraint orders_waits_for_known check (waits_for in ('order', 'customer', 'customer_tags'))
);
comment on column orders.order_id is 'Shopify''s';
comment on column orders.shopify_customer_id is 'whose it is, as Shopify says; merged customers are found from here';
comment on column orders.updated_at is 'Shopify''s time of the state that is known; null: only a refund of it is known';
comment on column orders.facts is 'what decides about points, and nothing about a person';
comment on column orders.known_since is 'when that state was learned, by our clock';
comment on column orders.is_left_out is 'the customer had a tag the rule leaves out; null: not asked yet';
comment on column orders.read_wanted_at is
'since when what was delivered leaves it open how the order is; what Shopify is asked after that settles it';
comment on column orders.is_forgotten is 'redacted: whatever else comes changes nothing';
comment on column orders.money is 'of its price, what earns, in the shop''s currency';
comment on column orders.target is 'the points it is worth as it is';
comment on column orders.postings is 'how many it has made: the number in the last one''s external id';
comment on column orders.refusal is 'why the ledger would not take the last posting';
-- squawk-ignore require-concurrent-index-creation -- a table made in this very migration
create index orders_of_customer on orders (shop_id, shopify_customer_id) where shopify_customer_id is not null;

-- Refunds that came by themselves and that the known state of their order does not contain.
create table order_refunds (
  shop_id integer not null,
  order_id bigint not null,
  refund_id bigint not null,
  created_at timestamptz,
  goods numeric not null,
  goods_tax numeric not null,
  adjustment numeric not null,
  primary key (shop_id, order_id, refund_id),
  foreign key (shop_id, order_id) references orders (shop_id, order_id)
);
comment on column order_refunds.goods is 'the price of what was returned, gift cards left out';
comment on column order_refunds.adjustment is 'negative: given back beyond that; positive: kept';

-- Whom an order gave how many points so far.
create table order_earnings (
  shop_id integer not null,
  order_id bigint not null,
  customer_id uuid not null,
  points bigint not null,
  primary key (shop_id, order_id, customer_id),
  foreign key (shop_id, order_id) references orders (shop_id, order_id),
  foreign key (shop_id, customer_id) references customers (shop_id, id)
);
-- squawk-ignore require-concurrent-index-creation -- a table made in this very migration
create index order_earnings_of_customer on order_earnings (shop_id, customer_id);

-- How far the shop's orders have been read. A reading goes page by page and may take many turns.
create table order_readings (
  shop_id integer not null references shops (id),
  read_until timestamptz not null,
  since timestamptz,
  cursor text,
  latest timestamptz,
  finished_at timestamptz,
  trouble text,
  primary key (shop_id)
);
comment on column order_readings.read_until is 'every order that changed before is known';
comment on column order_readings.since is 'the reading at work began from here; null: none is';
comment on column order_readings.latest is 'the latest change that it has met';
comment on column order_readings.trouble is 'why orders cannot be read, such as a scope that is missing';

alter table earning_rules enable row level security;
alter table orders enable row level security;
alter table order_refunds enable row level security;
alter table order_earnings enable row level security;
alter table order_readings enable row level security;
create policy earning_rules_of_the_shop on earning_rules using (shop_id = current_shop_id());
create policy orders_of_the_shop on orders using (shop_id = current_shop_id());
create policy order_refunds_of_the_shop on order_refunds using (shop_id = current_shop_id());
create policy order_earnings_of_the_shop on order_earnings using (shop_id = current_shop_id());
create policy order_readings_of_the_shop on order_readings using (shop_id = current_shop_id());
grant select, insert on earning_rules to metafield_sync_app; -- and nothing else: rules are history
grant select, insert, update on orders to metafield_sync_app;
grant select, insert, delete on order_refunds to metafield_sync_app;
grant select, insert, update, delete on order_earnings to metafield_sync_app;
grant select, insert, update on order_readings to metafield_sync_app;

-- Shops that are here already: their orders are read from when they were added, as their rule 0 says.
insert into order_readings (shop_id, read_until)
select id, added_at
from shops
where status <> 'removed';
insert into errands (shop_id, kind)
select id, 'catch_up'
from shops
where status <> 'removed'
on conflict do nothing;
