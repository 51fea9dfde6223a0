-- What happens by itself and when, the rights to the queue it is put in (procrastinate's tables, made just before this),
-- and how history ends.

-- The queue holds ids and numbers, and nothing of a shop: which run of which shop, whose turn it is. So its tables
-- have no policy. Its functions run with the caller's rights, so the application needs these.
grant select, insert, update, delete
on procrastinate_jobs, procrastinate_events, procrastinate_periodic_defers, procrastinate_workers
to metafield_sync_app;
grant usage
on sequence procrastinate_jobs_id_seq, procrastinate_events_id_seq, procrastinate_periodic_defers_id_seq
to metafield_sync_app;

-- A worker says every 10 s that it is there; one that has missed two is not counted.
create function workers_alive() returns bigint
language sql stable security definer set search_path = public, pg_temp
as $$
  select count(*)
  from procrastinate_workers w
  where w.last_heartbeat > clock_timestamp() - interval '30 seconds'
$$;
revoke all on function workers_alive () from public;
grant execute on function workers_alive () to metafield_sync_app;

-- The latest tick of each schedule that somebody has taken. One row a kind: that it only moves forward is what makes a
-- tick happen once over the whole fleet, and the latest missed one count for all that were missed.
create table schedule_ticks (
  kind text primary key,
  tick_at timestamptz not null,
  taken_at timestamptz not null default clock_timestamp()
);
alter table schedule_ticks enable row level security; -- and no policy: take_tick alone touches it

alter table sync_runs add column tick_at timestamptz;
comment on column sync_runs.tick_at is 'which tick of its schedule asked for it; null: somebody did';
-- A few runs a shop and day: the index is built in a moment, and nobody posts through this table.
-- squawk-ignore require-concurrent-index-creation
create index sync_runs_by_end on sync_runs (finished_at) where finished_at is not null;

-- Take a tick, and ask for all it asks for, in one transaction: a crash loses both or neither. False: it was taken
-- before, or is older than one that was, or is the first anybody asks about: a fresh installation has missed nothing.
create function take_tick(p_kind text, p_tick_at timestamptz) returns boolean
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
  jobs procrastinate_job_to_defer_v1[];
begin
  insert into schedule_ticks (kind, tick_at) values (p_kind, p_tick_at) on conflict (kind) do nothing;
  if found then
    return false;
  end if;
  update schedule_ticks
  set tick_at = p_tick_at, taken_at = clock_timestamp()
  where kind = p_kind and tick_at < p_tick_at;
  if not found then
    return false;
  end if;
  if p_kind = 'prune' then
    jobs := array[row('metafield_sync', 'prune_history', 0, null, null, '{}', null)::procrastinate_job_to_defer_v1];
  else
    -- One run a shop, but not where one that does the same has not begun yet. A shop paused by staff is left alone.
    with made as (
      insert into sync_runs (shop_id, kind, trigger, repair, tick_at)
      select s.id, p_kind, 'schedule', p_kind = 'reconcile', p_tick_at
      from shops s
      where
        (s.status = 'active' or (s.status = 'paused' and s.probe_at is not null))
        and not exists (
          select
          from sync_runs r
          where
            r.shop_id = s.id
            and r.kind = p_kind
            and r.status = 'queued'
            and (r.repair or p_kind <> 'reconcile')
        )
      returning shop_id, id
    )
    select
      array_agg(
        row(
          'metafield_sync', 'execute_run', 0, null, null, jsonb_build_object('shop_id', m.shop_id, 'run_id', m.id), null
        )::procrastinate_job_to_defer_v1
        order by random()
      )
    into jobs
    from made m;
  end if;
  perform procrastinate_defer_jobs_v1(jobs);
  return true;
end
$$;
revoke all on function take_tick (text, timestamptz) from public;
grant execute on function take_tick (text, timestamptz) to metafield_sync_app;

-- Runs that nobody executes: put back, never begun, or their process has not been heard of for so long. Not those whose
-- shop has another run at work, which is waited for; nor those that wait for their turn in a living worker's queue.
create or replace function orphaned_runs(p_after_seconds double precision)
returns table (shop_id integer, run_id uuid)
language sql stable security definer set search_path = public, pg_temp
as $$
  select r.shop_id, r.id
  from sync_runs r
  join shops s on s.id = r.shop_id and s.status <> 'removed'
  where
    (
      (
        r.status = 'queued'
        and not (
          r.tick_at is not null
          and (select workers_alive() > 0)
          and r.id::text in (
            select j.args ->> 'run_id'
            from procrastinate_jobs j
            where j.status = 'todo' and j.task_name = 'execute_run'
          )
        )
      )
      or (r.status = 'running' and r.heartbeat_at < clock_timestamp() - make_interval(secs => p_after_seconds))
    )
    and not exists (
      select
      from sync_runs o
      where
        o.shop_id = r.shop_id
        and o.id <> r.id
        and o.status = 'running'
        and o.heartbeat_at >= clock_timestamp() - make_interval(secs => p_after_seconds)
    )
  order by r.requested_at
$$;

-- Shops that some drain holds, for those who look for work: ids only. A lease that ends without being given back, as a
-- killed worker's does, makes its shop visible again by itself.
create function shops_under_lease() returns setof integer
language sql stable security definer set search_path = public, pg_temp
as $$
  select l.shop_id
  from shop_leases l
  where l.expires_at > clock_timestamp()
$$;
revoke all on function shops_under_lease () from public;
grant execute on function shops_under_lease () to metafield_sync_app;

-- As before; and a transaction whose process holds still for 10 s is ended by the server. It may be frozen, or its machine
-- cut off, and whatever it has locked, a shop's lease above all, would be locked until somebody noticed. Nothing of ours
-- waits for anything but the database while it has a transaction open.
create or replace function act_for_shop(p_shop_id integer) returns void
language sql volatile
as $$
  select
    set_config('role', 'metafield_sync_app', true),
    set_config('metafield_sync.shop_id', p_shop_id::text, true),
    set_config('lock_timeout', '5s', true),
    set_config('idle_in_transaction_session_timeout', '10s', true)
$$;

-- Remove history older than so many days, at most so many rows, oldest runs first; a run goes after all that hangs on
-- it. Fewer rows removed than allowed: there is no more. The application itself may remove none of this.
create function prune_history(p_days integer, p_rows integer) returns integer
language plpgsql security definer set search_path = public, pg_temp
as $$
declare
  cutoff constant timestamptz := clock_timestamp() - make_interval(days => greatest(p_days, 1));
  removed integer := 0;
  n integer;
  run record;
begin
  for run in
    select r.shop_id, r.id from sync_runs r where r.finished_at < cutoff order by r.finished_at limit p_rows
  loop
    delete from sync_run_changes c
    where c.ctid = any (
      array(
        select d.ctid from sync_run_changes d where d.shop_id = run.shop_id and d.run_id = run.id limit p_rows - removed
      )
    );
    get diagnostics n = row_count;
    removed := removed + n;
    exit when removed >= p_rows;
    delete from balance_corrections c
    where c.ctid = any (
      array(
        select d.ctid
        from balance_corrections d
        where d.shop_id = run.shop_id and d.run_id = run.id
        limit p_rows - removed
      )
    );
    get diagnostics n = row_count;
    removed := removed + n;
    exit when removed >= p_rows;
    delete from sync_runs r where r.shop_id = run.shop_id and r.id = run.id;
    removed := removed + 1;
    exit when removed >= p_rows;
  end loop;
  -- Corrections that a posting, or a verification outside a run, made on its way: kept as long.
  delete from balance_corrections c
  where c.ctid = any (
    array(
      select d.ctid from balance_corrections d where d.run_id is null and d.corrected_at < cutoff limit p_rows - removed
    )
  );
  get diagnostics n = row_count;
  removed := removed + n;
  -- Backfills that ended, a few rows each; but the last one of a shop tells that its values need not be read again.
  with old as (
    select b.shop_id, b.id
    from backfills b
    where
      b.finished_at < cutoff
      and exists (
        select from backfills l where l.shop_id = b.shop_id and l.values_read_at is not null and l.started_at > b.started_at
      )
    limit p_rows - removed
  ),
  files as (
    delete from backfill_files f using old o where f.shop_id = o.shop_id and f.backfill_id = o.id
  )
  delete from backfills b using old o where b.shop_id = o.shop_id and b.id = o.id;
  get diagnostics n = row_count;
  return removed + n;
end
$$;
revoke all on function prune_history (integer, integer) from public;
grant execute on function prune_history (integer, integer) to metafield_sync_app;
