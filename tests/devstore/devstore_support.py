"""What the devstore's tests share: documents, ways to call a shop, and the published schema."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from devstore.admin import AdminApi, Answer
from devstore.clock import ManualClock
from devstore.shops import Shop, ShopSpec, open_shop
from devstore.storage import Storage

if TYPE_CHECKING:
    import httpx

DOMAIN = "demo.myshopify.com"
TOKEN = "shpat_made_up"  # noqa: S105  # made up
SCHEMA_PACKAGE = "@shopify/dev-mcp@1.16.0"
FETCH_TIMEOUT_S = 90

SET = """mutation Set($m:[MetafieldsSetInput!]!){ metafieldsSet(metafields:$m){
  metafields{ id namespace key value type compareDigest createdAt updatedAt owner{ ... on Customer{ id } } }
  userErrors{ field message code elementIndex } } }"""
READ = """query Q($ids:[ID!]!){ nodes(ids:$ids){ ... on Customer{ id
  metafield(namespace:"loyalty",key:"points_balance"){ id value type compareDigest updatedAt } } } }"""
DEFINE = """mutation D($d:MetafieldDefinitionInput!){ metafieldDefinitionCreate(definition:$d){
  createdDefinition{ id namespace key ownerType type{name} access{ admin storefront customerAccount }
    pinnedPosition }
  userErrors{ field message code } } }"""
CUSTOMERS = """query C($first:Int,$after:String,$last:Int,$before:String,$query:String,$reverse:Boolean){
  customers(first:$first,after:$after,last:$last,before:$before,query:$query,reverse:$reverse){
    nodes{ id } pageInfo{ hasNextPage hasPreviousPage startCursor endCursor } } }"""

# Documents that clients live on; a test validates each against every published version.
VALIDATED: dict[str, tuple[str, dict[str, Any]]] = {
    "set": (SET, {"m": []}),
    "define": (
        DEFINE,
        {"d": {"ownerType": "SHOP", "namespace": "abc", "key": "k1", "name": "N", "type": "json"}},
    ),
    "nodes": (READ, {"ids": ["gid://shopify/Customer/1"]}),
    "definition": (
        """query($i:MetafieldDefinitionIdentifierInput!){ metafieldDefinition(identifier:$i){
          id type{name} access{ admin storefront customerAccount } } }""",
        {"i": {"ownerType": "CUSTOMER", "namespace": "loyalty", "key": "points_balance"}},
    ),
}

Json = dict[str, Any]


def gid(number: int) -> str:
    return f"gid://shopify/Customer/{number}"


def entry(customer: int = 1, value: Any = "5", **changes: Any) -> Json:
    """One MetafieldsSetInput; a change to `...` leaves that key out."""
    whole = {
        "ownerId": gid(customer),
        "namespace": "loyalty",
        "key": "points_balance",
        "type": "number_integer",
        "value": value,
        **changes,
    }
    return {name: content for name, content in whole.items() if content is not ...}


def definition(**changes: Any) -> Json:
    """One MetafieldDefinitionInput."""
    return {
        "ownerType": "CUSTOMER",
        "namespace": "loyalty",
        "key": "points_balance",
        "name": "Points",
        "type": "number_integer",
        **changes,
    }


@dataclass
class Bench:
    """A shop in memory, called without HTTP, in time that stands still."""

    api: AdminApi
    clock: ManualClock
    shop: Shop

    def answer(self, query: str, variables: Json | None = None, **request: Any) -> Answer:
        body = json.dumps({"query": query, "variables": variables or {}, **request}).encode()
        call = self.api.read(body)
        return call if isinstance(call, Answer) else self.api.run(self.shop, call)

    def data(self, query: str, variables: Json | None = None) -> Json:
        answer = self.answer(query, variables)
        assert "errors" not in answer.body, answer.body
        return cast("Json", answer.body["data"])

    def set(self, *entries: Json) -> Json:
        """The payload of one metafieldsSet."""
        return cast("Json", self.data(SET, {"m": list(entries)})["metafieldsSet"])

    def refusals(self, *entries: Json) -> list[Json]:
        """The user errors of a metafieldsSet that must have written nothing."""
        before = self.shop.storage.db.total_changes
        payload = self.set(*entries)
        assert self.shop.storage.db.total_changes == before
        assert not payload["metafields"]
        return cast("list[Json]", payload["userErrors"])

    def value(self, customer: int = 1) -> Json | None:
        """The customer's points as GraphQL shows them, or None."""
        return cast("Json | None", self.data(READ, {"ids": [gid(customer)]})["nodes"][0]["metafield"])

    def define(self, **changes: Any) -> Json:
        """The payload of one metafieldDefinitionCreate."""
        return cast("Json", self.data(DEFINE, {"d": definition(**changes)})["metafieldDefinitionCreate"])


def make_bench(api: AdminApi, *, customers: int = 30) -> Bench:
    clock = ManualClock()
    shop = open_shop(Storage(None), ShopSpec(DOMAIN, TOKEN, customers=customers), clock.clock)
    return Bench(api, clock, shop)


@dataclass
class Remote:
    """The demo shop over HTTP."""

    http: httpx.AsyncClient
    origin: str

    async def post(
        self,
        query: str,
        variables: Json | None = None,
        *,
        path: str = f"/{DOMAIN}/admin/api/2026-10/graphql.json",
        token: str | None = TOKEN,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        sent = dict(headers or {})
        if token is not None:
            sent["X-Shopify-Access-Token"] = token
        return await self.http.post(
            f"{self.origin}{path}", json={"query": query, "variables": variables or {}}, headers=sent
        )

    async def control(self, method: str, path: str, **body: Any) -> Any:
        """One call of the control API, which must succeed."""
        response = await self.http.request(method, f"{self.origin}/_devstore{path}", json=body or None)
        assert response.is_success, response.text
        return response.json()
