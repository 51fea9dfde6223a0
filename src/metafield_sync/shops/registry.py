"""Shops: added, found, paused, resumed, removed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from psycopg.rows import class_row

from metafield_sync.db.database import ShopId
from metafield_sync.errors import AppError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg import AsyncConnection

SHOP_DOMAIN = re.compile(r"[a-z0-9][a-z0-9-]{0,59}\.myshopify\.com")

PROBE_FIRST_S = 30
PROBE_LAST_S = 600
"""A shop that Shopify refuses is asked again after 30 s, then ever more seldom, at last every 10 minutes."""

PAUSED_BY_STAFF = "paused_by_staff"

TokenSource = Literal["given", "exchanged", "client_credentials"]
"""How a shop's access token came: by staff; in exchange for an ID token of the embedded app; by client credentials."""
Hold = Literal["installing", "values_found"]
"""What an installation waits for, with nothing pushed meanwhile: Shopify's reading; somebody's choice."""


class ShopDomainInvalid(AppError):
    """Not a shop's permanent domain."""

    code = "shop_domain_invalid"
    status = 400
    exit_status = 2


class ShopNotFound(AppError):
    """No such shop has been added."""

    code = "shop_not_found"
    status = 404
    exit_status = 2


@dataclass(frozen=True, slots=True)
class Shop:
    """One shop as it stands. `access_token` is ciphertext (see `vault`).

    `hold`: its installation is not finished, so nothing is pushed, whoever asks. `granted_scopes`: what the app may do
    there, in Shopify's words; None while nobody has asked. `currency` is ISO 4217.
    """

    id: ShopId
    domain: str
    status: Literal["active", "paused", "removed"]
    paused_code: str | None
    paused_detail: str | None
    probe_at: datetime | None
    access_token: str | None = field(repr=False)
    definition_ensured: str | None
    added_at: datetime
    token_source: TokenSource | None
    hold: Hold | None
    hold_detail: str | None
    granted_scopes: list[str] | None
    installed_at: datetime | None
    uninstalled_at: datetime | None
    currency: str | None

    @property
    def paused_by_staff(self) -> bool:
        """Paused by a person, so only a person resumes it."""
        return self.status == "paused" and self.paused_code == PAUSED_BY_STAFF


def check_domain(domain: str) -> str:
    """The domain in lower case.

    Raises:
        ShopDomainInvalid: it is not of the form `something.myshopify.com`.
    """
    wanted = domain.strip().lower()
    if SHOP_DOMAIN.fullmatch(wanted) is None:
        raise ShopDomainInvalid(
            f"{domain!r} is not a shop's permanent domain. It has the form name.myshopify.com and stands in the "
            "Shopify admin under Settings → Domains."
        )
    return wanted


async def add_shop(conn: AsyncConnection, domain: str, sealed_token: str | None) -> tuple[Shop, bool]:
    """Add a shop, or give one that is there a new token and set it to work again.

    Returns:
        The shop, and whether it is new.
    """
    async with conn.cursor() as cur:
        await cur.execute(ADD_SHOP, {"domain": domain, "token": sealed_token})
        row = await cur.fetchone()
    assert row is not None, "an upsert returns its row"  # noqa: S101 - PostgreSQL's promise, not input
    return await get_shop(conn, ShopId(row[0])), row[1]


ADD_SHOP = """
insert into shops as s (domain, access_token, token_source, token_version, installed_at)
values (
  %(domain)s,
  %(token)s::text,
  case when %(token)s::text is not null then 'given' end,
  case when %(token)s::text is not null then 1 else 0 end,
  case when %(token)s::text is not null then clock_timestamp() end
)
on conflict (domain) do update
set
  access_token = coalesce(excluded.access_token, s.access_token),
  token_source = coalesce(excluded.token_source, s.token_source),
  token_expires_at = case when excluded.access_token is null then s.token_expires_at end,
  refresh_token = case when excluded.access_token is null then s.refresh_token end,
  refresh_expires_at = case when excluded.access_token is null then s.refresh_expires_at end,
  token_version = s.token_version + 1,
  token_renewed_after_refusal = false,
  installed_at = coalesce(excluded.installed_at, s.installed_at),
  uninstalled_at = null,
  status = case when s.hold is null then 'active' else 'paused' end,
  paused_code = s.hold,
  paused_detail = s.hold_detail,
  probe_at = null,
  probes = 0,
  definition_ensured = null
returning id, xmax = 0
"""


