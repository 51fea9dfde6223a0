"""Settings: read from the environment once, checked, frozen, and passed in wherever they are needed."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from croniter import CroniterError, croniter
from cryptography.fernet import Fernet
from platformdirs import user_data_path
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from metafield_sync.errors import AppError

METAFIELD_NAME = re.compile(r"[A-Za-z0-9_-]+")

CRON_FIELDS = 5
CRON_BY_CHANCE = re.compile(r"(?i)(?<![a-z])[hr](?![a-z])")
"""croniter's H and R stand for a number that each process would choose for itself."""

CRON_OFF = "off"


class SettingsInvalid(AppError):
    """A setting is wrong or missing. The detail is one line that names it."""

    code = "settings_invalid"
    exit_status = 2


def _postgres_url(value: str) -> str:
    if not value.startswith(("postgresql://", "postgres://")):
        raise ValueError("must be a URL such as postgresql://user:password@host:5432/database")
    return value


def _admin_origin(value: str) -> str:
    parts = urlsplit(value.replace("{shop}", "shop.example"))
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must be an origin such as https://{shop}")
    if parts.query or parts.fragment or parts.username:
        raise ValueError("must be a plain origin, without query, fragment or credentials")
    # The access token travels in a header: over plain HTTP only where no network is crossed.
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ValueError("must be https; plain http is accepted on loopback only")
    return value.rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _app_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be an address such as https://points.example.com")
    return value.rstrip("/")


def _metafield_name(value: str) -> str:
    if METAFIELD_NAME.fullmatch(value) is None:
        raise ValueError("may hold letters, digits, - and _ only")
    return value


def _schedule(value: str) -> str:
    """A cron expression in UTC that comes round, or `off`."""
    text = " ".join(value.split())
    if text.lower() == CRON_OFF:
        return CRON_OFF
    plain = text.startswith("@") or len(text.split(" ")) == CRON_FIELDS
    try:
        if plain and CRON_BY_CHANCE.search(text) is None:
            croniter(text, datetime.now(UTC)).get_prev()
            return text
    except CroniterError:
        pass
    raise ValueError(
        "must be a cron expression with five fields, in UTC, such as '0 */6 * * *' for every six hours, or off"
    )


def _split_keys(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _fernet_keys(value: tuple[str, ...]) -> tuple[str, ...]:
    for key in value:
        try:
            Fernet(key)
        except ValueError as error:
            raise ValueError(
                "must be Fernet keys, newest first, comma-separated; make one with: python -c "
                "'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"
            ) from error
    return value


class Settings(BaseSettings):
    """What the environment says (names as in upper case). `.load()` is the way in."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    database_url: Annotated[str, AfterValidator(_postgres_url)] | None = None
    """PostgreSQL to use; None: the embedded one under `data_dir`."""
    database_owner_url: Annotated[str, AfterValidator(_postgres_url)] | None = None
    """The login that migrates, when it is not the same."""
    data_dir: Path = Field(default_factory=lambda: user_data_path("metafield-sync"))
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    app_url: Annotated[str, AfterValidator(_app_url)] | None = None
    shopify_api_key: str | None = None
    """The app's client id; Shopify's CLI sets it, as it does the next."""
    shopify_api_secret: SecretStr | None = None
    """The app's client secret: it signs webhooks, proxied requests and ID tokens."""
    shopify_api_secret_old: SecretStr | None = None
    """The secret before the last rotation, which Shopify may go on signing with for an hour."""
    shopify_api_version: str = Field(default="2026-10", pattern=r"^20[0-9]{2}-(01|04|07|10)$")
    shopify_admin_origin: Annotated[str, AfterValidator(_admin_origin)] = "https://{shop}"
    metafield_namespace: Annotated[str, AfterValidator(_metafield_name)] = Field(
        default="loyalty", min_length=3, max_length=255
    )
    metafield_key: Annotated[str, AfterValidator(_metafield_name)] = Field(
        default="points_balance", min_length=2, max_length=64
    )
    metafield_storefront_access: Literal["PUBLIC_READ", "NONE"] = "PUBLIC_READ"
    encryption_keys: Annotated[
        tuple[str, ...], NoDecode, BeforeValidator(_split_keys), AfterValidator(_fernet_keys)
    ] = ()
    backfill_threshold: int = Field(default=5000, ge=1)
    """Stale customers of one shop from which a bulk operation is used."""
    verify_cron: Annotated[str, AfterValidator(_schedule)] = "0 */6 * * *"
    """When every shop is verified by itself: a cron expression in UTC, or `off`."""
    reconcile_cron: Annotated[str, AfterValidator(_schedule)] = "30 3 * * *"
    """When every shop is reconciled by itself, in the same form."""
    history_days: int = Field(default=400, ge=1, le=36_500)
    """How long runs, and what they recorded, are kept."""
    rate_limit_per_s: int = Field(default=2000, ge=1)
    log_format: Literal["console", "json"] | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _owner_needs_database(self) -> Self:
        if self.database_owner_url and not self.database_url:
            raise ValueError("DATABASE_OWNER_URL is set, but DATABASE_URL is not")
        return self

    @model_validator(mode="after")
    def _app_has_a_secret(self) -> Self:
        # The other way round is allowed: webhooks and proxied requests need the secret alone.
        if self.shopify_api_secret is None:
            for name, value in (
                ("SHOPIFY_API_KEY", self.shopify_api_key),
                ("SHOPIFY_API_SECRET_OLD", self.shopify_api_secret_old),
            ):
                if value is not None:
                    raise ValueError(f"{name} is set, but SHOPIFY_API_SECRET is not")
        return self

    @property
    def public_url(self) -> str:
        """Where this app is reached from outside: APP_URL, else http://HOST:PORT."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.app_url or f"http://{host}:{self.port}"

    @classmethod
    def load(cls, **overrides: object) -> Settings:
        """Read the environment.

        Args:
            overrides: values that win over the environment, by field name.

        Raises:
            SettingsInvalid: one line that names the setting and says what it must be.
        """
        try:
            return cls.model_validate(cls().model_copy(update=overrides).model_dump()) if overrides else cls()
        except ValidationError as error:
            first = error.errors()[0]
            name = "_".join(str(part) for part in first["loc"]).upper()
            what = first["msg"].removeprefix("Value error, ")
            raise SettingsInvalid(f"{name}: {what}." if name else f"{what}.") from None
