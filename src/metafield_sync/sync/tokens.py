"""A shop's access token, valid at the moment it is needed: renewed before it lapses, by one process of the whole fleet.

Whoever finds that a token is about to lapse claims the refresh (a lease in the shop's row), commits, asks Shopify, and
stores the new pair in place of the version it set out from. Everybody else goes on with the old token while it is
valid, and waits when it is not. A process killed meanwhile leaves a lease that ends by itself, and a refresh token that
works once more: Shopify takes it again until its replacement has been used.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from metafield_sync.shopify.app.credentials import AppNotConfigured
from metafield_sync.shopify.app.tokens import TokenRefused, TokenUnreachable
from metafield_sync.shops import registry
from metafield_sync.shops.registry import ShopNotFound
from metafield_sync.shops.tokens import (
    REFRESH_LEASE_S,
    SealedPair,
    find_token,
    give_back_refresh,
    store_token,
    take_refresh,
)
from metafield_sync.sync.errands import ErrandKind, note_errand
from metafield_sync.sync.turn import ShopStops

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from psycopg import AsyncConnection

    from metafield_sync.db.database import Database, ShopId
    from metafield_sync.shopify.app.tokens import AppTokens, TokenPair
    from metafield_sync.shops.registry import TokenSource
    from metafield_sync.shops.tokens import StoredToken
    from metafield_sync.shops.vault import Vault
    from metafield_sync.sync.drain import Mirror

RENEW_BEFORE_S = 600
"""A token is renewed so long before it lapses: for most of that Shopify may be out of reach, and nobody notices."""
LAST_MOMENT_S = 30
"""With less than this left a token is not begun with any more: a call takes its time."""
WAIT_POLL_S = 0.1
"""How often it is looked whether whoever is renewing has finished."""
WAIT_MAX_S = REFRESH_LEASE_S + 5
"""The lease of somebody who was killed ends within that."""
AGAIN_S, AGAIN_IN_NEED_S = 15.0, 1.0
"""After an attempt that came to nothing: nobody tries sooner, while the token is still valid, or is not."""
LOOK_AGAIN_MIN_S = 60.0
"""An errand that keeps a token fresh comes back no sooner."""
REFUSED_AGAIN_S = 3_600.0
"""How often it asks on where Shopify refuses: usually somebody has to open the app, and that alone gives a token."""

REFRESH_REFUSED = "refresh_refused"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ValidToken:
    """A token to call the Admin API with, and its version, for `ShopTokens.renew_refused`."""

    text: str
    version: int

    def __repr__(self) -> str:
        """Without the token."""
        return f"ValidToken(version={self.version})"


class ShopTokens:
    """The shops' tokens, opened and kept valid.

    Args:
        db: where they are stored.
        vault: opens and seals them.
        app: asks Shopify for new ones; None: there is no app, so only tokens that never lapse go on working.
    """

    def __init__(self, db: Database, vault: Vault, app: AppTokens | None = None) -> None:
        self._db = db
        self.vault = vault
        self.app = app

    async def valid(self, shop_id: ShopId) -> ValidToken:
        """A token that will not lapse during the next calls; renewed first if it is about to.

        Raises:
            ShopStops: there is none, or Shopify gives no new one; the detail says what to do.
            TokenUnreachable: it has lapsed and Shopify does not answer, for now.
            TokenUnreadable: ENCRYPTION_KEYS does not hold the key that sealed it.
        """
        return await self._renewed(shop_id, unless_valid_s=RENEW_BEFORE_S)

    async def renew_refused(self, shop_id: ShopId, version: int) -> bool:
        """After a 401: fetch a new token for one that lapses and was refused, once. False: believe the refusal.

        Raises:
            ShopStops, TokenUnreachable, TokenUnreadable: as `valid` does.
        """
        token = await self._find(shop_id)
        if token.version != version:
            return True
        if not token.is_renewable or token.renewed_after_refusal:
            return False
        await self._renewed(shop_id, refused=version)
        return True

    async def keep_fresh(self, shop_id: ShopId) -> float | None:
        """Renew the token if it is time; seconds until to look again, None if it never lapses.

        Raises:
            ShopStops, TokenUnreachable, TokenUnreadable: as `valid` does.
        """
        if not (await self._find(shop_id)).is_renewable:
            return None
        await self._renewed(shop_id, unless_valid_s=RENEW_BEFORE_S)
        left_s = (await self._find(shop_id)).valid_s
        # Looked at a little after it has become time: a turn that needs it may have renewed it by then.
        return None if left_s is None else max(LOOK_AGAIN_MIN_S, left_s - RENEW_BEFORE_S / 2)

    def seal(self, pair: TokenPair, source: TokenSource) -> SealedPair:
        """The pair as it may be stored."""
        return SealedPair(
            source=source,
            access_token=self.vault.seal(pair.access_token),
            expires_at=pair.expires_at,
            refresh_token=None if pair.refresh_token is None else self.vault.seal(pair.refresh_token),
            refresh_expires_at=pair.refresh_expires_at,
            scopes=pair.scopes,
        )

    async def _renewed(self, shop_id: ShopId, *, unless_valid_s: float = 0, refused: int | None = None) -> ValidToken:
        """The token, renewed unless it is valid for so long; or, if its version was `refused`, whatever it says."""
        deadline = time.monotonic() + WAIT_MAX_S
        while True:
            token = await self._find(shop_id)
            is_refused = token.version == refused
            left_s = token.valid_s
            if token.access_token is not None and not is_refused and (left_s is None or left_s > unless_valid_s):
                return self._opened(token)
            usable = token.access_token is not None and not is_refused and left_s is not None and left_s > LAST_MOMENT_S
            try:
                if await self._renew(token, after_refusal=is_refused, again_s=AGAIN_S if usable else AGAIN_IN_NEED_S):
                    continue
            except (TokenUnreachable, ShopStops):
                if usable:
                    # There is time to try again; nothing is held up by it yet.
                    return self._opened(token)
                raise
            if usable:
                return self._opened(token)
            if time.monotonic() > deadline:
                raise TokenUnreachable(f"{token.domain}: another process has been renewing the access token too long.")
            await asyncio.sleep(WAIT_POLL_S)

    def _opened(self, token: StoredToken) -> ValidToken:
        assert token.access_token is not None, "it was looked at"  # noqa: S101 - by the caller
        return ValidToken(self.vault.open(token.access_token), token.version)

    async def _renew(self, token: StoredToken, *, after_refusal: bool, again_s: float) -> bool:
        """Fetch the token after this one and store it; False: somebody else is at it."""
        app = self._app_for(token)
        holder = uuid.uuid4()
        async with self._db.unscoped() as conn:
            if not await take_refresh(conn, token, holder):
                return False
        stored = False
        try:
            if token.source == "client_credentials":
                pair = await app.client_credentials(token.domain)
            else:
                assert token.refresh_token is not None, "it is renewable"  # noqa: S101 - `_app_for` has looked
                pair = await app.refresh(token.domain, self.vault.open(token.refresh_token))
            sealed = self.seal(pair, token.source or "exchanged")
            async with self._db.unscoped() as conn:
                stored = await store_token(
                    conn, token.shop_id, sealed, replaces=token.version, after_refusal=after_refusal
                )
        except AppNotConfigured as error:
            raise ShopStops(error.code, f"{token.domain}: {error.detail}") from error
        except TokenRefused as refused:
            log.warning("no new access token", shop=token.domain, reason=refused.reason)
            raise ShopStops(REFRESH_REFUSED, refused.detail) from refused
        finally:
            if not stored:
                await asyncio.shield(self._give_back(token.shop_id, holder, again_s))
        if stored:
            log.info("access token renewed", shop=token.domain)
        return True

    async def _give_back(self, shop_id: ShopId, holder: uuid.UUID, again_s: float) -> None:
        async with self._db.unscoped() as conn:
            await give_back_refresh(conn, shop_id, holder, again_s=again_s)

    def _app_for(self, token: StoredToken) -> AppTokens:
        """What asks for the next token.

        Raises:
            ShopStops: nothing does.
        """
        if token.access_token is None and token.source != "client_credentials":
            raise ShopStops(
                "no_access_token",
                f"No access token is stored for {token.domain}. Open the app in the Shopify admin, or give one: "
                f"metafield-sync shops add {token.domain} --access-token …",
            )
        if not token.is_renewable:
            raise ShopStops(
                "access_token_lapsed",
                f"{token.domain}: the access token has lapsed, and nothing renews it. Open the app in the Shopify "
                "admin once: that gives it a new token.",
            )
        if self.app is None:
            raise ShopStops(
                AppNotConfigured.code,
                f"{token.domain}: the access token has to be renewed, and that needs SHOPIFY_API_KEY and "
                "SHOPIFY_API_SECRET.",
            )
        return self.app

    async def _find(self, shop_id: ShopId) -> StoredToken:
        async with self._db.unscoped() as conn:
            token = await find_token(conn, shop_id)
        if token is None:
            raise ShopNotFound(f"There is no shop number {shop_id}, or it was removed.")
        return token


async def keep_token_fresh(conn: AsyncConnection, shop_id: ShopId) -> None:
    """Have a token that lapses renewed from now on, in time, whether the shop has anything to push or not."""
    await note_errand(conn, shop_id, TOKEN_ERRAND.name)


async def _keep_fresh(mirror: Mirror, shop_id: ShopId, subjects: Sequence[str]) -> Mapping[str, float]:
    try:
        again_s = await mirror.tokens.keep_fresh(shop_id)
    except ShopNotFound:
        return {}
    except ShopStops as stop:
        async with mirror.db.unscoped() as conn:
            await registry.pause_shop(conn, shop_id, code=stop.code, detail=stop.detail, resumes_by_itself=True)
        return dict.fromkeys(subjects, REFUSED_AGAIN_S)
    return {} if again_s is None else dict.fromkeys(subjects, again_s)


TOKEN_ERRAND = ErrandKind(name="token", batch_max=1, run_without_turn=_keep_fresh, even_if_held=True)
"""Keeps a shop's token from lapsing while nothing is pushed: idle, paused or being installed."""
