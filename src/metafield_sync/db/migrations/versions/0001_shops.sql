-- Shops, keys, and the one unprivileged role every transaction of the application takes.

-- The role is the cluster's, not the database's: another database of ours, or a second start at this very moment, may
-- have made it already.
do $$
begin
  -- Looked for first: who may not create roles may still use one that somebody made beforehand.
  if not exists (select from pg_roles where rolname = 'metafield_sync_app') then
    create role metafield_sync_app nologin;
  end if;
exception
  when duplicate_object or unique_violation then null;
end
$$;

-- A role may SET ROLE only to roles it is a member of. Since PostgreSQL 16 making a role makes one a member who may
-- grant it but not SET it, so there it is asked for by its own name.
do $$
begin
  if not pg_has_role(
    current_user,
    'metafield_sync_app',
    case when current_setting('server_version_num')::integer >= 160000 then 'set' else 'member' end
  ) then
    execute format('grant metafield_sync_app to %I', current_user);
  end if;
end
$$;

-- The shop a transaction acts for; null, and so no row at all, when it has named none.
create function current_shop_id() returns integer
language sql stable parallel safe
as $$ select nullif(current_setting('metafield_sync.shop_id', true), '')::integer $$;

-- Each transaction's first act: give up every privilege, say for which shop it works, and how long it will wait for a
-- lock (one customer held by a hand-written transaction must not use up everybody's connections). All of it ends with
-- the transaction, so this holds behind a pooler that hands the session to somebody else afterwards.
create function act_for_shop(p_shop_id integer) returns void
language sql volatile
as $$
  select
    set_config('role', 'metafield_sync_app', true),
    set_config('metafield_sync.shop_id', p_shop_id::text, true),
    set_config('lock_timeout', '5s', true)
$$;

-- The one table without a policy: a shop must be found before it can be acted for.
create table shops (
  id integer generated always as identity primary key,
  domain text not null unique,
  status text not null default 'active',
  paused_code text,
  paused_detail text,
  probe_at timestamptz,
  probes integer not null default 0,
  access_token text,
  definition_ensured text,
  added_at timestamptz not null default clock_timestamp(),
  constraint shops_domain_is_myshopify check (domain ~ '^[a-z0-9][a-z0-9-]*\.myshopify\.com$'),
  constraint shops_status_known check (status in ('active', 'paused', 'removed'))
);
comment on column shops.access_token is 'Fernet ciphertext; never plain, never logged';
comment on column shops.probe_at is 'paused because Shopify refused the shop: when to knock again; null: paused by staff';
comment on column shops.definition_ensured is 'the metafield definition last known good, so that it is not asked for again';

create table api_keys (
  shop_id integer not null references shops (id),
  id integer generated always as identity,
  name text not null,
  scope text not null,
  key_hash bytea not null,
  created_at timestamptz not null default clock_timestamp(),
  revoked_at timestamptz,
  primary key (shop_id, id),
  constraint api_keys_scope_known check (scope in ('read', 'write'))
);
create unique index api_keys_hash_unique on api_keys (shop_id, key_hash);
create index api_keys_hash on api_keys (key_hash);

alter table api_keys enable row level security;
create policy api_keys_of_the_shop on api_keys using (shop_id = current_shop_id());

-- Which shop a key speaks for must be known before any shop is: ids and flags only, and only for a key presented.
create function find_api_key(p_key_hash bytea)
returns table (shop_id integer, key_id integer, can_write boolean)
language sql stable security definer set search_path = public, pg_temp
as $$
  select k.shop_id, k.id, k.scope = 'write'
  from api_keys k
  join shops s on s.id = k.shop_id and s.status <> 'removed'
  where k.key_hash = p_key_hash and k.revoked_at is null
$$;

revoke all on function find_api_key (bytea) from public;
grant execute on function find_api_key (bytea) to metafield_sync_app;
grant select, insert, update on shops to metafield_sync_app;
grant select, insert, update on api_keys to metafield_sync_app;
