"""`earning`: the rule as it is shown and changed from the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cli_support import Cli


def test_the_default_rule_is_shown_with_an_example(cli: Cli, shop: str) -> None:
    shown = cli("earning", "show", "--shop", shop)
    assert shown.status == 0, shown.err
    assert ": 1 point for each " in shown.out
    assert "An order with goods of 41.90 earns 41 points." in shown.out


def test_what_is_not_given_stays_as_it_was(cli: Cli, shop: str) -> None:
    first = cli("earning", "set", "--shop", shop, "--points-per-unit", "2", "--exclude-tag", "wholesale", "--json")
    assert first.status == 0, first.err
    assert first.document["inForce"]["excludedCustomerTags"] == ["wholesale"]
    second = cli("earning", "set", "--shop", shop, "--rounding", "half_up", "--keeps-tax-in", "--json")
    assert second.status == 0, second.err
    rule = second.document["versions"][0]
    assert (rule["version"], rule["pointsPerUnit"], rule["rounding"], rule["takesTaxOff"], rule["actor"]) == (
        2,
        "2",
        "half_up",
        False,
        "cli",
    )
    assert rule["excludedCustomerTags"] == ["wholesale"]
    off = cli("earning", "set", "--shop", shop, "--disabled", "--no-excluded-tags")
    assert "earning is switched off" in off.out
    assert cli("earning", "show", "--json").document["inForce"]["excludedCustomerTags"] == []


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (("--points-per-unit", "much"), "--points-per-unit"),
        (("--starts-at", "tomorrow"), "--starts-at"),
        (("--exclude-tag", "a", "--no-excluded-tags"), "--no-excluded-tags"),
    ],
)
def test_what_makes_no_sense_is_refused_by_the_option(cli: Cli, shop: str, wrong: tuple[str, ...], named: str) -> None:
    refused = cli("earning", "set", "--shop", shop, *wrong)
    assert refused.status == 2
    assert named in refused.complaint
