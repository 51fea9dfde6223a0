"""Checks of one shop by what the database tells: who waits, for how long, and why."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from metafield_sync.cli.doctor.access_checks import check_access
from metafield_sync.cli.doctor.findings import Finding, counted, lasting, without_name
from metafield_sync.cli.doctor.meanings import meaning
from metafield_sync.sync.outcomes import GONE_CODE
from metafield_sync.sync.reconcile.drift import DRIFT_KINDS
from metafield_sync.sync.schedule import latest_tick
from metafield_sync.sync.standing import STALE_ALARM_S, is_overdue

if TYPE_CHECKING:
    from metafield_sync.cli.doctor.look import ShopFigures
    from metafield_sync.settings import Settings
    from metafield_sync.sync.standing import LastRuns

THROTTLED_SHARE_MAX = 0.01
"""We pace ourselves: if more of our calls are throttled, somebody else spends from the same budget."""
PLANS = {100: "Standard", 200: "Advanced", 1000: "Plus", 2000: "Enterprise"}
"""What each of Shopify's plans restores a second, in API points."""
SCHEDULES = {"verify": ("Verification", "VERIFY_CRON"), "reconcile": ("Reconciliation", "RECONCILE_CRON")}
BACKFILL_STEPS = {
    "collecting": "collecting who is to be written",
    "reading_values": "waiting for Shopify to read what is there",
    "files": "waiting for Shopify to work through the files",
}


def check_shop(settings: Settings, figures: ShopFigures, now: datetime) -> list[Finding]:
    """Everything there is to say about one shop."""
    return [
        _check_age(figures),
        *check_access(settings, figures),
        *_check_pause(figures),
        *_check_failures(figures),
        *_check_doubt(figures),
        *_check_missing(figures),
        *_check_backfill(figures),
        _check_budget(figures.standing),
        *(_check_schedule(settings, figures, kind, now) for kind in SCHEDULES),
        *_check_drift(figures.runs["reconcile"], figures.shop.domain),
        _check_inbox(figures),
        *_check_errands(figures),
    ]


def is_anybody_waiting(figures: ShopFigures) -> bool:
    """Whether a change waits to be pushed, by anybody's wish but the staff's."""
    waiting = sum(figures.standing[name] for name in ("waiting", "failing", "in_doubt"))
    return waiting > 0 and not figures.shop.paused_by_staff


def _check_age(figures: ShopFigures) -> Finding:
    oldest_s, domain = figures.standing["oldest_s"], figures.shop.domain
    if not oldest_s:
        return Finding("age", "ok", "Shopify shows every change.", shop=domain)
    found = f"The oldest change that Shopify does not show is {lasting(oldest_s)} old."
    if is_overdue(figures.standing):
        found = f"{found} More than {lasting(STALE_ALARM_S)} are an alarm, whatever the reason."
        return Finding("age", "wrong", found, "See the other lines for the reason, and the log.", domain)
    return Finding("age", "ok", found, shop=domain)


def _check_pause(figures: ShopFigures) -> list[Finding]:
    shop = figures.shop
    if shop.status != "paused" or shop.paused_code == shop.hold:
        return []
    resume = f"metafield-sync shops resume {shop.domain}"
    if shop.paused_by_staff:
        found = "Staff paused the shop: postings go on, nothing is pushed, verified or reconciled."
        return [Finding("paused", "warn", found, f"Resume it with: {resume}", shop.domain)]
    when = "" if shop.probe_at is None else f" It is tried again by itself at {shop.probe_at:%Y-%m-%d %H:%M:%S} UTC."
    why = without_name(shop.paused_detail or "", shop.domain)
    found = f"The shop is paused ({shop.paused_code}): {why}{when}"
    return [Finding("paused", "warn", found, f"Once that is done, at once with: {resume}", shop.domain)]


def _check_failures(figures: ShopFigures) -> list[Finding]:
    findings: list[Finding] = []
    for code, customers in figures.failures.items():
        if code != GONE_CODE:
            what, cure = meaning(code)
            found = f"{counted(customers, 'customer')} failing with {code}: {what}."
            findings.append(Finding("failing", "warn", found, cure, figures.shop.domain))
    return findings


def _check_doubt(figures: ShopFigures) -> list[Finding]:
    customers = figures.standing["in_doubt"]
    if not customers:
        return []
    found = f"{counted(customers, 'customer')} in doubt: Shopify did not say whether it wrote their balance."
    cure = "Nothing: they are read back, and written again if need be. Look again in a minute."
    return [Finding("in doubt", "warn", found, cure, figures.shop.domain)]


def _check_missing(figures: ShopFigures) -> list[Finding]:
    customers = figures.failures.get(GONE_CODE, 0)
    if not customers:
        return []
    what, cure = meaning(GONE_CODE)
    return [Finding("missing", "ok", f"{counted(customers, 'customer')} {what}.", cure, figures.shop.domain)]


def _check_backfill(figures: ShopFigures) -> list[Finding]:
    backfill, domain = figures.backfill, figures.shop.domain
    if backfill is None:
        return []
    found = (
        f"A backfill of {counted(backfill.customers, 'customer')} is under way, {BACKFILL_STEPS[backfill.step]}; "
        f"{backfill.written:,} are written."
    )
    if backfill.attempts:
        found = f"{found} It is held up: its step has failed {counted(backfill.attempts, 'time')} in a row."
        cure = "It is tried again, and in the end pushed in plain calls. The log of the worker says what failed."
        return [Finding("backfill", "warn", found, cure, domain)]
    if backfill.overdue_s > STALE_ALARM_S:
        found = f"{found} It is held up: nobody has taken its next step for {lasting(backfill.overdue_s)}."
        return [Finding("backfill", "warn", found, "See that a worker runs: metafield-sync worker", domain)]
    return [Finding("backfill", "ok", found, shop=domain)]


