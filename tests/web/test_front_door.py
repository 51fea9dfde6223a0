"""The app's own address, where Shopify opens it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Api


@pytest.mark.parametrize("query", ["", "?shop=demo.myshopify.com&host=YWRtaW4%3D&id_token=a.b.c&embedded=1"])
async def test_the_apps_address_leads_to_its_page_with_all_that_shopify_put_behind_it(api: Api, query: str) -> None:
    answer = await api.anonymous.get(f"/{query}")
    assert answer.status_code == 307
    assert answer.headers["location"] == f"/app{query}"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
