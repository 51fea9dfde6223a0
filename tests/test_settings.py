"""Settings: what is taken when nothing is set, and one line that names it for each that is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from metafield_sync.errors import AppError
from metafield_sync.settings import Settings, SettingsInvalid

KEY = Fernet.generate_key().decode()


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {name.upper() for name in Settings.model_fields}
    for name in [name for name in os.environ if name.upper() in ours]:
        monkeypatch.delenv(name)


def test_every_setting_has_the_documented_default() -> None:
    settings = Settings.load()
    assert settings.database_url is None
    assert settings.database_owner_url is None
    assert settings.data_dir.name == "metafield-sync"
    assert (settings.host, settings.port, settings.public_url) == ("127.0.0.1", 8000, "http://127.0.0.1:8000")
    assert (settings.shopify_api_version, settings.shopify_admin_origin) == ("2026-10", "https://{shop}")
    assert (settings.metafield_namespace, settings.metafield_key) == ("loyalty", "points_balance")
    assert settings.metafield_storefront_access == "PUBLIC_READ"
    assert settings.encryption_keys == ()
    assert settings.rate_limit_per_s == 2000
    assert (settings.log_format, settings.log_level) == (None, "info")


def test_the_environment_is_read_and_what_is_passed_in_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9000")
    monkeypatch.setenv("DATA_DIR", "/somewhere/else")
    monkeypatch.setenv("ENCRYPTION_KEYS", f"{KEY}, {KEY} ,")
    settings = Settings.load(host="::1")
    assert (settings.port, settings.public_url) == (9000, "http://[::1]:9000")
    assert settings.data_dir == Path("/somewhere/else")
    assert settings.encryption_keys == (KEY, KEY)
    assert Settings.load(port=1).port == 1


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setenv("PORT", "")
    assert Settings.load() == Settings.load(port=8000)


def test_the_public_address_is_app_url_when_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_URL", "https://points.example.com/")
    assert Settings.load().public_url == "https://points.example.com"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://localhost/points"),
        ("DATABASE_URL", "host=localhost dbname=points"),
        ("DATABASE_OWNER_URL", "localhost"),
        ("DATABASE_OWNER_URL", "postgresql://owner@localhost/points"),
        ("PORT", "http"),
        ("PORT", "65536"),
        ("PORT", "-1"),
        ("APP_URL", "points.example.com"),
        ("APP_URL", "https://points.example.com/?a=b"),
        ("SHOPIFY_API_VERSION", "2026-11"),
        ("SHOPIFY_API_VERSION", "latest"),
        ("SHOPIFY_ADMIN_ORIGIN", "http://shop.example"),
        ("SHOPIFY_ADMIN_ORIGIN", "http://192.168.1.2:9000/{shop}"),
        ("SHOPIFY_ADMIN_ORIGIN", "{shop}"),
        ("SHOPIFY_ADMIN_ORIGIN", "https://user:password@{shop}"),
        ("SHOPIFY_ADMIN_ORIGIN", "https://{shop}?a=b"),
        ("METAFIELD_NAMESPACE", "xy"),
        ("METAFIELD_NAMESPACE", "with space"),
        ("METAFIELD_KEY", "k"),
        ("METAFIELD_KEY", "k" * 65),
        ("METAFIELD_STOREFRONT_ACCESS", "PRIVATE"),
        ("ENCRYPTION_KEYS", "short"),
        ("ENCRYPTION_KEYS", f"{KEY},short"),
        ("RATE_LIMIT_PER_S", "0"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "loud"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    for overrides in ({}, {"host": "127.0.0.1"}):
        with pytest.raises(SettingsInvalid) as refused:
            Settings.load(**overrides)
        error: AppError = refused.value
        assert error.exit_status == 2
        assert name in error.detail
        assert "\n" not in error.detail
        assert value == "short" or "short" not in error.detail


def test_a_wrong_value_passed_in_is_named_too() -> None:
    with pytest.raises(SettingsInvalid, match=r"^PORT: "):
        Settings.load(port=65536)


@pytest.mark.parametrize(
    "origin",
    [
        "https://{shop}",
        "http://127.0.0.1:9000/{shop}",
        "http://localhost:1/{shop}",
        "http://[::1]:1",
        "http://{shop}.localhost",
    ],
)
def test_plain_http_is_taken_on_loopback_only(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    monkeypatch.setenv("SHOPIFY_ADMIN_ORIGIN", f"{origin}/")
    assert Settings.load().shopify_admin_origin == origin


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings.load().port = 1
