"""One shop: who may call it, what it holds, what it has left to spend."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import cast

from devstore.budget import Budget, Plan
from devstore.bulk import Bulk
from devstore.clock import Clock
from devstore.customers import CustomerBook, IdRange
from devstore.definitions import DefinitionBook
from devstore.depot import Depot
from devstore.gids import Gid
from devstore.metafields import MetafieldBook, Slot
from devstore.set_metafields import MetafieldSetter
from devstore.storage import Storage

_FIND = "select id, token, plan, state, created_s from shops where domain = ?"
_ADD = "insert into shops (domain, token, plan, state, created_s) values (?, ?, ?, ?, ?) returning id"
_CHANGE = "update shops set token = ?, plan = ?, state = ? where id = ?"
_DOMAINS = "select domain from shops order by id"

ACCESS_SCOPES: dict[str, str] = {
    "read_customers": "Read customer details and customer groups",
    "write_customers": "Modify customer details and customer groups",
}


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
        token: the access token that opens it; None leaves a shop of a state file as it was.
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

    def delete_customer(self, number: int) -> bool:
        """Delete a customer and its metafields; False if there is none."""
        with self.storage.transaction():
            self.metafields.delete_owner("CUSTOMER", number)
            return self.customers.remove(number)

    def put_metafield(self, owner: Gid, namespace: str, key: str, value: str, kind: str) -> None:
        """Write a metafield past the API, as another app or the merchant would; nothing is checked."""
        slot = Slot("SHOP" if owner.kind == "Shop" else "CUSTOMER", namespace, key)
        with self.storage.transaction():
            self.metafields.put(slot, owner.number, kind, value, self.now_s())

    def change(self, *, token: str | None, plan: Plan, state: ShopState) -> None:
        """Set token (None: no token opens the shop), plan and state, and remember them."""
        self.token, self.state = token, state
        self.budget.change_plan(plan)
        self.storage.db.execute(_CHANGE, (token, plan.value, state.value, self.number))


def open_shop(storage: Storage, spec: ShopSpec, clock: Clock, depot: Depot) -> Shop:
    """Find a shop in storage or create it, and apply what `spec` says about it. `depot` keeps its files."""
    row = storage.db.execute(_FIND, (spec.domain,)).fetchone()
    if row is None:
        values = (spec.domain, spec.token, spec.plan or Plan.STANDARD, ShopState.ACTIVE, int(clock.wall()))
        storage.db.execute(_ADD, values).fetchone()
        row = storage.db.execute(_FIND, (spec.domain,)).fetchone()
    shop = Shop(storage, spec.domain, cast("tuple[int, str | None, str, str, int]", row), clock, depot)
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
