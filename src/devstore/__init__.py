"""A local stand-in for a Shopify development store: the demo and the tests talk to it over real HTTP."""

from devstore.budget import Plan
from devstore.clock import Clock, ManualClock
from devstore.faults import Fault, FaultAnswer, FaultApply, Latency
from devstore.server import DEMO_SHOP, DevStore
from devstore.shops import Shop, ShopSpec, ShopState

__all__ = [
    "DEMO_SHOP",
    "Clock",
    "DevStore",
    "Fault",
    "FaultAnswer",
    "FaultApply",
    "Latency",
    "ManualClock",
    "Plan",
    "Shop",
    "ShopSpec",
    "ShopState",
]
