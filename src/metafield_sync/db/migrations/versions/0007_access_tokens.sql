-- Access tokens that expire, and how a shop is installed.

-- With the shop, outside the policies: a token is looked for before anything is done in the shop's name.
alter table shops
add column token_source text,
add column token_expires_at timestamptz,
add column refresh_token text,
add column refresh_expires_at timestamptz,
add column token_version integer not null default 0,
add column token_renewed_after_refusal boolean not null default false,
add column refresh_holder uuid,
add column refresh_until timestamptz not null default '-infinity',
add column granted_scopes text[],
add column installed_at timestamptz,
add column uninstalled_at timestamptz,
add column currency text,
add column shopify_shop_id bigint,
add column hold text,
add column hold_detail text;
update shops set token_source = 'given', installed_at = added_at where access_token is not null;
update shops set uninstalled_at = clock_timestamp() where status = 'removed';
alter table shops
-- squawk-ignore constraint-missing-not-valid -- a handful of rows
add constraint shops_token_source_known check (token_source in ('given', 'exchanged', 'client_credentials')),
-- squawk-ignore constraint-missing-not-valid -- the same
add constraint shops_hold_known check (hold in ('installing', 'values_found'));
comment on column shops.token_source is
'how the token came: given by staff, exchanged for an ID token, or asked for with the client credentials';
comment on column shops.token_expires_at is 'null: never, as far as is known';
comment on column shops.refresh_token is 'Fernet ciphertext; never plain, never logged';
comment on column shops.token_version is 'raised with every token stored: who saw an older one stores nothing';
comment on column shops.token_renewed_after_refusal is
'Shopify refused the token before this one; if it refuses this one too, that is believed';
comment on column shops.refresh_holder is 'who is fetching a new token now, until refresh_until';
comment on column shops.granted_scopes is 'what the app may do, in Shopify''s words; null: not known';
comment on column shops.installed_at is 'when the shop was last installed; an uninstall from before means nothing';
comment on column shops.currency is 'ISO 4217, as Shopify has it';
comment on column shops.hold is 'nothing is pushed until the installation has come past this; null: nothing in the way';

-- Reading who is there and what they show, once for each installation; then, if another app has left values, a choice.
create table installations (
  shop_id integer primary key references shops (id),
  id uuid not null default gen_random_uuid(),
  begun_at timestamptz not null default clock_timestamp(),
  choice text,
  asked_at timestamptz,
  operation text,
  polls integer not null default 0,
  objects bigint not null default 0,
  quiet_since timestamptz,
  paged_at timestamptz,
  page_after text,
  read_at timestamptz,
  customers bigint not null default 0,
  with_values bigint not null default 0,
  values_sum numeric not null default 0,
  malformed bigint not null default 0,
  adopted bigint not null default 0,
  left_alone bigint not null default 0,
  failures integer not null default 0,
  error text,
  warning text,
  finished_at timestamptz,
  constraint installations_choice_known check (choice in ('adopt', 'overwrite'))
);
comment on table installations is 'the latest installation of each shop';
comment on column installations.choice is 'what becomes of values found: adopt or overwrite; null: ask';
comment on column installations.asked_at is 'from then on Shopify may be running the query that reads everybody';
comment on column installations.quiet_since is 'since then that query has come no further; null: it has not been asked';
comment on column installations.paged_at is 'from then on everybody is read page by page; null: by that query';
comment on column installations.page_after is 'where the page ended that was read last; null: none was';
comment on column installations.with_values is 'customers who showed another number than 0';
comment on column installations.malformed is 'customers who showed something that is no balance';
comment on column installations.left_alone is 'customers with a value who had ledger entries already';

-- What customers showed when they were read, until it has been decided on and applied.
create table found_values (
  shop_id integer not null references shops (id),
  shopify_customer_id bigint not null,
  shown bigint,
  digest text not null,
  primary key (shop_id, shopify_customer_id)
);
comment on column found_values.shown is 'the balance shown; null: something that is none';

alter table installations enable row level security;
alter table found_values enable row level security;
create policy installations_of_the_shop on installations using (shop_id = current_shop_id());
create policy found_values_of_the_shop on found_values using (shop_id = current_shop_id());
grant select, insert, update on installations to metafield_sync_app;
grant select, insert, update, delete on found_values to metafield_sync_app;
