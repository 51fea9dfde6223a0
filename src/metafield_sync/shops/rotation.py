"""Every stored token sealed with the newest key, so that older ones may be dropped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from metafield_sync.db.database import ShopId
from metafield_sync.shops.registry import get_shop
from metafield_sync.shops.tokens import count_sealed, reseal, sealed_after
from metafield_sync.shops.vault import TokenUnreadable

if TYPE_CHECKING:
    from collections.abc import Callable

    from metafield_sync.db.database import Database
    from metafield_sync.shops.tokens import SealedTexts
    from metafield_sync.shops.vault import Vault

RESEAL_ROWS_MAX = 200
RESEAL_TRIES_MAX = 5
"""A token that is renewed in between is looked at anew: another process has sealed it, maybe with an old key."""


@dataclass(slots=True)
class Rotation:
    """What it came to, in shops: `resealed` now, `newest` already sealed so, `unreadable` by domain."""

    resealed: int = 0
    newest: int = 0
    unreadable: list[str] = field(default_factory=list[str])

    @property
    def is_complete(self) -> bool:
        """Whether no stored token needs an older key any more."""
        return not self.unreadable


async def rotate(db: Database, vault: Vault, tell: Callable[[int, int], None]) -> Rotation:
    """Seal every token and refresh token with the newest key, beside whatever is at work; again, it changes nothing.

    A process that does not have the newest key yet goes on sealing with an older one: restart them all first.

    Args:
        db: where the shops are.
        vault: with the keys, newest first.
        tell: called with (done, total) shops.
    """
    done = Rotation()
    async with db.unscoped() as conn:
        total = await count_sealed(conn)
    seen = 0
    after: ShopId | None = None
    while True:
        async with db.unscoped() as conn:
            page = await sealed_after(conn, after, RESEAL_ROWS_MAX)
        if not page:
            return done
        for texts in page:
            await _reseal_one(db, vault, texts, done)
            seen += 1
            tell(seen, max(total, seen))
        after = page[-1].shop_id


async def _reseal_one(db: Database, vault: Vault, texts: SealedTexts, done: Rotation) -> None:
    for _ in range(RESEAL_TRIES_MAX):
        try:
            access = None if texts.access_token is None else vault.reseal(texts.access_token)
            refresh = None if texts.refresh_token is None else vault.reseal(texts.refresh_token)
        except TokenUnreadable:
            break
        if access is None and refresh is None:
            done.newest += 1
            return
        async with db.unscoped() as conn:
            stored = await reseal(conn, texts, access or texts.access_token, refresh or texts.refresh_token)
            if stored:
                done.resealed += 1
                return
            found = await sealed_after(conn, ShopId(texts.shop_id - 1), 1)
        if not found or found[0].shop_id != texts.shop_id:
            # Removed meanwhile, and its tokens forgotten.
            return
        texts = found[0]
    async with db.unscoped() as conn:
        done.unreadable.append((await get_shop(conn, texts.shop_id)).domain)
