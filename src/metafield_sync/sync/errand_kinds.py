"""What errands there are, by name. Each part of the program that has any adds its own here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from metafield_sync.sync.flow import FLOW_ERRAND
from metafield_sync.sync.install.steps import DEFINITION_ERRAND, INSTALL_ERRAND, SCOPES_ERRAND
from metafield_sync.sync.orders.catch_up import CATCH_UP_ERRANDS
from metafield_sync.sync.orders.fetching import ORDER_ERRANDS
from metafield_sync.sync.people.merges import MERGE_ERRANDS
from metafield_sync.sync.tokens import TOKEN_ERRAND

if TYPE_CHECKING:
    from collections.abc import Mapping

    from metafield_sync.sync.errands import ErrandKind

ERRAND_KINDS: Mapping[str, ErrandKind] = {
    kind.name: kind
    for kind in (
        # One line a kind, in the order of their names.
        CATCH_UP_ERRANDS,
        DEFINITION_ERRAND,
        FLOW_ERRAND,
        INSTALL_ERRAND,
        MERGE_ERRANDS,
        ORDER_ERRANDS,
        SCOPES_ERRAND,
        TOKEN_ERRAND,
    )
}
