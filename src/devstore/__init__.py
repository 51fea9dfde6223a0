"""A local stand-in for a Shopify development store: the demo and the tests talk to it over real HTTP.

It answers the Admin GraphQL API for as many shops as it is given, with the limits, costs and errors of the
real one, as far as they are published or were recorded from live stores. It knows nothing of its clients.

Start it::

    python -m devstore --port 0 --shop demo.myshopify.com --token TOKEN --customers 1000

    --shop DOMAIN[:TOKEN]     may be repeated; --token serves those that name none
    --plan PLAN               standard, advanced, plus or enterprise
    --customers N             customers 1 to N in each shop
    --customers-file FILE     further customers, an id or global id a line
    --latency-ms MS[-MS]      how long answers take
    --state FILE              keep the shops in a file: over restarts and kill -9

One line of JSON on standard output tells it is ready: ``{"origin", "adminOrigin", "shops"}``. SIGTERM and
SIGINT stop it with status 0; status 2 means it could not start. In a program it is `DevStore`, a context
manager::

    async with DevStore([ShopSpec("demo.myshopify.com", "TOKEN", customers=1000)]) as store:
        ...  # store.admin_origin; store.shop("demo.myshopify.com"); store.world.faults, .calls, .latency

    with DevStore() as store:  # served from a thread: talk to it over HTTP only
        ...

A shop's API is ``POST {origin}/{domain}/admin/api/{version}/graphql.json``. Without the domain in the path
the Host header names the shop, and failing that the access token does. OAuth, webhooks and merges are not here.

Bulk operations run in the background, one line or page after another, while calls are answered. Files are uploaded
to ``{origin}/_uploads/`` (a form, or a PUT) and results downloaded from ``{origin}/_bulk/…``, which in reality is
Google's storage: signed addresses, XML errors, and whoever sends an access token there is refused with 400 and
logged as ``TokenLeaked``. A mutation's lines are executed in an order drawn from a seed, and their results written
in that order. A query exports one connection and what is nested in it. Operations and files are forgotten when the
server stops, also with a state file; their numbers are not given again. In a program, `Shop.bulk` has
them (see `Bulk`)::

    bulk = store.shop("demo.myshopify.com").bulk
    bulk.settings.paused = True  # see BulkSettings; bulk.operations, bulk.fail(…), await bulk.settle()

The control API arranges the world and looks at it. Bodies and answers are JSON; a call without sense gets
400 and ``{"error"}``. Under ``/_devstore``:

============================ =================================================================================
GET /health                  ``{"ok", "inFlight"}``
GET /shops                   every shop: domain, token, plan, state, customers
POST /shops                  add one: ``domain, token, plan?, customers?``
PATCH /shops/D               ``state?`` (active, frozen 402, forbidden 403, locked 423), ``plan?``, ``token?``
                             (null revokes it)
GET /shops/D/bucket          maximumAvailable, currentlyAvailable, restoreRate, spent
POST /shops/D/bucket/spend   ``points``: another client of the app spends them
POST /shops/D/bucket/fill    as after a long silence
POST /shops/D/customers      ``ids: [...]``, or ``count, first?``
DELETE /shops/D/customers    ``ids: [...]``; their metafields go with them
GET /shops/D/metafields      ``?namespace=&key=``: ``{customer: value}`` of everybody
PUT /shops/D/metafields      ``customerId, namespace, key, value, type?``: a foreign write, free and unchecked
DELETE /shops/D/metafields   ``customerId, namespace, key``
GET /shops/D/definitions     the definitions for customers, or for ``?ownerType=``
DELETE /shops/D/definitions  ``namespace, key, ownerType?``; the values stay
GET /shops/D/bulk            its bulk operations, oldest first, see `BulkOperation`: ``number, id, status, type, url,
                             stagedUploadPath, lines, executed, dropped, …``
PATCH /shops/D/bulk          how they behave, see `BulkSettings`: ``startDelayMs, linesPerS, seed, paused,
                             dropLineRate, canceledResult, uploadBytesMax``; answers with all of them
GET /shops/D/bulk/N/owners   every ownerId in the file of operation number N
POST /shops/D/bulk/N/fail    end it: ``status?`` (FAILED, EXPIRED, CANCELED), ``errorCode?``; what it came to is at
                             its partialDataUrl. EXPIRED on one that has ended takes its result away
PUT /latency                 ``ms``, or ``minMs, maxMs, seed?``
POST /faults                 a rule, see `Fault`, in camelCase: ``answer`` (status, drop, throttled, garbage,
                             normal), ``apply`` (never, first, later), ``status, retryAfter, laterMs, holdMs,
                             operation, shop, skip, times, rate, seed``; once unless told otherwise. ``operation``
                             may also be ``upload`` or ``download``
GET /faults                  the rules in force and how often each struck
DELETE /faults[/ID]          remove all, or one
GET /late                    calls still to be executed after their client went
POST /late/apply             execute them now
GET /calls                   the call log (``?shop=&operation=&after=``), see `CallEntry`
DELETE /calls                forget it and the counters
GET /stats                   counters by operation, and how many calls were in flight at once
============================ =================================================================================
"""

from devstore.budget import Plan
from devstore.bulk import Bulk, BulkOperation, BulkSettings, BulkStatus, BulkType, CanceledResult
from devstore.calls import CallEntry
from devstore.clock import Clock, ManualClock
from devstore.faults import Fault, FaultAnswer, FaultApply, Latency
from devstore.server import DEMO_SHOP, DevStore
from devstore.shops import Shop, ShopSpec, ShopState

__all__ = [
    "DEMO_SHOP",
    "Bulk",
    "BulkOperation",
    "BulkSettings",
    "BulkStatus",
    "BulkType",
    "CallEntry",
    "CanceledResult",
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