async def get_shop(conn: AsyncConnection, shop_id: ShopId) -> Shop:
    """The shop with this number.

    Raises:
        ShopNotFound: there is none.
    """
    async with conn.cursor(row_factory=class_row(Shop)) as cur:
        await cur.execute(GET_SHOP, {"shop": shop_id})
        shop = await cur.fetchone()
    if shop is None:
        raise ShopNotFound(f"There is no shop number {shop_id}.")
    return shop


GET_SHOP = """
select
  id, domain, status, paused_code, paused_detail, probe_at, access_token, definition_ensured, added_at, token_source,
  hold, hold_detail, granted_scopes, installed_at, uninstalled_at, currency
from shops
where id = %(shop)s
"""


async def list_shops(conn: AsyncConnection, domain: str | None = None) -> list[Shop]:
    """Every shop that was not removed, by domain; only the one when `domain` is given.

    Raises:
        ShopNotFound: `domain` is given and was never added, or was removed.
    """
    async with conn.cursor(row_factory=class_row(Shop)) as cur:
        await cur.execute(LIST_SHOPS, {"domain": domain})
        shops = await cur.fetchall()
    if domain is not None and not shops:
        raise ShopNotFound(await _why_not_there(conn, domain))
    return shops


async def _why_not_there(conn: AsyncConnection, domain: str) -> str:
    async with conn.cursor() as cur:
        await cur.execute("select uninstalled_at from shops where domain = %s", (domain,))
        row = await cur.fetchone()
    back = f"metafield-sync shops add {domain}"
    if row is None:
        return f"{domain} has not been added. Add it with: {back}"
    when = "" if row[0] is None else f" on {row[0]:%Y-%m-%d}"
    return (
        f"{domain} was removed, or has uninstalled the app{when}. Its ledger stays, and it comes back when the app is "
        f"opened again in its admin, or with: {back}"
    )


LIST_SHOPS = """
select
  id, domain, status, paused_code, paused_detail, probe_at, access_token, definition_ensured, added_at, token_source,
  hold, hold_detail, granted_scopes, installed_at, uninstalled_at, currency
from shops
where status <> 'removed' and (%(domain)s::text is null or domain = %(domain)s)
order by domain
"""


async def pause_shop(
    conn: AsyncConnection, shop_id: ShopId, *, code: str, detail: str, resumes_by_itself: bool
) -> None:
    """Stop pushing to a shop, with the reason; asked again later, ever more seldom, if it may resume by itself.

    A pause by staff is never overwritten by a refusal of Shopify's. A shop that is held is not pushed to anyway, and
    asked for by its installation: it is told the reason, and not probed.
    """
    await conn.execute(
        PAUSE_SHOP,
        {
            "shop": shop_id,
            "code": code,
            "detail": detail,
            "probe": resumes_by_itself,
            "first": PROBE_FIRST_S,
            "last": PROBE_LAST_S,
            "staff": PAUSED_BY_STAFF,
        },
    )


PAUSE_SHOP = """
update shops
set
  status = 'paused',
  paused_code = %(code)s,
  paused_detail = %(detail)s,
  probe_at = case
    when hold is not null then null
    -- Refused again before its time, because somebody asked: the attempt that is due by itself stays due.
    when %(probe)s and status = 'paused' and probe_at > clock_timestamp() then probe_at
    when %(probe)s
      then clock_timestamp() + make_interval(secs => least(%(first)s * 2 ^ least(probes, 10), %(last)s))
  end,
  probes = probes + (status <> 'paused' or probe_at is null or probe_at <= clock_timestamp())::integer
where
  id = %(shop)s
  and status <> 'removed'
  and (%(code)s = %(staff)s or paused_code is distinct from %(staff)s)
"""


