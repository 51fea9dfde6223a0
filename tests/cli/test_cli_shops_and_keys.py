"""`shops` and `keys`, with what goes wrong when Shopify does not want us."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cli_support import CUSTOMERS, DOMAIN, KEY, OTHER, TOKEN, Store
from cryptography.fernet import Fernet

from devstore.app import CLIENT_ID, CLIENT_SECRET
from metafield_sync.cli import installing

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg
    from cli_support import Cli

ANOTHER_TYPE = """
mutation {
  metafieldDefinitionCreate(definition: {
    name: "Points", namespace: "loyalty", key: "points_balance", type: "single_line_text_field", ownerType: CUSTOMER
  }) { userErrors { message } }
}
"""


def test_adding_a_shop_checks_its_token_and_creates_the_definition(cli: Cli, store: Store) -> None:
    added = cli("shops", "add", "Demo.MyShopify.com", "--access-token", TOKEN)
    assert (added.status, added.out.splitlines()) == (
        0,
        [
            f"{DOMAIN}: added.",
            "Metafield definition loyalty.points_balance: created, pinned: staff see it on the customer page.",
            f"{CUSTOMERS} customers read, none of whom shows points: the shop is live.",
        ],
    )
    assert f"keys create --shop {DOMAIN}" in added.err
    assert TOKEN not in added.out + added.err
    assert len(store.control("GET", f"/shops/{DOMAIN}/definitions")) == 1


def test_the_token_can_come_from_standard_input(cli: Cli, store: Store, owner: psycopg.Connection) -> None:
    added = cli("shops", "add", DOMAIN, "--access-token", "-", "--json", stdin=f"{TOKEN}\n")
    assert added.document["definition"] == {"name": "loyalty.points_balance", "outcome": "created", "pinned": True}
    assert added.document["hasToken"] is True
    assert added.document["isNew"] is True
    assert store.calls("metafieldDefinitionCreate") == 1
    stored = owner.execute("select access_token, definition_ensured from shops").fetchone()
    assert stored is not None
    assert TOKEN not in stored[0]
    assert stored[1] is not None


def test_adding_again_gives_a_new_token_and_sets_the_shop_to_work(cli: Cli, shop: str, store: Store) -> None:
    cli("shops", "pause", shop)
    store.control("PATCH", f"/shops/{shop}", {"token": "shpat_the_next_one"})
    again = cli("shops", "add", shop, "--access-token", "shpat_the_next_one", "--json")
    assert again.document["isNew"] is False
    assert again.document["status"] == "active"
    assert again.document["definition"]["outcome"] == "unchanged"
    assert cli("sync").status == 0


def test_a_shop_without_a_token_is_added_with_advice(cli: Cli) -> None:
    added = cli("shops", "add", DOMAIN, ENCRYPTION_KEYS="")
    assert (added.status, added.out) == (0, f"{DOMAIN}: added.\n")
    assert "--access-token -" in added.err


def test_a_shopify_out_of_reach_does_not_keep_a_shop_out(cli: Cli) -> None:
    added = cli("shops", "add", DOMAIN, "--access-token", TOKEN, SHOPIFY_ADMIN_ORIGIN="http://127.0.0.1:9/{shop}")
    assert (added.status, added.out) == (0, f"{DOMAIN}: added.\n")
    assert "with the first push" in added.err
    assert cli("shops", "list", "--json").document["shops"][0]["hasToken"] is True
    assert cli("sync").status == 0


def test_a_shopify_that_comes_no_further_with_the_customers_is_left_to_a_worker(
    cli: Cli, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installing, "QUIET_MAX_S", 2.0)
    store.control("PATCH", f"/shops/{DOMAIN}/bulk", {"paused": True})
    added = cli("shops", "add", DOMAIN, "--access-token", TOKEN)
    assert added.status == 0
    assert "has come no further with reading them out for 2 s. A worker goes on with it" in " ".join(added.err.split())
    assert cli("shops", "show", DOMAIN, "--json").document["installation"]["state"] == "installing"


@pytest.mark.parametrize(
    ("domain", "token"),
    [("example.com", TOKEN), ("demo", TOKEN), (DOMAIN, "with space"), (DOMAIN, ""), (DOMAIN, "ключ")],
)
def test_wrong_domains_and_tokens_are_wrong_usage(bare_cli: Cli, domain: str, token: str) -> None:
    refused = bare_cli("shops", "add", domain, "--access-token", token)
    assert refused.complaint
    assert refused.status == 2


def test_a_token_is_never_stored_in_the_clear(cli: Cli, store: Store) -> None:
    refused = cli("shops", "add", DOMAIN, "--access-token", TOKEN, ENCRYPTION_KEYS="")
    assert refused.status == 2
    assert "ENCRYPTION_KEYS" in refused.complaint
    assert store.calls("metafieldDefinitionCreate") == 0
    assert cli("shops", "list", "--json").document == {"shops": []}


def _refused_token(_: Store) -> str:
    return "shpat_wrong_token"


def _frozen_shop(store: Store) -> str:
    store.control("PATCH", f"/shops/{DOMAIN}", {"state": "frozen"})
    return TOKEN


def _another_type(store: Store) -> str:
    store.graphql(ANOTHER_TYPE)
    return TOKEN


@pytest.mark.parametrize(
    ("arrange", "said"),
    [(_refused_token, "token"), (_frozen_shop, "frozen"), (_another_type, "single_line_text_field")],
)
def test_what_shopify_refuses_is_not_stored(cli: Cli, store: Store, arrange: Callable[[Store], str], said: str) -> None:
    token = arrange(store)
    refused = cli("shops", "add", DOMAIN, "--access-token", token)
    assert refused.status == 1
    assert said in refused.complaint
    assert token not in refused.complaint
    assert cli("shops", "list", "--json").document == {"shops": []}


def test_listing_shops_shows_who_is_behind_and_why(cli: Cli, shop: str) -> None:
    cli("shops", "pause", shop)
    cli("post", "--shopify-customer", "1", "--amount", "5", "--reason", "gift")
    (listed,) = cli("shops", "list", "--json").document["shops"]
    assert listed["domain"] == shop
    assert (listed["status"], listed["pausedCode"]) == ("paused", "paused_by_staff")
    assert (listed["customers"], listed["behind"]) == (1, 1)
    assert "Paused by staff." in cli("shops", "list").out


def test_listing_no_shops_says_how_to_add_one(cli: Cli) -> None:
    listed = cli("shops", "list")
    assert (listed.status, listed.out) == (0, "No shop has been added yet.\n")
    assert "shops add" in listed.err


def test_a_paused_shop_is_not_pushed_to_until_it_is_resumed(cli: Cli, shop: str, store: Store) -> None:
    cli("shops", "pause", shop)
    cli("post", "--shopify-customer", "1", "--amount", "5", "--reason", "gift")
    assert cli("sync").status == 1
    assert store.shown() == {}
    assert cli("shops", "resume", shop).out == f"{shop}: resumed.\n"
    assert cli("shops", "resume", shop).out == f"{shop}: was not paused.\n"
    assert cli("sync").status == 0
    assert store.shown() == {"1": "5"}


VALUES = {"1": "100", "2": "250"}
NOBODY_BLANK = {str(customer): "0" for customer in range(1, CUSTOMERS + 1)}


def _show(store: Store, values: dict[str, str]) -> None:
    for customer, value in values.items():
        store.graphql(
            "mutation { metafieldsSet(metafields: [{"
            f'ownerId: "gid://shopify/Customer/{customer}", namespace: "loyalty", key: "points_balance", '
            f'type: "number_integer", value: "{value}"'
            "}]) { userErrors { message } } }"
        )


def test_points_of_an_earlier_app_wait_for_a_choice(cli: Cli, store: Store) -> None:
    _show(store, VALUES)
    added = cli("shops", "add", DOMAIN, "--access-token", TOKEN)
    assert added.status == 0
    assert "2 of 30 customers show 350 points in all" in added.out
    assert f"metafield-sync shops adopt {DOMAIN}" in added.out
    assert f"metafield-sync shops overwrite {DOMAIN}" in added.out
    assert "keys create" not in added.err
    cli("post", "--shopify-customer", "3", "--amount", "5", "--reason", "gift")
    assert cli("sync").status == 1, "nothing is pushed, whoever asks"
    assert "shops adopt" in cli("shops", "resume", DOMAIN).out
    assert store.shown() == VALUES

    adopted = cli("shops", "adopt", DOMAIN)
    assert (adopted.status, adopted.out) == (0, "30 customers read: 2 opening balances posted. The shop is live.\n")
    assert cli("sync").status == 0
    assert store.shown() == NOBODY_BLANK | VALUES | {"3": "5"}
    again = cli("shops", "overwrite", DOMAIN)
    assert again.status == 2
    assert "nothing to choose" in again.complaint


@pytest.mark.parametrize(("existing", "shown"), [("adopt", VALUES), ("overwrite", {})])
def test_the_choice_can_be_made_beforehand(cli: Cli, store: Store, existing: str, shown: dict[str, str]) -> None:
    _show(store, VALUES)
    added = cli("shops", "add", DOMAIN, "--access-token", TOKEN, "--existing", existing, "--json").document
    assert (added["status"], added["installation"]["state"]) == ("active", "live")
    assert added["installation"]["withValues"] == 2
    assert cli("sync").status == 0
    assert store.shown() == NOBODY_BLANK | shown


def test_a_shop_is_shown_with_its_token_and_scopes(cli: Cli, shop: str) -> None:
    shown = cli("shops", "show", shop)
    assert shown.status == 0
    assert "given by staff; it does not lapse" in shown.out
    assert "write_customers" in shown.out
    assert TOKEN not in shown.out + shown.err
    document = cli("shops", "show", shop, "--json").document
    assert (document["tokenSource"], document["tokenValidSeconds"]) == ("given", None)
    assert document["missingScopes"] == []
    assert document["installation"]["customers"] == CUSTOMERS


def test_client_credentials_add_a_shop_of_ones_own(cli: Cli, store: Store) -> None:
    app = {"SHOPIFY_API_KEY": CLIENT_ID, "SHOPIFY_API_SECRET": CLIENT_SECRET}
    refused = cli("shops", "add", DOMAIN, "--client-credentials")
    assert refused.status == 2
    assert "SHOPIFY_API_KEY" in refused.complaint
    added = cli("shops", "add", DOMAIN, "--client-credentials", "--json", **app)
    assert (added.status, added.document["tokenSource"], added.document["status"]) == (
        0,
        "client_credentials",
        "active",
    )
    assert cli("sync", **app).status == 0
    assert store.shown() == NOBODY_BLANK
    wrong = cli("shops", "add", OTHER, "--client-credentials", **app | {"SHOPIFY_API_SECRET": "another"})
    assert wrong.status == 1
    assert "invalid_client" in wrong.complaint


def test_tokens_are_sealed_anew_with_the_newest_key(cli: Cli, shop: str, owner: psycopg.Connection) -> None:
    new = Fernet.generate_key().decode()
    both = f"{new},{KEY}"
    first = cli("keys", "rotate-encryption", "--json", ENCRYPTION_KEYS=both).document
    assert first == {"resealed": 1, "newest": 0, "unreadable": [], "oldKeysMayBeDropped": True}
    again = cli("keys", "rotate-encryption", ENCRYPTION_KEYS=both)
    assert again.status == 0
    assert "Sealed anew: the tokens of 0 shops. Sealed so already: those of 1 shop." in again.out
    assert cli("sync", ENCRYPTION_KEYS=new).status == 0, "the old key is needed no more"
    stored = owner.execute("select access_token from shops").fetchone()
    assert stored is not None
    assert Fernet(new).decrypt(stored[0].encode()).decode() == TOKEN
    lost = cli("keys", "rotate-encryption", ENCRYPTION_KEYS=KEY)
    assert lost.status == 1
    assert shop in lost.err


def test_a_removed_shop_loses_token_and_keys_and_keeps_its_ledger(
    cli: Cli, shop: str, owner: psycopg.Connection
) -> None:
    cli("post", "--shopify-customer", "1", "--amount", "5", "--reason", "gift")
    cli("keys", "create", "--name", "app")
    removed = cli("shops", "remove", shop)
    assert removed.status == 0
    assert "ledger stays" in removed.out
    assert owner.execute("select access_token from shops").fetchone() == (None,)
    assert owner.execute("select count(*) from api_keys where revoked_at is null").fetchone() == (0,)
    assert owner.execute("select count(*) from ledger_entries").fetchone() == (1,)
    assert cli("shops", "list", "--json").document == {"shops": []}
    for action in ("pause", "resume", "remove"):
        assert "was removed, or has uninstalled the app" in cli("shops", action, shop).complaint


def test_keys_are_created_listed_and_revoked(cli: Cli, shop: str, owner: psycopg.Connection) -> None:
    created = cli("keys", "create", "--shop", shop, "--name", "my app")
    key = created.out.strip()
    assert created.out == f"{key}\n"
    assert key.startswith("mfs_")
    assert key not in created.err
    second = cli("keys", "create", "--name", "reports", "--scope", "read", "--json").document
    assert (second["scope"], second["name"], second["shop"]) == ("read", "reports", shop)

    keys = cli("keys", "list", "--json").document["keys"]
    assert [(one["name"], one["scope"], one["revokedAt"]) for one in keys] == [
        ("my app", "write", None),
        ("reports", "read", None),
    ]
    listed = cli("keys", "list").out
    assert "my app" in listed
    assert key not in listed
    assert owner.execute(
        "select count(*) from api_keys where position(%s in api_keys::text) > 0", (key,)
    ).fetchone() == (0,)

    number = str(keys[0]["id"])
    assert cli("keys", "revoke", number).out == f"Key {number} of {shop}: revoked.\n"
    again = cli("keys", "revoke", number)
    assert again.status == 2
    assert "keys list" in again.complaint
    assert cli("keys", "list", "--json").document["keys"][0]["revokedAt"].endswith("Z")


@pytest.mark.parametrize("arguments", [["--name", ""], ["--name", "x" * 101], ["--name", "a\nb"], []])
def test_a_key_has_a_name(bare_cli: Cli, arguments: list[str]) -> None:
    refused = bare_cli("keys", "create", *arguments)
    assert "name" in refused.complaint
    assert refused.status == 2


def test_with_several_shops_one_must_be_named(cli: Cli, shop: str) -> None:
    assert cli("shops", "add", OTHER).status == 0
    for command in (["keys", "list"], ["keys", "create", "--name", "app"]):
        refused = cli(*command)
        assert refused.status == 2
        assert f"--shop: {DOMAIN}, {OTHER}" in refused.complaint
    assert cli("keys", "create", "--shop", shop, "--name", "app").status == 0


def test_without_a_shop_it_says_how_to_add_one(cli: Cli) -> None:
    for command in (["keys", "list"], ["sync"], ["verify"], ["keys", "list", "--shop", DOMAIN]):
        refused = cli(*command)
        assert refused.status == 2
        assert "shops add" in refused.complaint
