"""The staff's pages, as a browser without JavaScript uses them: read the page, fill its forms in, send them."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import TYPE_CHECKING

import pytest
from devstore_support import DOMAIN, entry
from order_support import an_order

from devstore.customers import CustomerDetails

if TYPE_CHECKING:
    from devstore_support import Remote

    from devstore import DevStore, Shop

Attributes = list[tuple[str, str | None]]


class _Form:
    def __init__(self, method: str, action: str) -> None:
        self.method = method
        self.action = action
        self.button = ""
        self.values: dict[str, str] = {}
        self.labels: dict[str, str] = {}


class Page(HTMLParser):
    """A page: its text, and its forms by their button, whose fields have labels."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.forms: list[_Form] = []
        self.text = ""
        self.alert = ""
        self._label = ""
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        given = dict(attrs)
        if tag == "form":
            self.forms.append(_Form(given.get("method") or "get", given["action"] or ""))
        if tag in {"input", "select"}:
            self._field(given, "checkbox" if given.get("type") == "checkbox" else tag)
        if tag == "option" and self._field_name not in self.forms[-1].values:
            self.forms[-1].values[self._field_name] = given["value"] or ""
        if tag not in {"input", "meta", "link"}:
            self._inside.append("alert" if given.get("role") == "alert" else tag)
        if tag == "label":
            self._label = ""

    def _field(self, given: dict[str, str | None], kind: str) -> None:
        self._field_name = given["name"] or ""
        form = self.forms[-1]
        if kind == "checkbox":
            # Its text follows it.
            self._pending = (form, self._field_name)
            if "checked" in given:
                form.values[self._field_name] = given["value"] or ""
            return
        form.labels[self._label.strip()] = self._field_name
        if kind == "input":
            form.values[self._field_name] = given["value"] or ""

    def handle_endtag(self, tag: str) -> None:
        self._inside.pop()
        if tag == "label" and getattr(self, "_pending", None):
            form, name = self._pending
            form.labels[self._label.strip()] = name
            del self._pending

    def handle_data(self, data: str) -> None:
        if "style" in self._inside:
            return
        self.text += data
        self._label += data
        if "alert" in self._inside:
            self.alert += data
        if self._inside and self._inside[-1] == "button":
            self.forms[-1].button += data

    def form(self, button: str) -> _Form:
        (found,) = [form for form in self.forms if form.button == button]
        return found