def _check_budget(standing: dict[str, Any]) -> Finding:
    domain = standing["domain"]
    if standing["budget_maximum"] is None:
        return Finding("budget", "ok", "Shopify has not been asked for anything yet.", shop=domain)
    rate = standing["budget_restore_rate"]
    plan = PLANS.get(round(rate))
    found = (
        f"Shopify restores {rate:,.0f} API points a second{f' ({plan})' if plan else ''}, up to "
        f"{standing['budget_maximum']:,.0f}; {counted(standing['points_spent'], 'point')} spent in "
        f"{counted(standing['calls'], 'call')}, {standing['throttled']:,} of them throttled."
    )
    if standing["throttled"] > standing["calls"] * THROTTLED_SHARE_MAX:
        cure = "We pace our calls, so something else spends with the same app's tokens. Give it an app of its own."
        return Finding("budget", "warn", found, cure, domain)
    return Finding("budget", "ok", found, shop=domain)


def _check_schedule(settings: Settings, figures: ShopFigures, kind: str, now: datetime) -> Finding:
    name, setting = SCHEDULES[kind]
    runs, shop = figures.runs[kind], figures.shop
    last = "never done" if runs.done_at is None else f"last done {lasting((now - runs.done_at).total_seconds())} ago"
    cron = settings.verify_cron if kind == "verify" else settings.reconcile_cron
    if cron == "off":
        return Finding(kind, "ok", f"{name}: {last}; the schedule is switched off ({setting}).", shop=shop.domain)
    if shop.paused_by_staff:
        return Finding(kind, "ok", f"{name}: {last}; not scheduled while staff has the shop paused.", shop=shop.domain)
    if runs.failed_at is not None and (runs.done_at is None or runs.failed_at > runs.done_at):
        found = f"{name}: {last}, and the last time it failed: {without_name(runs.error or '', shop.domain)}"
        cure = f"Once that is put right: metafield-sync {kind} --shop {shop.domain}"
        return Finding(kind, "warn", found, cure, shop.domain)
    # One that is due now may be at work, so it is the one before that must have been done. Who was added since is not
    # behind.
    due = latest_tick(cron, latest_tick(cron, now) - timedelta(microseconds=1))
    if shop.added_at < due and (runs.done_at is None or runs.done_at < due):
        found = f"{name}: {last}; by its schedule ({cron}, UTC) it was to be done at {due:%Y-%m-%d %H:%M} UTC."
        cure = f"See that a worker runs. By hand: metafield-sync {kind} --shop {shop.domain}"
        return Finding(kind, "warn", found, cure, shop.domain)
    return Finding(kind, "ok", f"{name}: {last}; scheduled ({cron}, UTC).", shop=shop.domain)


def _check_drift(runs: LastRuns, domain: str) -> list[Finding]:
    result = runs.result
    if result is None or not result["drifted"]:
        return []
    kinds = "; ".join(
        f"{count:,} {kind} ({DRIFT_KINDS[kind].rstrip('.').lower()})"
        for kind, count in result["byKind"].items()
        if count and kind in DRIFT_KINDS
    )
    found = (
        f"The last reconciliation found {counted(result['drifted'], 'customer')} who drifted, and repaired "
        f"{result['repaired']:,}: {kinds}."
    )
    if result["drifted"] > result["repaired"] + result["byKind"]["customer_gone"]:
        return [Finding("drift", "warn", found, f"Run: metafield-sync reconcile --shop {domain} --repair", domain)]
    return [Finding("drift", "ok", found, f"GET /api/sync-runs/{result['runId']}/changes names them.", domain)]


def _check_inbox(figures: ShopFigures) -> Finding:
    inbox, domain = figures.inbox, figures.shop.domain
    if inbox.failed:
        found = f"{counted(inbox.failed, 'webhook was', 'webhooks were')} given up after many attempts."
        cure = (
            f"See why with: metafield-sync inbox list --failed --shop {domain}. Once that is put right: "
            f"metafield-sync inbox resend --failed --shop {domain}"
        )
        return Finding("webhooks", "warn", found, cure, domain)
    if inbox.oldest_s > STALE_ALARM_S:
        found = (
            f"{counted(inbox.waiting, 'webhook waits', 'webhooks wait')} to be handled, the oldest for "
            f"{lasting(inbox.oldest_s)}."
        )
        cure = f"See that a worker runs, and why with: metafield-sync inbox list --waiting --shop {domain}"
        return Finding("webhooks", "warn", found, cure, domain)
    waiting = f"; {inbox.waiting:,} came in just now" if inbox.waiting else ""
    return Finding("webhooks", "ok", f"Every webhook that came in is handled{waiting}.", shop=domain)


def _check_errands(figures: ShopFigures) -> list[Finding]:
    if figures.shop.status != "active" or figures.shop.hold is not None:
        # They wait for the shop, which has a line of its own.
        return []
    findings: list[Finding] = []
    for errands in figures.errands:
        if errands.oldest_s <= STALE_ALARM_S:
            continue
        count = errands.failing or errands.waiting
        found = f"{counted(count, 'errand')} to Shopify ({errands.kind}) stuck for {lasting(errands.oldest_s)}"
        if errands.error is not None:
            found = f"{found}: {errands.error.rstrip('.')}"
            cure = "They are tried again, at last every hour, and nothing is lost meanwhile."
        else:
            cure = "See that a worker runs: metafield-sync worker"
        findings.append(Finding("errands", "warn", f"{found}.", cure, figures.shop.domain))
    return findings
