"""What the devstore's tests share: documents, ways to call a shop, and the published schema."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from devstore.admin import AdminApi, Answer
from devstore.clock import ManualClock
from devstore.depot import Depot
from devstore.shops import Shop, ShopSpec, open_shop
from devstore.storage import Storage

if TYPE_CHECKING:
    import httpx

    from devstore import Bulk, BulkOperation, DevStore

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

# What a client sends in bulk, line by line.
BULK_SET = """mutation Set($m:[MetafieldsSetInput!]!){ metafieldsSet(metafields:$m){
  metafields{ value compareDigest owner{ ... on Customer{ id } } } userErrors{ field message code } } }"""
STAGE = """mutation S($input:[StagedUploadInput!]!){ stagedUploadsCreate(input:$input){
  stagedTargets{ url resourceUrl parameters{ name value } } userErrors{ field message } } }"""
RUN = """mutation R($mutation:String!,$path:String!,$cid:String){
  bulkOperationRunMutation(mutation:$mutation, stagedUploadPath:$path, clientIdentifier:$cid){
    bulkOperation{ id status type query objectCount rootObjectCount url } userErrors{ field message code } } }"""
EXPORT = """mutation E($query:String!){ bulkOperationRunQuery(query:$query){
  bulkOperation{ id status type query } userErrors{ field message code } } }"""
POLL = """query P($id:ID!){ bulkOperation(id:$id){ id status errorCode createdAt completedAt objectCount
  rootObjectCount fileSize url partialDataUrl type query } }"""
CANCEL = """mutation C($id:ID!){ bulkOperationCancel(id:$id){
  bulkOperation{ id status url } userErrors{ field message } } }"""
OPERATIONS = """query L($first:Int,$last:Int,$after:String,$before:String,$query:String,$reverse:Boolean,
  $sortKey:BulkOperationsSortKeys){ bulkOperations(first:$first,last:$last,after:$after,before:$before,query:$query,
  reverse:$reverse,sortKey:$sortKey){ nodes{ id status type createdAt }
  pageInfo{ hasNextPage hasPreviousPage startCursor endCursor } } }"""

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
    "bulk set": (BULK_SET, {"m": []}),
    "stage": (
        STAGE,
        {"input": [{"resource": "BULK_MUTATION_VARIABLES", "filename": "x.jsonl", "mimeType": "text/jsonl"}]},
    ),
    "run": (RUN, {"mutation": BULK_SET, "path": "tmp/1/bulk/none/x.jsonl"}),
    "export": (EXPORT, {"query": "{ shop { id } }"}),
    "poll": (POLL, {"id": "gid://shopify/BulkOperation/1"}),
    "cancel": (CANCEL, {"id": "gid://shopify/BulkOperation/1"}),
    "operations": (OPERATIONS, {"first": 10, "query": "status:running operation_type:mutation"}),
    "current operation": ("{ currentBulkOperation(type: MUTATION) { id } }", {}),
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


def a_depot() -> Depot:
    return Depot("http://devstore.test")


def make_bench(api: AdminApi, *, customers: int = 30) -> Bench:
    clock = ManualClock()
    shop = open_shop(Storage(None), ShopSpec(DOMAIN, TOKEN, customers=customers), clock.clock, a_depot())
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


@dataclass
class BulkClient:
    """Bulk operations of the demo shop over HTTP."""

    remote: Remote
    store: DevStore

    @property
    def bulk(self) -> Bulk:
        return self.store.shop(DOMAIN).bulk

    async def data(self, document: str, /, **variables: Any) -> Json:
        """What the only field of a document came to."""
        answer = (await self.remote.post(document, variables)).json()
        assert "errors" not in answer, answer
        (payload,) = answer["data"].values()
        return cast("Json", payload)

    async def stage(self, method: str = "POST", filename: str = "points.jsonl") -> Json:
        """A staged target, its parameters as a dict beside them."""
        wanted = {
            "resource": "BULK_MUTATION_VARIABLES",
            "filename": filename,
            "mimeType": "text/jsonl",
            "httpMethod": method,
        }
        payload = await self.data(STAGE, input=[wanted])
        assert payload["userErrors"] == []
        (target,) = payload["stagedTargets"]
        return target | {"fields": {one["name"]: one["value"] for one in target["parameters"]}}

    async def send(
        self, target: Json, content: bytes, *, headers: dict[str, str] | None = None, **changes: str | None
    ) -> httpx.Response:
        """Upload a form; a change to None leaves that field out."""
        fields = {**target["fields"], **{name.replace("_", "-"): value for name, value in changes.items()}}
        sent = {name: value for name, value in fields.items() if value is not None}
        file = ("points.jsonl", content, "text/jsonl")
        return await self.remote.http.post(target["url"], data=sent, files={"file": file}, headers=headers)

    async def upload(self, *lines: Any) -> str:
        """Stage and upload lines, JSON or bytes as they are; returns the path."""
        texts = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines]
        target = await self.stage()
        answer = await self.send(target, b"".join(text + b"\n" for text in texts))
        assert answer.status_code == 201, answer.text
        return target["fields"]["key"]

    async def run(self, path: str, mutation: str = BULK_SET, **more: Any) -> Json:
        """The payload of bulkOperationRunMutation."""
        return await self.data(RUN, mutation=mutation, path=path, **more)

    async def start(self, *lines: Any, mutation: str = BULK_SET) -> str:
        """Start a mutation over lines; returns its id."""
        payload = await self.run(await self.upload(*lines), mutation)
        assert payload["userErrors"] == []
        return payload["bulkOperation"]["id"]

    async def export(self, query: str) -> Json:
        """The payload of bulkOperationRunQuery."""
        return await self.data(EXPORT, query=query)

    async def poll(self, gid: str) -> Json:
        """An operation as it is."""
        return await self.data(POLL, id=gid)

    async def finish(self, gid: str) -> Json:
        """An operation when all have ended."""
        await self.bulk.settle()
        return await self.poll(gid)

    async def until(self, gid: str, executed: int) -> BulkOperation:
        """Wait until so many lines were executed."""
        operation = self.operation(gid)
        while operation.executed < executed:
            await self.poll(gid)
        return operation

    def operation(self, gid: str) -> BulkOperation:
        operation = self.bulk.find(int(gid.rpartition("/")[2]))
        assert operation is not None
        return operation

    async def lines(self, url: str) -> list[Json]:
        """A result, downloaded."""
        answer = await self.remote.http.get(url)
        assert answer.status_code == 200, answer.text
        assert answer.content.endswith(b"\n")
        return [json.loads(line) for line in answer.text.splitlines()]


def one_each(*customers: int, value: int = 5) -> list[Json]:
    """A line for each customer."""
    return [{"m": [entry(customer, str(value))]} for customer in customers]