class Browser:
    """Goes from page to page."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self.path = ""
        self.page = Page("")

    async def open(self, path: str, status: int = 200) -> Page:
        answer = await self._remote.http.get(f"{self._remote.origin}/{DOMAIN}/admin{path}", follow_redirects=True)
        assert answer.status_code == status, answer.text
        self.path, self.page = answer.url.path, Page(answer.text)
        return self.page

    async def fill(self, button: str, fields: dict[str, str], *, without: str | None = None, status: int = 200) -> Page:
        """Fill in a form by its labels and press its button; `without` is a box to uncheck."""
        form = self.page.form(button)
        values = form.values | {form.labels[label]: value for label, value in fields.items()}
        if without is not None:
            del values[form.labels[without]]
        return await self._post(form, values, status)

    async def _post(self, form: _Form, values: dict[str, str], status: int) -> Page:
        url = f"{self._remote.origin}{form.action}"
        if form.method == "get":
            answer = await self._remote.http.get(url, params=values, follow_redirects=True)
        else:
            answer = await self._remote.http.post(url, data=values, follow_redirects=True)
        assert answer.status_code == status, answer.text
        self.path, self.page = answer.url.path, Page(answer.text)
        return self.page


@pytest.fixture
def browser(remote: Remote) -> Browser:
    return Browser(remote)


@pytest.fixture
def shop(store: DevStore) -> Shop:
    return store.shop(DOMAIN)


async def test_staff_take_an_order_its_whole_way(browser: Browser, shop: Shop) -> None:
    await browser.open("/orders")
    fields = {
        "Item 1": "Mug",
        "Price of item 1": "19.99",
        "Quantity of item 1": "3",
        "Price of item 2": "25",
        "Item 2 is a gift card": "yes",
        "Customer number": "7",
        "Shipping": "4.50",
        "Tax in %": "20",
    }
    page = await browser.fill("Place order", fields, without="Paid at once")
    number = int(browser.path.rpartition("/")[2])
    assert "pending" in page.text
    assert "gift card" in page.text

    page = await browser.fill("Mark as paid", {})
    assert "Mark as paid" not in [form.button for form in page.forms]
    page = await browser.fill("Refund", {"Refund of Mug (up to 3)": "1", "Note": "Chipped"})
    assert "partially refunded" in page.text
    assert "1 \N{MULTIPLICATION SIGN} Mug" in page.text
    page = await browser.fill("Save changes", {"New quantity of Mug": "3", "Added item": "Cup", "Its price": "2"})
    assert "partially paid" in page.text
    page = await browser.fill("Refund", {"Amount": "1.00"})
    assert "an amount" in page.text
    page = await browser.fill("Set customer", {"Customer number": "8"})
    assert "Customer 8" in page.text
    page = await browser.fill("Cancel order", {"Reason": "fraud"})
    assert "cancelled" in page.text
    order = shop.orders.get(number)
    assert order is not None
    assert (order.customer, order.cancel_reason, order.current_total, order.net_payment) == (8, "fraud", 0, 0)
    assert [line.current_quantity for line in order.lines] == [0, 0, 0]


async def test_what_cannot_be_done_is_said_on_the_page(browser: Browser, shop: Shop) -> None:
    await browser.open("/orders")
    page = await browser.fill("Place order", {}, status=422)
    assert page.alert == "An order has 1 to 500 lines."
    page = await browser.fill("Place order", {"Price of item 1": "cheap"}, status=422)
    assert "must be a number, not 'cheap'" in page.alert
    page = await browser.fill("Place order", {"Price of item 1": "1", "Customer number": "Ann"}, status=422)
    assert "the customer must be a whole number" in page.alert.lower()
    order = an_order(shop)
    await browser.open(f"/orders/{order.number}")
    page = await browser.fill("Refund", {"Amount": "999"}, status=422)
    assert "105.00 left to give back" in page.alert
    assert shop.orders.get(order.number) == order


async def test_a_customers_page_shows_metafields_and_orders(browser: Browser, remote: Remote, shop: Shop) -> None:
    document = "mutation($m:[MetafieldsSetInput!]!){ metafieldsSet(metafields:$m){ userErrors{ message } } }"
    await remote.post(document, {"m": [entry(5, "1234")]})
    page = await browser.open("/customers/5")
    assert "loyalty.points_balance" in page.text
    assert "1234" in page.text
    await browser.fill("Place order", {"Price of item 1": "10"})
    assert shop.orders.count_of(5) == 1
    page = await browser.open("/customers/5")
    assert "#1001" in page.text
    page = await browser.fill("Delete customer", {}, status=422)
    assert "associated orders" in page.alert


async def test_customers_are_added_found_described_merged_and_deleted(browser: Browser, shop: Shop) -> None:
    await browser.open("/customers")
    await browser.fill("Add customer", {"First name": "Bo", "Last name": "Ek", "Tags": "vip, new"})
    added = int(browser.path.rpartition("/")[2])
    assert shop.customers.details(added) == CustomerDetails(None, "Bo", "Ek", None, ("vip", "new"))
    await browser.fill("Save details", {"E-mail": "bo@example.org"})
    assert shop.customers.details(added).email == "bo@example.org"
    await browser.open("/customers")
    page = await browser.fill("Show", {"Number": "999"}, status=422)
    assert page.alert == "There is no customer 999."
    page = await browser.fill("Show", {"Number": str(added)})
    assert "Bo Ek" in page.text
    shop.merges.settings.paused = True
    await browser.open("/customers")
    page = await browser.fill("Merge customers", {"First customer": str(added), "Second customer": "4"})
    assert "waiting" in page.text
    assert shop.merges.settle() == 1
    page = await browser.open("/customers")
    assert "completed" in page.text
    page = await browser.fill("Merge customers", {"First customer": "4", "Second customer": "999"}, status=422)
    assert "could not be found" in page.alert
    await browser.open("/customers/6")
    await browser.fill("Delete customer", {})
    assert not shop.customers.exists(6)


async def test_a_page_of_something_that_is_not_there_is_404(browser: Browser) -> None:
    for path in ("/orders/5", "/customers/999"):
        await browser.open(path, 404)


async def test_what_people_wrote_is_text_and_no_html(browser: Browser, shop: Shop) -> None:
    shop.customers.describe(2, CustomerDetails(first_name="<script>alert(1)</script>"))
    page = await browser.open("/customers/2")
    assert "<script>alert(1)</script>" in page.text
    assert all(field.labels for field in page.forms if field.values)


async def test_customers_come_a_page_at_a_time(browser: Browser, shop: Shop) -> None:
    shop.seed_customers(100)
    page = await browser.open("/customers?after=50")
    assert "Customer 51" in page.text
    assert "Customer 50" not in page.text
    assert "Next page" not in page.text
    page = await browser.open("/customers")
    assert "Next page" in page.text
