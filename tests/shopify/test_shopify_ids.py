from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metafield_sync.shopify import customer_gid, customer_id_of


@given(st.integers(1, 2**63 - 1))
def test_an_id_survives_the_way_to_shopify_and_back(customer_id: int) -> None:
    assert customer_id_of(customer_gid(customer_id)) == customer_id


def test_a_customers_gid_is_spelled_as_shopify_spells_it() -> None:
    assert customer_gid(123) == "gid://shopify/Customer/123"


@pytest.mark.parametrize("customer_id", [0, -1])
def test_there_is_no_customer_below_1(customer_id: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        customer_gid(customer_id)


@pytest.mark.parametrize(
    "gid",
    [
        "",
        "123",
        "gid://shopify/Product/123",
        "gid://shopify/Customer/",
        "gid://shopify/Customer/0",
        "gid://shopify/Customer/0123",
        "gid://shopify/Customer/-1",
        "gid://shopify/Customer/12\n",
        "gid://shopify/Customer/٣",
        "gid://shopify/Customer/12345678901234567890",
    ],
)
def test_anything_else_is_no_customer(gid: str) -> None:
    with pytest.raises(ValueError, match="not the id of a Shopify customer"):
        customer_id_of(gid)
