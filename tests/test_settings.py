"""Settings: what is taken when nothing is set, and one line that names it for each that is wrong."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from metafield_sync.errors import AppError
from metafield_sync.settings import Settings, SettingsInvalid
from metafield_sync.sync.schedule import latest_tick

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
    assert (settings.verify_cron, settings.reconcile_cron) == ("0 */6 * * *", "30 3 * * *")
    assert (settings.history_days, settings.backfill_threshold) == (400, 5000)
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
        ("VERIFY_CRON", "every day"),
        ("VERIFY_CRON", "0 */6 * *"),
        ("VERIFY_CRON", "61 * * * *"),
        ("VERIFY_CRON", "0 0 * * * *"),
        ("VERIFY_CRON", "@reboot"),
        ("RECONCILE_CRON", "0 0 31 2 *"),
        ("RECONCILE_CRON", "R 3 * * *"),
        ("RECONCILE_CRON", "0 R(1-5) * * *"),
        ("RECONCILE_CRON", "H H * * *"),
        ("HISTORY_DAYS", "0"),
        ("HISTORY_DAYS", "for ever"),
        ("BACKFILL_THRESHOLD", "0"),
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


@pytest.mark.parametrize(
    ("value", "taken"),
    [("off", "off"), ("OFF", "off"), (" 15  2 * * mon-fri ", "15 2 * * mon-fri"), ("@daily", "@daily")],
)
def test_a_schedule_is_a_cron_expression_or_off(monkeypatch: pytest.MonkeyPatch, value: str, taken: str) -> None:
    monkeypatch.setenv("VERIFY_CRON", value)
    assert Settings.load().verify_cron == taken


@given(st.one_of(st.text(), st.text(st.sampled_from("0123456789*/,-?#LWRHr()@ monfrijan"), max_size=30)))
def test_whatever_a_schedule_is_set_to_is_taken_or_refused_by_name(text: str) -> None:
    refusal: str | None = None
    try:
        cron = Settings.load(verify_cron=text).verify_cron
    except SettingsInvalid as refused:
        cron, refusal = "off", refused.detail
    assert refusal is None or (refusal.startswith("VERIFY_CRON: ") and "\n" not in refusal)
    assert cron == "off" or latest_tick(cron, datetime(2026, 11, 22, tzinfo=UTC)) < datetime.now(UTC)
