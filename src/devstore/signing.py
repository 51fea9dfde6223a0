"""How Shopify signs what it sends to an app, always with the app's client secret: bodies, queries and ID tokens."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from uuid import uuid4

import jwt

# App Bridge's tokens are good for a minute.
ID_TOKEN_S = 60
ID_TOKEN_ALGORITHM = "HS256"  # noqa: S105  # an algorithm
# Clocks differ a little; Shopify's own libraries allow for as much.
_LEEWAY_S = 10

Pairs = Iterable[tuple[str, str]]


def body_signature(secret: str, body: bytes) -> str:
    """What `X-Shopify-Hmac-Sha256` says of a body: base64. Headers are not covered."""
    return base64.b64encode(hmac.digest(secret.encode(), body, hashlib.sha256)).decode()


def proxy_signature(secret: str, parameters: Pairs) -> str:
    """The `signature` of a request that comes through the app proxy, in hex.

    Each `name=value`, ordered by name, values decoded, several of one name joined by a comma, and nothing between the
    pairs: `a=1` beside `b=2` is signed as `a=1b=2`.
    """
    return _hex(secret, "".join(f"{name}={value}" for name, value in _joined(parameters)))


def frame_signature(secret: str, parameters: Pairs) -> str:
    """The `hmac` of the address an embedded app is opened at, in hex: as the proxy's, with `&` between the pairs."""
    return _hex(secret, "&".join(f"{name}={value}" for name, value in _joined(parameters)))


def _joined(parameters: Pairs) -> list[tuple[str, str]]:
    values: dict[str, list[str]] = {}
    for name, value in parameters:
        values.setdefault(name, []).append(value)
    return [(name, ",".join(values[name])) for name in sorted(values)]


def _hex(secret: str, text: str) -> str:
    return hmac.digest(secret.encode(), text.encode(), hashlib.sha256).hex()


@dataclass(frozen=True, slots=True)
class IdTokenClaims:
    """What an ID token says. A test may change any of them before it is signed; None leaves a claim out.

    Attributes:
        iss: the shop's admin, `https://{shop}/admin`.
        dest: the shop, `https://{shop}`.
        aud: the app's client id.
        sub: the member of staff, a number.
        exp: until when it is good, seconds since 1970.
        nbf: from when on.
        iat: when it was issued.
        jti: its own id.
        sid: the member of staff's session.
    """

    iss: str | None
    dest: str | None
    aud: str | None
    sub: str | None
    exp: int | None
    nbf: int | None
    iat: int | None
    jti: str | None
    sid: str | None

    def changed(self, changes: dict[str, object]) -> "IdTokenClaims":
        """The same with some claims replaced. Raises TypeError for a claim there is not."""
        return replace(self, **changes)  # pyright: ignore[reportArgumentType]  # a test may well put nonsense there


def id_token_claims(domain: str, client_id: str, user: int, now_s: int) -> IdTokenClaims:
    """What App Bridge's token for a member of a shop's staff says."""
    return IdTokenClaims(
        iss=f"https://{domain}/admin",
        dest=f"https://{domain}",
        aud=client_id,
        sub=str(user),
        exp=now_s + ID_TOKEN_S,
        nbf=now_s,
        iat=now_s,
        jti=str(uuid4()),
        sid=secrets.token_hex(32),
    )


def sign_id_token(claims: IdTokenClaims, secret: str, algorithm: str = ID_TOKEN_ALGORITHM) -> str:
    """The token itself. `algorithm` is one of HMAC's, or `none` for a token nobody signed."""
    named = {name: getattr(claims, name) for name in IdTokenClaims.__dataclass_fields__}
    said = {name: value for name, value in named.items() if value is not None}
    return jwt.encode(said, "" if algorithm == "none" else secret, algorithm)


def id_token_trouble(token: str, domain: str, client_id: str, known_secrets: Iterable[str], now_s: int) -> str | None:
    """What speaks against an ID token that is to be exchanged at a shop; None if nothing does."""
    for secret in known_secrets:
        try:
            claims: dict[str, object] = jwt.decode(
                token,
                secret,
                algorithms=[ID_TOKEN_ALGORITHM],
                # The times are checked below, by the shop's clock.
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False, "verify_aud": False},
            )
        except jwt.InvalidSignatureError:
            continue
        except jwt.InvalidTokenError as error:
            return str(error)
        return _claims_trouble(claims, domain, client_id, now_s)
    return "Signature verification failed"


def _claims_trouble(claims: dict[str, object], domain: str, client_id: str, now_s: int) -> str | None:
    expires, not_before = claims.get("exp"), claims.get("nbf", 0)
    if claims.get("aud") != client_id:
        return "The token is for another app"
    if claims.get("dest") != f"https://{domain}":
        return "The token is for another shop"
    if not isinstance(expires, int) or now_s > expires + _LEEWAY_S:
        return "The token has expired"
    if not isinstance(not_before, int) or now_s < not_before - _LEEWAY_S:
        return "The token is not valid yet"
    return None
