-- Every run anybody asked for, with what came of it.

create table sync_runs (
  shop_id integer not null references shops (id),
  id uuid not null default gen_random_uuid(),
  kind text not null,
  trigger text not null,
  forced boolean not null default false,
  status text not null default 'queued',
  requested_at timestamptz not null default clock_timestamp(),
  started_at timestamptz,
  finished_at timestamptz,
  heartbeat_at timestamptz,
  executor text,
  progress_done bigint not null default 0,
  progress_total bigint not null default 0,
  points_before bigint not null default 0,
  pushed_before bigint not null default 0,
  result json,
  error text,
  primary key (shop_id, id),
  constraint sync_runs_kind_known check (kind in ('sync', 'verify')),
  constraint sync_runs_status_known check (status in ('queued', 'running', 'done', 'failed'))
);
comment on column sync_runs.result is 'the answer of /api/sync-balances; json, not jsonb, keeps its order';
create index sync_runs_by_time on sync_runs (shop_id, requested_at desc, id desc);
create index sync_runs_open on sync_runs (shop_id, kind) where status in ('queued', 'running');

alter table balance_corrections
add foreign key (shop_id, run_id) references sync_runs (shop_id, id) not valid;
alter table balance_corrections validate constraint balance_corrections_shop_id_run_id_fkey;

alter table sync_runs enable row level security;
create policy sync_runs_of_the_shop on sync_runs using (shop_id = current_shop_id());
grant select, insert, update on sync_runs to metafield_sync_app;

-- Runs that nobody executes any more must be found before a shop is acted for: ids only.
create function orphaned_runs(p_after_seconds double precision)
returns table (shop_id integer, run_id uuid)
language sql stable security definer set search_path = public, pg_temp
as $$
  select r.shop_id, r.id
  from sync_runs r
  join shops s on s.id = r.shop_id and s.status <> 'removed'
  where
    r.status in ('queued', 'running')
    and coalesce(r.heartbeat_at, r.requested_at) < clock_timestamp() - make_interval(secs => p_after_seconds)
  order by r.requested_at
$$;
revoke all on function orphaned_runs (double precision) from public;
grant execute on function orphaned_runs (double precision) to metafield_sync_app;
