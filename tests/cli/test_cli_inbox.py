"""`inbox`: what came in and what came of it, for a person at a terminal; and `doctor`, which says when to look."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from cli_support import DOMAIN, OTHER, TOKEN

if TYPE_CHECKING:
    from cli_support import Cli, Result

DELIVER = """
insert into inbox (shop_id, delivery_id, topic, body_digest, payload)
select s.id, gen_random_uuid(), %s, '', '{"id": 1001}'
from shops s, generate_series(1, %s)
where s.domain = %s
"""


def deliver(owner: psycopg.Connection, topic: str, count: int = 1, *, domain: str = DOMAIN) -> None:
    owner.execute(DELIVER, (topic, count, domain))


def give_up(owner: psycopg.Connection, topic: str) -> None:
    owner.execute(
        """
        update inbox
        set due_at = null, failed_at = now(), attempts = 8, error = 'KeyError in earn (sync/orders/handlers.py:12)'
        where topic = %s
        """,
        (topic,),
    )


def checks(told: Result, name: str) -> list[tuple[str, str]]:
    """Level and finding of every line of a doctor's report that has this name."""
    return [(one["status"], one["found"]) for one in told.document["checks"] if one["check"] == name]


def test_webhooks_are_listed_with_what_came_of_them(cli: Cli, shop: str, owner: psycopg.Connection) -> None:
    assert "no webhooks" in cli("inbox", "list").out
    deliver(owner, "orders/paid", 2)
    deliver(owner, "refunds/create")
    give_up(owner, "refunds/create")
    told = cli("inbox", "list")
    assert (told.status, told.out.count("orders/paid"), told.out.count("waiting")) == (0, 2, 2)
    assert "KeyError in earn" in told.out
    assert f"inbox resend --failed --shop {shop}" in told.err
    listed = cli("inbox", "list", "--json", "--failed").document
    assert listed["shop"] == shop
    assert [(one["topic"], one["status"], one["attempts"]) for one in listed["webhooks"]] == [
        ("refunds/create", "failed", 8)
    ]
    assert len(cli("inbox", "list", "--json", "--waiting", "--topic", "orders/paid").document["webhooks"]) == 2
    assert "no webhooks that are failed" in cli("inbox", "list", "--failed", "--topic", "orders/paid").out


@pytest.mark.usefixtures("shop")
def test_one_webhook_is_shown_with_what_was_kept_of_it(cli: Cli, owner: psycopg.Connection) -> None:
    deliver(owner, "orders/paid")
    (number,) = (one["id"] for one in cli("inbox", "list", "--json").document["webhooks"])
    told = cli("inbox", "show", str(number))
    assert told.status == 0
    assert '"id": 1001' in told.out
    document = cli("inbox", "show", str(number), "--json").document
    assert (document["id"], document["payload"]) == (number, {"id": 1001})
    missing = cli("inbox", "show", str(number + 1))
    assert (missing.status, str(number + 1) in missing.complaint) == (2, True)


def test_what_was_given_up_is_resent_by_number_or_all_at_once(cli: Cli, shop: str, owner: psycopg.Connection) -> None:
    deliver(owner, "orders/paid", 3)
    give_up(owner, "orders/paid")
    numbers = [one["id"] for one in cli("inbox", "list", "--json").document["webhooks"]]
    assert cli("inbox", "resend", str(numbers[0]), "--json").document == {"shop": shop, "resent": 1}
    assert owner.execute("select id from inbox where due_at is not null").fetchall() == [(numbers[0],)]
    assert "2 to be handled again" in cli("inbox", "resend", "--failed").out
    assert owner.execute("select count(*) from inbox where due_at is not null").fetchone() == (3,)
    assert cli("inbox", "resend", "--failed", "--json").document["resent"] == 0


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    "arguments", [["resend"], ["resend", "1", "--failed"], ["resend", "one"], ["list", "--failed", "--waiting"]]
)
def test_what_makes_no_sense_is_refused(cli: Cli, arguments: list[str]) -> None:
    told = cli("inbox", *arguments)
    assert told.status == 2
    assert told.complaint


@pytest.mark.usefixtures("shop")
def test_each_shop_has_an_inbox_of_its_own(cli: Cli, owner: psycopg.Connection) -> None:
    assert cli("shops", "add", OTHER, "--access-token", TOKEN).status == 0
    deliver(owner, "orders/paid", domain=OTHER)
    give_up(owner, "orders/paid")
    assert cli("inbox", "list").status == 2, "which shop is not said"
    assert cli("inbox", "list", "--shop", DOMAIN, "--json").document["webhooks"] == []
    (number,) = (one["id"] for one in cli("inbox", "list", "--shop", OTHER, "--json").document["webhooks"])
    assert cli("inbox", "resend", str(number), "--shop", DOMAIN).status == 2
    assert cli("inbox", "resend", "--failed", "--shop", DOMAIN, "--json").document["resent"] == 0
    assert owner.execute("select count(*) from inbox where failed_at is not null").fetchone() == (1,)


@pytest.mark.usefixtures("shop")
def test_the_doctor_says_when_webhooks_were_given_up_or_wait_for_nobody(cli: Cli, owner: psycopg.Connection) -> None:
    assert checks(cli("doctor", "--json"), "webhooks") == [("ok", "Every webhook that came in is handled.")]
    deliver(owner, "orders/paid", 2)
    assert checks(cli("doctor", "--json"), "webhooks")[0][0] == "ok"
    owner.execute("update inbox set received_at = now() - interval '20 minutes'")
    level, found = checks(cli("doctor", "--json"), "webhooks")[0]
    assert (level, found) == ("warn", "2 webhooks wait to be handled, the oldest for 20 minutes.")
    give_up(owner, "orders/paid")
    level, found = checks(cli("doctor", "--json"), "webhooks")[0]
    assert (level, found) == ("warn", "2 webhooks were given up after many attempts.")


@pytest.mark.usefixtures("shop")
def test_the_doctor_names_errands_that_are_stuck_unless_their_shop_is_meant_to_wait(
    cli: Cli, owner: psycopg.Connection
) -> None:
    owner.execute("delete from errands")
    owner.execute("insert into errands (shop_id, kind, subject) select id, 'order', '1001' from shops")
    assert checks(cli("doctor", "--json"), "errands") == []
    owner.execute("update errands set due_at = now() - interval '10 minutes'")
    assert checks(cli("doctor", "--json"), "errands") == [("warn", "1 errand to Shopify (order) stuck for 10 minutes.")]
    owner.execute("update errands set due_at = now() + interval '1 hour', error = 'X.'")
    owner.execute("update errands set failing_since = now() - interval '3 hours'")
    assert checks(cli("doctor", "--json"), "errands") == [("warn", "1 errand to Shopify (order) stuck for 3 hours: X.")]
    assert cli("shops", "pause", DOMAIN).status == 0
    assert checks(cli("doctor", "--json"), "errands") == []
