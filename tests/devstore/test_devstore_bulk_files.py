"""The storage beside the API over real HTTP: staging, uploads, downloads, and what goes wrong there on request."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from devstore_support import DOMAIN, EXPORT, STAGE, TOKEN, BulkClient, Json, one_each

from devstore import DevStore, Fault, FaultAnswer, FaultApply, ShopSpec
from devstore.multipart import FormReader, MalformedFormError

if TYPE_CHECKING:
    from pathlib import Path

    from devstore import ManualClock

FIELDS = [
    "Content-Type",
    "success_action_status",
    "acl",
    "key",
    "x-goog-date",
    "x-goog-credential",
    "x-goog-algorithm",
    "x-goog-signature",
    "policy",
]
LINE = json.dumps(one_each(1)[0]).encode() + b"\n"


async def calls(bulk: BulkClient, operation: str) -> list[Json]:
    return await bulk.remote.control("GET", f"/calls?operation={operation}")


def path_of(target: Json) -> str:
    return target["url"].partition("/_uploads/")[2].partition("?")[0]


async def test_a_target_for_a_form_is_as_recorded(bulk: BulkClient) -> None:
    target = await bulk.stage()
    assert target["url"] == target["resourceUrl"] == f"{bulk.store.origin}/_uploads/"
    assert [one["name"] for one in target["parameters"]] == FIELDS
    fields = target["fields"]
    *folders, _, filename = fields["key"].split("/")
    assert (folders, filename) == (["tmp", "1", "bulk"], "points.jsonl")
    assert (fields["Content-Type"], fields["success_action_status"]) == ("text/jsonl", "201")
    policy = json.loads(base64.b64decode(fields["policy"]))
    assert ["content-length-range", 1, 104_857_600] in policy["conditions"]
    assert {"key": fields["key"]} in policy["conditions"]
    assert policy["expiration"] == "2026-01-02T00:00:00Z"


async def test_a_target_for_a_put_is_as_recorded(bulk: BulkClient) -> None:
    target = await bulk.stage("PUT")
    assert target["fields"] == {"content_type": "text/jsonl", "acl": "private"}
    assert target["url"] == target["resourceUrl"]
    assert "X-Goog-Signature=" in target["url"]


async def test_a_put_is_what_is_staged_unless_a_form_is_asked_for(bulk: BulkClient) -> None:
    one = {"resource": "BULK_MUTATION_VARIABLES", "filename": "x.jsonl", "mimeType": "text/jsonl"}
    payload = await bulk.data(STAGE, input=[one, one | {"httpMethod": "POST"}])
    assert [len(target["parameters"]) for target in payload["stagedTargets"]] == [2, 9]


async def test_staging_without_looking_at_the_targets_costs_less(bulk: BulkClient) -> None:
    one = {"resource": "BULK_MUTATION_VARIABLES", "filename": "x.jsonl", "mimeType": "text/jsonl"}
    document = "mutation($input:[StagedUploadInput!]!){ stagedUploadsCreate(input:$input){ userErrors{ message } } }"
    await bulk.data(document, input=[one])
    await bulk.data(STAGE, input=[one, one])
    assert [call["requested"] for call in await calls(bulk, "stagedUploadsCreate")] == [10, 11]


async def test_a_form_is_answered_with_xml(bulk: BulkClient) -> None:
    target = await bulk.stage(filename="a & b.jsonl")
    answer = await bulk.send(target, LINE)
    assert answer.status_code == 201
    key = target["fields"]["key"].replace("&", "&amp;")
    assert answer.text.startswith("<?xml version='1.0' encoding='UTF-8'?><PostResponse><Location>")
    assert f"<Bucket>shopify-staged-uploads</Bucket><Key>{key}</Key><ETag>" in answer.text
    (call,) = await calls(bulk, "upload")
    assert (call["status"], call["shop"], call["errors"], call["requested"]) == (201, DOMAIN, [], None)
    stats = await bulk.remote.control("GET", "/stats")
    assert (stats["operations"]["upload"]["failed"], stats["inFlight"]) == (0, 0)


async def test_a_put_is_answered_with_nothing(bulk: BulkClient) -> None:
    target = await bulk.stage("PUT")
    answer = await bulk.remote.http.put(target["url"], content=LINE)
    assert (answer.status_code, answer.content) == (200, b"")
    assert (await bulk.run(path_of(target)))["userErrors"] == []


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [None, "something else"])
async def test_a_field_that_is_missing_or_changed_is_403(bulk: BulkClient, field: str, value: str | None) -> None:
    target = await bulk.stage()
    target["fields"][field] = value
    answer = await bulk.send(target, LINE)
    assert answer.status_code == 403
    assert answer.text.startswith("<?xml version='1.0' encoding='UTF-8'?><Error><Code>")
    (call,) = await calls(bulk, "upload")
    assert call["errors"] in (["AccessDenied"], ["SignatureDoesNotMatch"])
    assert (await bulk.run(target["fields"]["key"] or "none"))["userErrors"][0]["code"] == "NO_SUCH_FILE"


async def test_a_field_that_was_not_signed_is_403(bulk: BulkClient) -> None:
    answer = await bulk.send(await bulk.stage(), LINE, metadata="x")
    assert (answer.status_code, "metadata" in answer.text) == (403, True)


async def test_what_comes_after_the_file_is_ignored_and_so_missing(bulk: BulkClient) -> None:
    target = await bulk.stage()
    parts: list[tuple[str, Any]] = [(name, (None, value)) for name, value in target["fields"].items()]
    file = ("file", ("points.jsonl", LINE, "text/jsonl"))
    answer = await bulk.remote.http.post(target["url"], files=[*parts[:-1], file, parts[-1]])
    assert answer.status_code == 403
    harmless = ("anything", (None, "x"))
    second = ("file", ("second.jsonl", b"{}\n{}\n{}\n", "text/jsonl"))
    answer = await bulk.remote.http.post(target["url"], files=[*parts, file, harmless, second])
    assert answer.status_code == 201
    gid = (await bulk.run(target["fields"]["key"]))["bulkOperation"]["id"]
    assert (await bulk.finish(gid))["objectCount"] == "1"


async def test_a_form_without_a_file_is_400(bulk: BulkClient) -> None:
    target = await bulk.stage()
    parts = [(name, (None, value)) for name, value in target["fields"].items()]
    answer = await bulk.remote.http.post(target["url"], files=parts)
    assert (answer.status_code, "<Code>InvalidArgument</Code>" in answer.text) == (400, True)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/plain", b"x"),
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"--b\r\n"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--\r\n"),
        ("multipart/form-data; boundary=b", b"--bad\r\n\r\n"),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="acl"\r\n\r\n' + b"x" * 70_000,
        ),
    ],
)
async def test_a_body_that_is_no_form_is_400(bulk: BulkClient, content_type: str, body: bytes) -> None:
    answer = await bulk.remote.http.post(
        f"{bulk.store.origin}/_uploads/", content=body, headers={"Content-Type": content_type}
    )
    assert (answer.status_code, "<Code>MalformedPOSTRequest</Code>" in answer.text) == (400, True)


@pytest.mark.parametrize(
    ("size", "status", "code"),
    [(0, 400, "EntityTooSmall"), (1, 201, ""), (5_000, 201, ""), (5_001, 400, "EntityTooLarge")],
)
async def test_the_policy_limits_the_size(bulk: BulkClient, size: int, status: int, code: str) -> None:
    bulk.bulk.settings.upload_bytes_max = 5_000
    target = await bulk.stage()
    answer = await bulk.send(target, b" " * size)
    assert (answer.status_code, code in answer.text) == (status, True)
    found = (await bulk.run(target["fields"]["key"]))["userErrors"]
    assert [error["code"] for error in found] == ([] if status == 201 else ["NO_SUCH_FILE"])


async def test_a_megabyte_arrives_whole(bulk: BulkClient) -> None:
    # Between the lines, what looks like the beginning of a boundary.
    texts = [json.dumps({"m": [], "pad": f"{number}\r\n--\r\n" * 100}).encode() for number in range(1_000)]
    gid = await bulk.start(*texts)
    assert bulk.operation(gid).upload is not None
    ended = await bulk.finish(gid)
    assert ended["objectCount"] == "1000"
    upload = bulk.operation(gid).upload
    assert upload is not None
    assert upload.path.read_bytes() == b"".join(text + b"\n" for text in texts)


@pytest.mark.parametrize("header", ["X-Shopify-Access-Token", "Authorization"])
async def test_a_token_that_is_sent_to_the_storage_is_noticed(bulk: BulkClient, header: str) -> None:
    sent = {header: TOKEN}
    target = await bulk.stage()
    assert (await bulk.send(target, LINE, headers=sent)).status_code == 400
    assert (await bulk.run(target["fields"]["key"]))["userErrors"][0]["code"] == "NO_SUCH_FILE"
    put = await bulk.stage("PUT")
    assert (await bulk.remote.http.put(put["url"], content=LINE, headers=sent)).status_code == 400
    url = (await bulk.finish(await bulk.start(*one_each(1))))["url"]
    assert (await bulk.remote.http.get(url, headers=sent)).status_code == 400
    assert [call["errors"] for call in await calls(bulk, "upload")] == [["TokenLeaked"], ["TokenLeaked"], []]
    (call,) = await calls(bulk, "download")
    assert (call["status"], call["errors"], call["shop"]) == (400, ["TokenLeaked"], DOMAIN)


async def test_targets_expire(bulk: BulkClient, clock: ManualClock) -> None:
    form, put = await bulk.stage(), await bulk.stage("PUT")
    clock.advance(24 * 60 * 60)
    answer = await bulk.send(form, LINE)
    assert (answer.status_code, "<Code>ExpiredToken</Code>" in answer.text) == (400, True)
    assert (await bulk.remote.http.put(put["url"], content=LINE)).status_code == 200
    clock.advance(6 * 24 * 60 * 60)
    assert (await bulk.remote.http.put(put["url"], content=LINE)).status_code == 400


async def test_targets_take_what_they_were_staged_for(bulk: BulkClient) -> None:
    form, put = await bulk.stage(), await bulk.stage("PUT")
    assert (
        await bulk.remote.http.put(put["url"].replace("Signature=", "Signature=0"), content=LINE)
    ).status_code == 403
    assert (await bulk.remote.http.put(f"{form['url']}{form['fields']['key']}", content=LINE)).status_code == 403
    assert (await bulk.send(form, LINE, key=path_of(put))).status_code == 403
    assert (await bulk.remote.http.put(f"{form['url']}nothing", content=LINE)).status_code == 403


async def test_results_are_had_by_their_address_alone(bulk: BulkClient, clock: ManualClock) -> None:
    url = (await bulk.finish(await bulk.start(*one_each(1))))["url"]
    assert url.startswith(f"{bulk.store.origin}/_bulk/")
    answer = await bulk.remote.http.get(url)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/jsonl")
    assert "attachment" in answer.headers["content-disposition"]
    (call,) = await calls(bulk, "download")
    assert (call["status"], call["shop"], call["errors"]) == (200, DOMAIN, [])
    unsigned = url.partition("?")[0]
    for wrong, status in [
        (unsigned, 403),
        (f"{unsigned}?Signature=0", 403),
        (f"{bulk.store.origin}/_bulk/nothing.jsonl", 404),
    ]:
        assert (await bulk.remote.http.get(wrong)).status_code == status
    clock.advance(7 * 24 * 60 * 60)
    assert (await bulk.remote.http.get(url)).status_code == 400


async def test_a_lost_answer_to_running_leaves_an_operation_that_is_found(bulk: BulkClient) -> None:
    path = await bulk.upload(*one_each(1))
    fault = Fault(answer=FaultAnswer.DROP, apply=FaultApply.FIRST, operation="bulkOperationRunMutation")
    bulk.store.world.faults.add(fault)
    with pytest.raises(httpx.TransportError):
        await bulk.run(path)
    (operation,) = bulk.bulk.operations
    assert operation.staged_upload_path == path
    await bulk.bulk.settle()
    (told,) = await bulk.remote.control("GET", f"/shops/{DOMAIN}/bulk")
    assert (told["status"], told["stagedUploadPath"], told["executed"]) == ("COMPLETED", path, 1)


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ({"answer": "status", "status": 503}, 503),
        ({"answer": "throttled"}, 429),
        ({"answer": "garbage"}, 200),
        ({"answer": "normal"}, 201),
        ({"answer": "drop"}, 0),
    ],
)
@pytest.mark.parametrize(("apply", "codes"), [("never", ["NO_SUCH_FILE"]), ("first", [])])
async def test_uploads_go_wrong_before_or_after_they_are_kept(
    bulk: BulkClient, fault: Json, status: int, apply: str, codes: list[str]
) -> None:
    await bulk.remote.control("POST", "/faults", operation="upload", apply=apply, **fault)
    target = await bulk.stage()
    if status:
        assert (await bulk.send(target, LINE)).status_code == status
    else:
        with pytest.raises(httpx.TransportError):
            await bulk.send(target, LINE)
    found = (await bulk.run(target["fields"]["key"]))["userErrors"]
    assert [error["code"] for error in found] == codes
    (call,) = await calls(bulk, "upload")
    assert (call["status"], call["fault"]) == (status, 1)
    assert (await bulk.send(target, LINE)).status_code == 201


@pytest.mark.parametrize(
    ("fault", "status"), [({"answer": "status", "status": 503}, 503), ({"answer": "garbage"}, 200)]
)
async def test_downloads_go_wrong(bulk: BulkClient, fault: Json, status: int) -> None:
    url = (await bulk.finish(await bulk.start(*one_each(1))))["url"]
    await bulk.remote.control("POST", "/faults", operation="download", retryAfter="2", **fault)
    answer = await bulk.remote.http.get(url)
    assert (answer.status_code, answer.headers["retry-after"]) == (status, "2")
    assert "__lineNumber" not in answer.text
    assert len(await bulk.lines(url)) == 1


async def test_a_download_breaks_off_halfway(bulk: BulkClient) -> None:
    ended = await bulk.finish(await bulk.start(*({"m": []} for _ in range(5_000))))
    await bulk.remote.control("POST", "/faults", operation="download", answer="drop", shop=DOMAIN)
    received = bytearray()

    async def download() -> None:
        async with bulk.remote.http.stream("GET", ended["url"]) as answer:
            assert answer.headers["content-length"] == ended["fileSize"]
            async for data in answer.aiter_bytes():
                received.extend(data)

    with pytest.raises(httpx.RemoteProtocolError):
        await download()
    assert len(received) == int(ended["fileSize"]) // 2
    (call,) = await calls(bulk, "download")
    assert (call["status"], call["fault"]) == (0, 1)
    assert len(await bulk.lines(ended["url"])) == 5_000


async def test_an_upload_that_is_given_up_is_logged(bulk: BulkClient) -> None:
    target = await bulk.stage()
    await bulk.remote.control("POST", "/faults", operation="upload", answer="normal", apply="first", holdMs=60_000)
    with pytest.raises(httpx.ReadTimeout):
        await bulk.remote.http.post(
            target["url"], data=target["fields"], files={"file": ("x", LINE, "text/jsonl")}, timeout=0.1
        )
    assert (await bulk.run(target["fields"]["key"]))["userErrors"] == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "", {"colour": "red"}),
        ("PATCH", "", {"linesPerS": -1}),
        ("PATCH", "", {"startDelayMs": None}),
        ("PATCH", "", {"dropLineRate": "half"}),
        ("PATCH", "", {"seed": "x"}),
        ("PATCH", "", {"paused": 1}),
        ("PATCH", "", {"canceledResult": "somewhere"}),
        ("GET", "/7/owners", None),
        ("POST", "/7/fail", {}),
    ],
)
async def test_control_calls_without_sense_are_400(bulk: BulkClient, method: str, path: str, body: Json | None) -> None:
    url = f"{bulk.store.origin}/_devstore/shops/{DOMAIN}/bulk{path}"
    answer = await bulk.remote.http.request(method, url, json=body)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


@pytest.mark.parametrize(
    "body", [{"status": "COMPLETED"}, {"status": "MELTED"}, {"errorCode": "NONE"}, {"status": "FAILED"}]
)
async def test_operations_end_only_as_they_can(bulk: BulkClient, body: Json) -> None:
    gid = await bulk.start(*one_each(1))
    await bulk.bulk.settle()
    url = f"{bulk.store.origin}/_devstore/shops/{DOMAIN}/bulk/{bulk.operation(gid).number}/fail"
    assert (await bulk.remote.http.post(url, json=body)).status_code == 400


async def test_settings_are_shown_and_changed(bulk: BulkClient) -> None:
    path = f"/shops/{DOMAIN}/bulk"
    assert await bulk.remote.control("PATCH", path) == {
        "startDelayMs": 0,
        "linesPerS": None,
        "seed": 0,
        "paused": False,
        "dropLineRate": 0.0,
        "canceledResult": "partialDataUrl",
        "uploadBytesMax": 104_857_600,
    }
    changed = {
        "startDelayMs": 5,
        "linesPerS": 2.5,
        "seed": 7,
        "paused": True,
        "dropLineRate": 0.25,
        "canceledResult": "url",
        "uploadBytesMax": 100,
    }
    assert await bulk.remote.control("PATCH", path, **changed) == changed
    assert (await bulk.remote.control("PATCH", path, linesPerS=None))["linesPerS"] is None
    assert bulk.bulk.settings.seed == 7


async def test_files_are_gone_when_the_server_stops(tmp_path: Path) -> None:
    shops = [ShopSpec(DOMAIN, TOKEN, customers=3)]
    async with DevStore(shops, state=tmp_path / "state.db") as store, httpx.AsyncClient() as http:
        url = f"{store.origin}/{DOMAIN}/admin/api/2026-10/graphql.json"
        store.shop(DOMAIN).bulk.settings.paused = True
        run = {"query": EXPORT, "variables": {"query": "{ customers { edges { node { id } } } }"}}
        await http.post(url, json=run, headers={"X-Shopify-Access-Token": TOKEN})
        folder = store.world.depot.new_path().parent
        (first,) = store.shop(DOMAIN).bulk.operations
        assert folder.exists()
    assert not folder.exists()
    async with DevStore(shops, state=tmp_path / "state.db") as store:
        assert store.shop(DOMAIN).bulk.operations == []
        assert store.shop(DOMAIN).bulk.find(first.number) is None


class Collected:
    def __init__(self) -> None:
        self.parts: list[tuple[str, bytearray]] = []

    def begin(self, name: str) -> None:
        self.parts.append((name, bytearray()))

    def write(self, data: bytes) -> None:
        self.parts[-1][1].extend(data)


def read_form(body: bytes, size: int) -> list[tuple[str, bytearray]]:
    collected = Collected()
    reader = FormReader('multipart/form-data; boundary="b"', collected)
    for at in range(0, len(body), size):
        reader.feed(body[at : at + size])
    reader.finish()
    return collected.parts


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000])
def test_a_form_is_the_same_in_whatever_pieces_it_arrives(size: int) -> None:
    body = (
        b'preamble\r\n--b\r\nContent-Disposition: form-data; name="one"\r\n\r\n\r\n--a-\r\n--b'
        b'\r\ncontent-disposition: form-data; filename="f"; name=file\r\nContent-Type: text/plain\r\n\r\n'
        b"two\r\n\r\n--b--\r\nepilogue"
    )
    assert read_form(body, size) == [("one", bytearray(b"\r\n--a-")), ("file", bytearray(b"two\r\n"))]
    with pytest.raises(MalformedFormError, match="ends before"):
        read_form(body.partition(b"--b--")[0], size)
    # A boundary must be followed by a line or by the end.
    with pytest.raises(MalformedFormError, match="neither"):
        read_form(body.replace(b"--a-\r\n", b"--b-\r\n"), size)
