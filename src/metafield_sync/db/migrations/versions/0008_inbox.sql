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
  constraint inbox_delivery_unique unique (shop_id, delivery_id)
);
comment on column inbox.delivery_id is 'X-Shopify-Webhook-Id: the same for every attempt to deliver';
comment on column inbox.body_digest is 'SHA-256 of the body as it came';
comment on column inbox.payload is 'the fields that are needed, and no others: no names, addresses or e-mails';
comment on column inbox.due_at is 'when to handle it next; null: handled, or given up';
comment on column inbox.outcome is 'what came of it, in words';
comment on column inbox.failed_at is 'given up; staff may have it handled again';
-- squawk-ignore require-concurrent-index-creation -- a table made in this very migration
create index inbox_due on inbox (shop_id, due_at) where due_at is not null;

-- What has to be asked of Shopify, once, however often it was wished for.
create table errands (
  shop_id integer not null references shops (id),
  kind text not null,
  subject text not null default '',
  due_at timestamptz not null default clock_timestamp(),
  wish integer not null default 1,
  noted_at timestamptz not null default clock_timestamp(),
  attempts integer not null default 0,
  error text,
  primary key (shop_id, kind, subject)
);
comment on column errands.wish is 'raised by each wish, so that one made meanwhile is not lost when the errand is done';

alter table inbox enable row level security;
alter table errands enable row level security;
create policy inbox_of_the_shop on inbox using (shop_id = current_shop_id());
create policy errands_of_the_shop on errands using (shop_id = current_shop_id());
grant select, insert, update on inbox to metafield_sync_app;
grant select, insert, update, delete on errands to metafield_sync_app;
