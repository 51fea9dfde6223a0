"""From an empty database: the app installs itself in the admin, and an order's points are right wherever one looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from browser_support import eventually
from playwright.sync_api import expect

if TYPE_CHECKING:
    from browser_support import Seen
    from playwright.sync_api import FrameLocator, Page

CUSTOMER = 7


def open_app(page: Page, seen: Seen) -> FrameLocator:
    page.goto(f"{seen.store.origin}/browsed.myshopify.com/admin/apps/{seen.app.handle}")
    return page.frame_locator("iframe[name=app]")


def install(page: Page, seen: Seen) -> FrameLocator:
    """Install the app from the page that asks, and wait until it is live."""
    open_app(page, seen)
    page.get_by_role("button", name="Install app").click()
    app = page.frame_locator("iframe[name=app]")
    expect(app.get_by_role("heading", level=1)).to_have_text("Every balance is kept in step")
    return app


def place_order(page: Page, seen: Seen, customer: int) -> None:
    page.goto(f"{seen.store.origin}/browsed.myshopify.com/admin/orders")
    page.get_by_label("Item 1", exact=True).fill("Teapot")
    page.get_by_label("Price of item 1").fill("40.00")
    page.get_by_label("Quantity of item 1").fill("2")
    page.get_by_label("Item 2", exact=True).fill("Cup")
    page.get_by_label("Price of item 2").fill("9.90")
    page.get_by_label("Customer number").fill(str(customer))
    page.get_by_label("Shipping").fill("4.90")
    page.get_by_label("Paid at once").uncheck()
    page.get_by_role("button", name="Place order").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("pending")


def test_an_order_placed_paid_refunded_and_cancelled_is_worth_the_same_everywhere(page: Page, seen: Seen) -> None:
    install(page, seen)
    for customer in (1, CUSTOMER, 12):
        seen.shows_everywhere(customer, 0)

    place_order(page, seen, CUSTOMER)
    seen.shows_everywhere(CUSTOMER, 0)

    page.get_by_role("button", name="Mark as paid").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("paid")
    seen.shows_everywhere(CUSTOMER, 89)

    page.get_by_label("Refund of Teapot (up to 2)").fill("1")
    page.get_by_role("button", name="Refund", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("partially refunded")
    seen.shows_everywhere(CUSTOMER, 49)

    page.get_by_role("button", name="Cancel order").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("cancelled")
    seen.shows_everywhere(CUSTOMER, 0)


def test_a_shopper_reads_in_the_storefront_what_they_have_earned(page: Page, seen: Seen) -> None:
    install(page, seen)
    page.goto(f"{seen.store.origin}/browsed.myshopify.com/account/login")
    page.get_by_label("Customer number").fill(str(CUSTOMER))
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("status")).to_have_text("You have 0 points")

    place_order(page, seen, CUSTOMER)
    page.get_by_role("button", name="Mark as paid").click()
    seen.shows_everywhere(CUSTOMER, 89)
    page.goto(f"{seen.store.origin}/browsed.myshopify.com")
    expect(page.get_by_role("status")).to_have_text("You have 89 points")


def test_points_of_an_earlier_app_wait_for_a_choice_and_are_taken_over(page: Page, seen: Seen) -> None:
    slot = {"namespace": "loyalty", "key": "points_balance"}
    for customer, value in ((3, "120"), (4, "7")):
        seen.control("PUT", "/shops/browsed.myshopify.com/metafields", {"customerId": customer, "value": value, **slot})
    open_app(page, seen)
    page.get_by_role("button", name="Install app").click()
    app = page.frame_locator("iframe[name=app]")
    expect(app.get_by_role("heading", level=1)).to_have_text("Your customers show points already")
    app.get_by_role("button", name="Take them over as opening balances").click()
    expect(app.get_by_role("heading", level=1)).to_have_text("Every balance is kept in step")
    seen.shows_everywhere(3, 120)
    seen.shows_everywhere(4, 7)
    seen.shows_everywhere(5, 0)


def test_the_app_says_who_has_how_much_and_can_be_installed_again(page: Page, seen: Seen) -> None:
    app = install(page, seen)
    place_order(page, seen, CUSTOMER)
    page.get_by_role("button", name="Mark as paid").click()
    seen.shows_everywhere(CUSTOMER, 89)
    app = open_app(page, seen)
    expect(app.get_by_role("definition").filter(has_text="89")).to_be_visible()

    seen.control("POST", "/shops/browsed.myshopify.com/app/uninstall")
    seen.control("POST", "/shops/browsed.myshopify.com/webhooks/settle")
    install(page, seen)
    seen.shows_everywhere(CUSTOMER, 89)


def test_flow_is_told_of_what_an_order_changed(page: Page, seen: Seen) -> None:
    install(page, seen)
    shop = "/shops/browsed.myshopify.com/flow"
    assert seen.control("PUT", f"{shop}/workflow", {"enabled": True})["status"] == 200
    place_order(page, seen, CUSTOMER)
    page.get_by_role("button", name="Mark as paid").click()
    seen.shows_everywhere(CUSTOMER, 89)
    eventually(lambda: seen.control("GET", f"{shop}/triggers") != [], lambda: "nothing was told")
    (told,) = seen.control("GET", f"{shop}/triggers")
    assert told["handle"] == "points-balance-changed"
    assert told["payload"] == {"customer_id": CUSTOMER, "Points balance": 89, "Points change": 89}
    run = {"handle": "adjust-points", "properties": {"customer_id": str(CUSTOMER), "points": "-9"}}
    assert seen.control("POST", f"{shop}/runs", run)["status"] == "done"
    seen.shows_everywhere(CUSTOMER, 80)
