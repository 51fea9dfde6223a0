"""What an app has of one shop: whether it is installed, its scopes, and the tokens it was given.

Kept with the shop: the app keeps its tokens too, and would be locked out by a server that forgot them.
"""

import json
import secrets
from dataclasses import dataclass
from typing import cast

from devstore.clock import Clock
from devstore.storage import Storage

ACCESS_TOKEN_S = 3_600
REFRESH_TOKEN_S = 90 * 24 * 3_600
# A refresh token that was used may be used again for so long, until the one it was exchanged for is used.
REPLAY_S = 30 * 24 * 3_600
# "24 h"; that the answer says one second less is general knowledge.
CLIENT_CREDENTIALS_S = 86_399

_TOKEN_BYTES = 16

_SCOPES = "select scopes from installations where shop = ?"
_PUT_SCOPES = "insert or replace into installations (shop, scopes) values (?, ?)"
_ADD_GRANT = """
insert into grants (shop, access_token, expires_s, refresh_token, refresh_expires_s, parent)
values (?, ?, ?, ?, ?, ?)
"""
_OPENS = "select 1 from grants where shop = ? and access_token = ? and (expires_s is null or expires_s > ?)"
_FIND_REFRESH = """
select id, parent, refresh_expires_s, refreshed_s from grants where shop = ? and refresh_token = ?
"""
_MARK_REFRESHED = "update grants set refreshed_s = coalesce(refreshed_s, ?) where id = ?"
_RETIRE = "update grants set refresh_token = null where id = ?"
_EXPIRE = "update grants set expires_s = ? where shop = ?"
_EXPIRE_REFRESH = "update grants set refresh_expires_s = ? where shop = ? and refresh_token is not null"
_REVOKE = "delete from grants where shop = ?"
_LIST = "select access_token, expires_s, refresh_token, refresh_expires_s from grants where shop = ? order by id"


class InvalidGrantError(Exception):
    """A refresh token is unknown, expired, or retired."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Tokens as they are given: seconds since 1970 until which they are good, None without end, or none."""

    access_token: str
    expires_s: int | None = None
    refresh_token: str | None = None
    refresh_expires_s: int | None = None


class Installation:
    """The app in one shop. What its going and coming leads to elsewhere is the business of `installing`.

    Args:
        storage: where it is kept.
        shop: the shop's number.
        clock: what tokens expire by.
        scopes: what the app has in a shop that is new; None if it is not installed there.
    """

    def __init__(self, storage: Storage, shop: int, clock: Clock, scopes: tuple[str, ...] | None) -> None:
        self._storage = storage
        self._shop = shop
        self._clock = clock
        row = cast("tuple[str | None] | None", storage.db.execute(_SCOPES, (shop,)).fetchone())
        if row is None:
            self.set_scopes(scopes)
        else:
            self._scopes = None if row[0] is None else tuple(cast("list[str]", json.loads(row[0])))

    @property
    def scopes(self) -> tuple[str, ...]:
        """What the app may do; nothing if it is not installed."""
        return self._scopes or ()

    @property
    def is_installed(self) -> bool:
        """Whether the app is installed."""
        return self._scopes is not None

    def set_scopes(self, scopes: tuple[str, ...] | None) -> None:
        """Grant the app these scopes and no others; None takes it away, and its tokens with it."""
        self._scopes = scopes
        text = None if scopes is None else json.dumps(scopes)
        with self._storage.transaction() as db:
            db.execute(_PUT_SCOPES, (self._shop, text))
            if scopes is None:
                db.execute(_REVOKE, (self._shop,))

    def issue(self, lifetime_s: int | None, *, refreshable: bool = False, parent: int | None = None) -> Grant:
        """Give out tokens: good for ever if `lifetime_s` is None; `parent` is the grant they were refreshed from."""
        now_s = int(self._clock.wall())
        made = Grant(
            access_token=f"shpat_{secrets.token_hex(_TOKEN_BYTES)}",
            expires_s=None if lifetime_s is None else now_s + lifetime_s,
            refresh_token=f"shprt_{secrets.token_hex(_TOKEN_BYTES)}" if refreshable else None,
            refresh_expires_s=now_s + REFRESH_TOKEN_S if refreshable else None,
        )
        values = (made.access_token, made.expires_s, made.refresh_token, made.refresh_expires_s, parent)
        self._storage.db.execute(_ADD_GRANT, (self._shop, *values))
        return made

    def refresh(self, refresh_token: str) -> Grant:
        """Exchange a refresh token for a new pair.

        It may be exchanged again, in case the answer was lost: until the one it was exchanged for is used, for 30
        days at the most. The access token it came with stays good for its hour (whether it does in reality is not
        published).

        Raises:
            InvalidGrantError: it is not good, or no longer.
        """
        db, now_s = self._storage.db, int(self._clock.wall())
        row = db.execute(_FIND_REFRESH, (self._shop, refresh_token)).fetchone()
        if row is None:
            raise InvalidGrantError
        number, parent, expires_s, refreshed_s = cast("tuple[int, int | None, int, int | None]", row)
        if now_s >= expires_s or (refreshed_s is not None and now_s > refreshed_s + REPLAY_S):
            raise InvalidGrantError
        with self._storage.transaction():
            db.execute(_MARK_REFRESHED, (now_s, number))
            db.execute(_RETIRE, (parent,))
            return self.issue(ACCESS_TOKEN_S, refreshable=True, parent=number)

    def opens(self, access_token: str) -> bool:
        """Whether an access token is one of these, and still good."""
        values = (self._shop, access_token, int(self._clock.wall()))
        return self._storage.db.execute(_OPENS, values).fetchone() is not None

    def expire(self, *, refresh_tokens: bool = False) -> None:
        """End every access token's time at once, and on request every refresh token's too."""
        now_s = int(self._clock.wall())
        self._storage.db.execute(_EXPIRE, (now_s, self._shop))
        if refresh_tokens:
            self._storage.db.execute(_EXPIRE_REFRESH, (now_s, self._shop))

    def grants(self) -> list[Grant]:
        """Everything given out since the app was installed, oldest first; a retired refresh token is left out."""
        rows = self._storage.db.execute(_LIST, (self._shop,)).fetchall()
        return [Grant(*row) for row in cast("list[tuple[str, int | None, str | None, int | None]]", rows)]
