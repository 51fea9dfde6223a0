"""One shop: who may call it, what it holds, what it has left to spend."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

from devstore.app import App
from devstore.budget import Budget, Plan
from devstore.bulk import Bulk, BulkOperation
from devstore.clock import Clock, timestamp
from devstore.courier import Courier
from devstore.customers import CustomerBook, CustomerDetails, IdRange
from devstore.definitions import DefinitionBook
from devstore.depot import Depot
from devstore.flow import Flow
from devstore.gids import Gid
from devstore.installation import Installation
from devstore.merges import MergeBook
from devstore.metafields import MetafieldBook, Slot
from devstore.order_book import OrderBook
from devstore.order_payloads import customer_payload, deleted_customer_payload
from devstore.set_metafields import MetafieldSetter
from devstore.storage import Storage
from devstore.webhooks import Webhooks

_FIND = "select id, token, plan, state, created_s from shops where domain = ?"
_ADD = "insert into shops (domain, token, plan, state, created_s) values (?, ?, ?, ?, ?) returning id"
_CHANGE = "update shops set token = ?, plan = ?, state = ? where id = ?"
_DOMAINS = "select domain from shops order by id"


class CustomerHasOrdersError(Exception):
    """A customer cannot be deleted."""

    def __init__(self) -> None:
        super().__init__("Customer can’t be deleted because they have associated orders")  # noqa: RUF001  # recorded


class ShopState(StrEnum):
    """Whether the shop answers. Every state but active refuses each call with its own HTTP status."""

    ACTIVE = "active"
    FROZEN = "frozen"
    FORBIDDEN = "forbidden"
    LOCKED = "locked"


@dataclass(frozen=True, slots=True)
class ShopSpec:
    """A shop to start with.

    Attributes:
        domain: its myshopify domain, `demo.myshopify.com`.
        token: an access token that opens it for good, as a custom app has it. Without one a new shop does not have
            the app, and can only be opened by installing it; a shop of a state file is left as it was.
        plan: its plan; None leaves a stored shop as it was, a new one is on Standard.
        customers: how many customers to seed a shop with that has none, numbered from 1.
        customer_ids: further customers to seed it with, by number.
    """

    domain: str
    token: str | None = None
    plan: Plan | None = None
    customers: int = 0
    customer_ids: tuple[int, ...] = ()


class Shop:
    """A shop and everything in it. Built by `open_shop`; used from the server's loop only."""

    def __init__(
        self,
        storage: Storage,
        domain: str,
        row: tuple[int, str | None, str, str, int],
        clock: Clock,
        depot: Depot,
        app: App,
    ) -> None:
        self.storage = storage
        self.domain = domain
        self.number, self.token, plan, state, self.created_s = row
        self.state = ShopState(state)
        self.clock = clock
        self.budget = Budget(Plan(plan), clock.monotonic)
        self.customers = CustomerBook(storage, self.number)
        self.metafields = MetafieldBook(storage, self.number)
        self.definitions = DefinitionBook(storage, self.number, self.metafields)
        self.setter = MetafieldSetter(storage, self.metafields, self.definitions)
        self.bulk = Bulk(domain, clock, depot)
        self.bulk.on_end = self._tell_of_bulk
        self.app = app
        self.installation = Installation(storage, self.number, clock, app.scopes if self.token else None)
        self.courier = Courier(clock)
        self.webhooks = Webhooks(domain, clock, app, self.courier, self.installation)
        self.flow = Flow(domain, self.number, clock, app, self.courier)
        emit = self.webhooks.emit
        self.orders = OrderBook(storage, self.number, self.customers, emit, self.now_s)
        self.merges = MergeBook(storage, self.customers, self.metafields, self.orders, emit, self.now_s)

    @property
    def gid(self) -> Gid:
        """The shop's own global id."""
        return Gid("Shop", self.number)

    @property
    def name(self) -> str:
        """What the shop is called: its domain's first label."""
        return self.domain.partition(".")[0]

    def now_s(self) -> int:
        """The time, in whole seconds since 1970, as Shopify's timestamps have it."""
        return int(self.clock.wall())

    def exists(self, owner: Gid) -> bool:
        """Whether the shop has this object (customers and the shop itself; nothing else is held here)."""
        if owner.kind == "Customer":
            return self.customers.exists(owner.number)
        return owner == self.gid

    def add_customers(self, numbers: Iterable[int]) -> None:
        """Add customers by number."""
        self.customers.add(numbers, self.now_s())

    def seed_customers(self, count: int, first: int = 1) -> None:
        """Add `count` customers numbered from `first` on."""
        self.customers.add_range(first, count, self.now_s())

    def count_customers(self) -> int:
        """How many customers there are."""
        return self.customers.count(IdRange(), None)

    def create_customer(self, details: CustomerDetails) -> int:
        """Add a customer with details, and tell of it; its number."""
        number = self.customers.create(details, self.now_s())
        self.announce_customer(number)
        return number

    def announce_customer(self, number: int) -> None:
        """Tell that a customer was created."""
        self.webhooks.emit("customers/create", customer_payload(self.orders.buyer(number)))

    def describe_customer(self, number: int, details: CustomerDetails) -> None:
        """Replace what is known of a customer, and tell of it."""
        self.customers.describe(number, details)
        self.webhooks.emit("customers/update", customer_payload(self.orders.buyer(number)))

    def delete_customer(self, number: int) -> bool:
        """Delete a customer and its metafields, and tell of it; False if there is none.

        Raises:
            CustomerHasOrdersError: they have orders, and must be kept.
        """
        if self.orders.count_of(number):
            raise CustomerHasOrdersError
        with self.storage.transaction():
            self.metafields.delete_owner("CUSTOMER", number)
            found = self.customers.remove(number)
        if found:
            self.webhooks.emit("customers/delete", deleted_customer_payload(number))
        return found

    def put_metafield(self, owner: Gid, namespace: str, key: str, value: str, kind: str) -> None:
        """Write a metafield past the API, as another app or the merchant would; nothing is checked."""
        slot = Slot("SHOP" if owner.kind == "Shop" else "CUSTOMER", namespace, key)
        with self.storage.transaction():
            self.metafields.put(slot, owner.number, kind, value, self.now_s())

    def opens(self, token: str | None) -> bool:
        """Whether an access token opens the shop now: the one it was set up with, or one that was given out."""
        return token is not None and (token == self.token or self.installation.opens(token))

    async def close(self) -> None:
        """Stop what runs in the background."""
        self.merges.close()
        await self.bulk.close()
        await self.webhooks.close()
        await self.flow.close()
        await self.courier.close()

    def _tell_of_bulk(self, operation: BulkOperation) -> None:
        # Unlike the API, the webhook spells its values in lower case.
        payload = {
            "admin_graphql_api_id": str(operation.gid),
            "completed_at": None if operation.completed_s is None else timestamp(operation.completed_s),
            "created_at": timestamp(operation.created_s),
            "error_code": operation.error_code and operation.error_code.lower(),
            "status": operation.status.lower(),
            "type": operation.type.lower(),
        }
        self.webhooks.emit("bulk_operations/finish", payload)

    def change(self, *, token: str | None, plan: Plan, state: ShopState) -> None:
        """Set token (None: only those that were given out open the shop), plan and state, and remember them.

        A token is an installed app's: with one the app is installed, if it was not.
        """
        if token is not None and not self.installation.is_installed:
            self.installation.set_scopes(self.app.scopes)
        self.token, self.state = token, state
        self.budget.change_plan(plan)
        self.storage.db.execute(_CHANGE, (token, plan.value, state.value, self.number))