async def resume_shop(conn: AsyncConnection, shop_id: ShopId, *, by_itself: bool = False) -> None:
    """Push to the shop again, unless its installation holds it: then that is again what it waits for.

    `by_itself`, because Shopify takes calls again, never undoes a pause by staff.
    """
    await conn.execute(RESUME_SHOP, {"shop": shop_id, "by_itself": by_itself, "staff": PAUSED_BY_STAFF})


RESUME_SHOP = """
update shops
set
  status = case when hold is null then 'active' else 'paused' end,
  paused_code = hold,
  paused_detail = hold_detail,
  probe_at = null,
  probes = 0
where
  id = %(shop)s
  and status = 'paused'
  and (not %(by_itself)s or paused_code is distinct from %(staff)s)
"""


async def hold_shop(conn: AsyncConnection, shop_id: ShopId, hold: Hold | None, detail: str | None) -> None:
    """Keep everything from being pushed until an installation has come further, or end that (None).

    Staff who have paused the shop go on pausing it.
    """
    await conn.execute(HOLD_SHOP, {"shop": shop_id, "hold": hold, "detail": detail, "staff": PAUSED_BY_STAFF})


HOLD_SHOP = """
update shops
set
  hold = %(hold)s::text,
  hold_detail = %(detail)s::text,
  status = case
    when status = 'removed' or paused_code = %(staff)s then status
    when %(hold)s::text is null then 'active'
    else 'paused'
  end,
  paused_code = case when paused_code = %(staff)s then paused_code else %(hold)s::text end,
  paused_detail = case when paused_code = %(staff)s then paused_detail else %(detail)s::text end,
  probe_at = null,
  probes = 0
where id = %(shop)s
"""


async def remember_shop(
    conn: AsyncConnection, shop_id: ShopId, *, currency: str | None = None, shopify_shop_id: int | None = None
) -> bool:
    """Note what Shopify says of the shop; whether any of it is news. None: it did not say."""
    async with conn.cursor() as cur:
        await cur.execute(REMEMBER_SHOP, {"shop": shop_id, "currency": currency, "shopify": shopify_shop_id})
        return await cur.fetchone() is not None


REMEMBER_SHOP = """
update shops
set
  currency = coalesce(%(currency)s::text, currency),
  shopify_shop_id = coalesce(%(shopify)s::bigint, shopify_shop_id)
where
  id = %(shop)s
  and (currency, shopify_shop_id) is distinct from (
    coalesce(%(currency)s::text, currency), coalesce(%(shopify)s::bigint, shopify_shop_id)
  )
returning id
"""


async def remember_scopes(conn: AsyncConnection, shop_id: ShopId, scopes: Sequence[str]) -> None:
    """Note what the app may do in the shop, in Shopify's words."""
    await conn.execute(REMEMBER_SCOPES, {"shop": shop_id, "scopes": sorted(set(scopes))})


REMEMBER_SCOPES = "update shops set granted_scopes = %(scopes)s where id = %(shop)s"


async def remove_shop(conn: AsyncConnection, shop_id: ShopId) -> None:
    """Forget a shop's token and revoke its keys. Its ledger stays: entries are history.

    An installation that is not finished ends with it; the next one begins anew.
    """
    await conn.execute(REMOVE_SHOP, {"shop": shop_id})
    await conn.execute(REVOKE_KEYS, {"shop": shop_id})


REMOVE_SHOP = """
update shops
set
  status = 'removed',
  access_token = null,
  token_source = null,
  token_expires_at = null,
  refresh_token = null,
  refresh_expires_at = null,
  token_version = token_version + 1,
  granted_scopes = null,
  hold = null,
  hold_detail = null,
  probe_at = null,
  definition_ensured = null,
  uninstalled_at = clock_timestamp()
where id = %(shop)s
"""

REVOKE_KEYS = """
update api_keys
set revoked_at = clock_timestamp()
where shop_id = %(shop)s and revoked_at is null
"""


async def remember_definition(conn: AsyncConnection, shop_id: ShopId, fingerprint: str | None) -> None:
    """Note that the shop's metafield definition is as it should be, so that it is not asked for again."""
    await conn.execute(REMEMBER_DEFINITION, {"shop": shop_id, "fingerprint": fingerprint})


REMEMBER_DEFINITION = "update shops set definition_ensured = %(fingerprint)s where id = %(shop)s"
