from __future__ import annotations

import asyncio
import gzip
import tracemalloc
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from scripted_server import TOKEN, Reply, ScriptedServer

from metafield_sync.shopify import (
    AdminClient,
    BulkRefused,
    BulkRefusedKind,
    Cost,
    DownloadFailed,
    OutcomeUnknown,
    ShopAccess,
    StagedTarget,
    UploadFailed,
    bulk_files,
    download_lines,
    stage_upload,
    upload,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

SECRET = "s3cret"  # noqa: S105 - what no text may repeat
RECORDED = [
    {"name": "Content-Type", "value": "text/jsonl"},
    {"name": "success_action_status", "value": "201"},
    {"name": "acl", "value": "private"},
    {"name": "key", "value": "tmp/1/bulk/uuid/x.jsonl"},
    {"name": "x-goog-signature", "value": SECRET * 100},
    {"name": "policy", "value": "e" * 1000},
]
LINES = b'{"metafields":[]}\n' * 3
LARGE = 60 * 1024 * 1024
LITTLE = 8 * 1024 * 1024


def staged(parameters: Any, *errors: Any, url: Any = "https://staged.test/") -> dict[str, Any]:
    targets = [{"url": url, "resourceUrl": None, "parameters": parameters}]
    payload = {"stagedTargets": targets, "userErrors": list(errors)}
    return {"data": {"stagedUploadsCreate": payload}, "extensions": {"cost": {"requestedQueryCost": 11}}}


async def lines_of(client: AdminClient, url: str) -> list[bytes]:
    async with aclosing(download_lines(client, url)) as lines:
        return [line async for line in lines]


@asynccontextmanager
async def serving(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncGenerator[str]:
    """A server for bodies that must not be kept in memory."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except ConnectionError:
            pass  # the client has heard enough
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/file?Signature={SECRET}"


# ── Staging ──


@pytest.mark.parametrize("step", [1, -1])
async def test_a_place_is_staged_and_its_path_found_by_name(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, step: int
) -> None:
    server.answer(staged(RECORDED[::step]))
    target, cost = await stage_upload(client, access, "x.jsonl")
    assert target.path == "tmp/1/bulk/uuid/x.jsonl"
    assert target.url == "https://staged.test/"
    assert list(target.parameters) == [(one["name"], one["value"]) for one in RECORDED[::step]]
    assert SECRET not in repr(target)
    assert cost == Cost(requested=11)
    assert server.received[0].variables == {
        "input": [
            {
                "resource": "BULK_MUTATION_VARIABLES",
                "filename": "x.jsonl",
                "mimeType": "text/jsonl",
                "httpMethod": "POST",
            }
        ]
    }


async def test_staging_that_is_refused_is_a_bug(
    client: AdminClient, access: ShopAccess, server: ScriptedServer
) -> None:
    server.answer(staged(None, {"field": ["input"], "message": "Mime type is not allowed."}))
    with pytest.raises(BulkRefused, match="Mime type is not allowed") as caught:
        await stage_upload(client, access, "x.jsonl")
    assert caught.value.kind is BulkRefusedKind.INVALID


@pytest.mark.parametrize(
    "document",
    [
        staged(None),
        staged([]),
        staged(RECORDED[:3]),
        staged([*RECORDED, RECORDED[3]]),
        staged([*RECORDED, {"name": "x", "value": None}]),
        staged([*RECORDED, None]),
        staged(RECORDED, url=None),
        {"data": {"stagedUploadsCreate": {"stagedTargets": [], "userErrors": []}}},
        {"data": {"stagedUploadsCreate": {"stagedTargets": None, "userErrors": []}}},
        {"data": {}},
    ],
)
async def test_an_answer_without_a_place_leaves_it_unknown(
    client: AdminClient, access: ShopAccess, server: ScriptedServer, document: dict[str, Any]
) -> None:
    server.answer(document)
    with pytest.raises(OutcomeUnknown):
        await stage_upload(client, access, "x.jsonl")


# ── Uploading ──


def target_at(url: str) -> StagedTarget:
    return StagedTarget(url, tuple((one["name"], one["value"]) for one in RECORDED))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "balances.jsonl"
    path.write_bytes(LINES)
    return path


@pytest.mark.parametrize("status", [200, 201, 204])
async def test_the_fields_are_sent_in_their_order_and_the_file_last_and_no_token(
    client: AdminClient, server: ScriptedServer, file: Path, status: int
) -> None:
    server.reply(Reply(status=status))
    await upload(client, target_at(f"{server.origin}/bucket"), file)
    (request,) = server.received
    assert (request.method, request.path) == ("POST", "/bucket")
    kind, _, boundary = request.headers["content-type"].partition("; boundary=")
    assert kind == "multipart/form-data"
    parts = request.body.split(b"--" + boundary.encode())
    assert (parts[0], parts[-1]) == (b"", b"--\r\n")
    names = [part.split(b'name="')[1].split(b'"')[0].decode() for part in parts[1:-1]]
    assert names == [*(one["name"] for one in RECORDED), "file"]
    assert parts[4] == b'\r\nContent-Disposition: form-data; name="key"\r\n\r\ntmp/1/bulk/uuid/x.jsonl\r\n'
    assert parts[-2].endswith(b"Content-Type: text/jsonl\r\n\r\n" + LINES + b"\r\n")
    assert int(request.headers["content-length"]) == len(request.body)
    assert "x-shopify-access-token" not in request.headers
    assert TOKEN.encode() not in request.body
    assert TOKEN not in repr(request.headers)


REFUSED_XML = f"<Error><Code>EntityTooLarge</Code><Details>{SECRET}</Details></Error>".encode()


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(status=400, body=REFUSED_XML), "HTTP 400: EntityTooLarge"),
        (Reply(status=403, body=SECRET.encode()), "HTTP 403)"),
        (Reply(status=500), "HTTP 500)"),
        (Reply(status=202), "HTTP 202)"),
        (Reply(status=302, headers={"Location": f"https://elsewhere.test/{SECRET}"}), "HTTP 302)"),
        (Reply(raw=b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\n<Code"), "HTTP 403)"),
        (Reply(drop=True), "RemoteProtocolError"),
        (Reply(raw=b"what?\r\n\r\n"), "RemoteProtocolError"),
    ],
)
async def test_a_file_that_is_not_accepted_is_to_be_staged_anew(
    client: AdminClient, server: ScriptedServer, file: Path, reply: Reply, said: str
) -> None:
    server.reply(reply)
    with pytest.raises(UploadFailed, match="staged anew") as caught:
        await upload(client, target_at(f"{server.origin}/bucket?X-Signature={SECRET}"), file)
    assert said in caught.value.detail
    assert "127.0.0.1" in caught.value.detail
    assert SECRET not in caught.value.detail
    assert len(server.received) == 1


async def test_a_store_that_cannot_be_reached_fails_the_upload(client: AdminClient, file: Path) -> None:
    with pytest.raises(UploadFailed, match="ConnectError"):
        await upload(client, target_at("http://127.0.0.1:1/bucket"), file)


async def test_a_store_that_never_answers_fails_the_upload(
    client: AdminClient, server: ScriptedServer, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_files, "FILE_TIMEOUT_S", 0.05)
    server.reply(Reply(hang=True))
    with pytest.raises(UploadFailed, match="TimeoutError"):
        await upload(client, target_at(f"{server.origin}/bucket"), file)


@pytest.mark.parametrize("origin", ["https://{shop}", "http://admin.test/{shop}"])
async def test_nothing_is_uploaded_or_downloaded_in_clear(
    http: httpx.AsyncClient, server: ScriptedServer, file: Path, origin: str
) -> None:
    client = AdminClient(http, origin=origin, api_version="2026-10")
    url = f"{server.origin}/bucket?Signature={SECRET}"
    with pytest.raises(UploadFailed, match="is not https") as caught:
        await upload(client, target_at(url), file)
    assert SECRET not in caught.value.detail
    with pytest.raises(DownloadFailed, match="is not https") as failed:
        await lines_of(client, url)
    assert (SECRET in failed.value.detail, failed.value.expired) == (False, False)
    assert server.received == []


async def test_a_file_that_is_not_here_is_no_trouble_of_the_stores(client: AdminClient, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await upload(client, target_at("http://127.0.0.1:1/bucket"), tmp_path / "none")


async def test_a_large_file_passes_through_little_memory(client: AdminClient, tmp_path: Path) -> None:
    path = tmp_path / "large.jsonl"
    with path.open("wb") as sparse:
        sparse.truncate(LARGE)
    received = 0

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while received < length:
            received += len(await reader.read(65_536))
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with serving(swallow) as url:
        tracemalloc.start()
        try:
            await upload(client, target_at(url), path)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert received > LARGE
    assert peak < LITTLE


# ── Downloading ──


def result_at(server: ScriptedServer) -> str:
    return f"{server.origin}/result?GoogleAccessId=a%40b&Signature={SECRET}%2B%3D"


async def test_a_result_is_read_line_by_line_without_a_token(client: AdminClient, server: ScriptedServer) -> None:
    server.reply(Reply(body=b'{"a":1}\n{"b":"\xc3\xa4"}\n\n{"c":3}\n'))
    assert await lines_of(client, result_at(server)) == [b'{"a":1}', b'{"b":"\xc3\xa4"}', b'{"c":3}']
    (request,) = server.received
    assert request.method == "GET"
    assert request.path == f"/result?GoogleAccessId=a%40b&Signature={SECRET}%2B%3D"
    assert "x-shopify-access-token" not in request.headers
    assert request.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(("body", "lines"), [(b"", []), (b"\n", []), (b"a", [b"a"]), (b"a\nb", [b"a", b"b"])])
async def test_a_last_line_may_end_with_the_file(
    client: AdminClient, server: ScriptedServer, body: bytes, lines: list[bytes]
) -> None:
    server.reply(Reply(body=body))
    assert await lines_of(client, result_at(server)) == lines


async def test_pieces_may_end_anywhere(client: AdminClient, server: ScriptedServer) -> None:
    pieces = [b"a", b"b\n\nc", b"d", b"\n", b"e\nf"]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    server.reply(Reply(raw=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"))
    assert await lines_of(client, result_at(server)) == [b"ab", b"cd", b"e", b"f"]


async def test_one_that_comes_compressed_all_the_same_is_read(client: AdminClient, server: ScriptedServer) -> None:
    server.reply(Reply(body=gzip.compress(b"a\nb\n"), headers={"Content-Encoding": "gzip"}))
    assert await lines_of(client, result_at(server)) == [b"a", b"b"]


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\na\nb\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\na\nb\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\na\nb\n\r\n9\r\nc",
    ],
)
async def test_a_result_cut_midway_fails_after_its_whole_lines(
    client: AdminClient, server: ScriptedServer, raw: bytes
) -> None:
    server.reply(Reply(raw=raw))
    lines = download_lines(client, result_at(server))
    assert [await anext(lines), await anext(lines)] == [b"a", b"b"]
    with pytest.raises(DownloadFailed, match="broke off") as caught:
        await anext(lines)
    assert not caught.value.expired
    assert SECRET not in caught.value.detail


async def test_a_result_that_does_not_say_where_it_ends_is_not_believed(
    client: AdminClient, server: ScriptedServer
) -> None:
    server.reply(Reply(raw=b"HTTP/1.1 200 OK\r\n\r\na\n"))
    with pytest.raises(DownloadFailed, match="where it ends"):
        await lines_of(client, result_at(server))


EXPIRED_XML = f"<Error><Code>ExpiredToken</Code><Details>{SECRET}</Details></Error>".encode()


@pytest.mark.parametrize(
    ("reply", "said", "expired"),
    [
        (Reply(status=403, body=EXPIRED_XML), "HTTP 403: ExpiredToken", True),
        (Reply(status=400, body=EXPIRED_XML), "HTTP 400: ExpiredToken", True),
        (Reply(status=404), "HTTP 404)", True),
        (Reply(status=410), "HTTP 410)", True),
        (Reply(status=400, body=REFUSED_XML), "HTTP 400: EntityTooLarge", False),
        (Reply(status=503, body=b"x" * 100_000), "HTTP 503)", False),
        (Reply(status=206, body=b"a\n"), "HTTP 206)", False),
        (Reply(status=302, headers={"Location": f"https://elsewhere.test/{SECRET}"}), "HTTP 302)", False),
        (Reply(drop=True), "RemoteProtocolError", False),
    ],
)
async def test_a_result_that_is_not_to_be_had_says_whether_its_address_has_expired(
    client: AdminClient, server: ScriptedServer, reply: Reply, said: str, *, expired: bool
) -> None:
    server.reply(reply)
    with pytest.raises(DownloadFailed) as caught:
        await lines_of(client, result_at(server))
    assert caught.value.expired == expired
    assert said in caught.value.detail
    assert SECRET not in caught.value.detail


async def test_a_line_without_end_is_no_line(client: AdminClient, server: ScriptedServer) -> None:
    limit = bulk_files.LINE_BYTES_MAX
    server.reply(Reply(body=b"a" * limit + b"\nb\n"), Reply(body=b"a\n" + b"b" * (limit + 1)))
    assert [len(line) for line in await lines_of(client, result_at(server))] == [limit, 1]
    with pytest.raises(DownloadFailed, match="a line of more than"):
        await lines_of(client, result_at(server))


async def test_a_result_that_trickles_is_given_up_and_a_slow_reader_is_not(
    client: AdminClient, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_files, "FILE_TIMEOUT_S", 0.2)

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(500):
            writer.write(b"a\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with serving(trickle) as url:
        with pytest.raises(DownloadFailed, match="too slowly"):
            await lines_of(client, url)
    server.reply(Reply(body=b"a\nb\n"))
    async for _ in download_lines(client, result_at(server)):
        await asyncio.sleep(0.25)


async def test_a_large_result_passes_through_little_memory_and_may_be_left(client: AdminClient) -> None:
    line = b'{"data":{}}' + b" " * 500 + b"\n"
    count = LARGE // len(line)

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (count * len(line)))
        for _ in range(count // 100):
            writer.write(line * 100)
            await writer.drain()
        writer.write(line * (count % 100))
        await writer.drain()

    async with serving(pour) as url:
        tracemalloc.start()
        try:
            read = 0
            async with aclosing(download_lines(client, url)) as lines:
                async for _ in lines:
                    read += 1
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert read == count
        assert peak < LITTLE
        async with aclosing(download_lines(client, url)) as lines:
            assert await anext(lines) == line.rstrip(b"\n")