def open_shop(storage: Storage, spec: ShopSpec, clock: Clock, depot: Depot, app: App | None = None) -> Shop:
    """Find a shop in storage or create it, and apply what `spec` says about it.

    Args:
        storage: where shops are kept.
        spec: which shop, and what it should be.
        clock: what it goes by.
        depot: keeps its files.
        app: the app that may be installed in it; one nobody configured unless told otherwise.
    """
    row = storage.db.execute(_FIND, (spec.domain,)).fetchone()
    if row is None:
        values = (spec.domain, spec.token, spec.plan or Plan.STANDARD, ShopState.ACTIVE, int(clock.wall()))
        storage.db.execute(_ADD, values).fetchone()
        row = storage.db.execute(_FIND, (spec.domain,)).fetchone()
    row = cast("tuple[int, str | None, str, str, int]", row)
    return apply_spec(Shop(storage, spec.domain, row, clock, depot, app or App()), spec)


def apply_spec(shop: Shop, spec: ShopSpec) -> Shop:
    """Make of a shop what `spec` says; the shop."""
    plan = spec.plan or shop.budget.plan
    if (spec.token or shop.token, plan) != (shop.token, shop.budget.plan):
        shop.change(token=spec.token or shop.token, plan=plan, state=shop.state)
        shop.budget.fill()
    # Only an empty shop is seeded: a customer deleted in an earlier run of a state file stays deleted.
    if shop.customers.last() == 0:
        shop.add_customers(spec.customer_ids)
        shop.seed_customers(spec.customers)
    return shop


def stored_domains(storage: Storage) -> list[str]:
    """Domains of every shop in storage, oldest first."""
    return [row[0] for row in cast("list[tuple[str]]", storage.db.execute(_DOMAINS).fetchall())]
