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
    --app-url URL             where the app is that may be installed in the shops
    --app-config FILE         its shopify.app.toml: scopes, webhooks, app proxy
    --client-id ID, --client-secret SECRET
                              its credentials; `CLIENT_ID` and `CLIENT_SECRET` unless told otherwise

One line of JSON on standard output tells it is ready: ``{"origin", "adminOrigin", "shops"}``. SIGTERM and
SIGINT stop it with status 0; status 2 means it could not start. In a program it is `DevStore`, a context
manager::

    async with DevStore([ShopSpec("demo.myshopify.com", "TOKEN", customers=1000)]) as store:
        ...  # store.admin_origin; store.shop("demo.myshopify.com"); store.world.faults, .calls, .latency

    with DevStore() as store:  # served from a thread: talk to it over HTTP only
        ...

A shop's API is ``POST {origin}/{domain}/admin/api/{version}/graphql.json``. Without the domain in the path
the Host header names the shop, and failing that the access token does.

One app may be installed in the shops, see `App` (``DevStore(…, app=App(url=…))``). A shop that was given a token has
it from the start; another one gets it by a click on its page in the admin, ``{origin}/{domain}/admin/apps/points``,
where it then stands in a frame. ``{origin}/_devstore/app-bridge.js`` takes the place of Shopify's App Bridge, whose
address a browser test must lead there. ``POST {origin}/{domain}/admin/oauth/access_token`` gives it tokens (token
exchange, refresh, client credentials); they expire by the server's clock, and are kept in the state file. Webhooks
are signed, delivered in the background and tried again as Shopify does: see `Webhooks`, `WebhookSettings`. The
shop's own pages for shoppers begin at ``{origin}/{domain}``; below ``/apps/points/`` there is the app proxy, for
whoever is logged in at ``/account/login`` (or ``?customer=7``). In a program::

    shop.webhooks.emit("shop/update", {"id": 1})  # what is subscribed to in App.subscriptions, or by .subscribe(…)
    await shop.webhooks.settle()
    shop.flow.run("adjust-points", {"customer_id": "7", "points": "10"})  # shop.flow.runs, .triggers

A shop has orders, see `OrderBook`, which staff place, edit, refund and cancel in their pages,
``{origin}/{domain}/admin/orders``, and a program too. Each action tells the app what Shopify would::

    order = shop.orders.create(NewOrder([NewLine("19.99", 2)], customer=7, tax_rate="0.2"))
    shop.orders.refund(order.number, {order.lines[0].number: 1})
    shop.merges.request(7, 8)  # two customers become one, a moment later; shop.merges.settle()

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
POST /shops/D/customers      ``ids: [...]``, each told of by customers/create; or ``count, first?``, without a word
PATCH /shops/D/customers/N   ``email?, firstName?, lastName?, note?, tags?``; customers/update is sent
DELETE /shops/D/customers    ``ids: [...]``; their metafields go with them. Not those who have orders
POST /shops/D/customers/merge
                             ``one, two, keepEmailOf?``: a merge, done a moment later, see `MergeBook`
GET /shops/D/merges          merges, oldest first. PATCH ``delayMs, paused, successStatus``, see `MergeSettings`;
                             POST /shops/D/merges/settle does those that wait now
GET /shops/D/orders          orders by id, 250 at most, ``?customer=&after=``; GET …/orders/N is one. All answer with
                             the REST resource
POST /shops/D/orders         place one, see `NewOrder`: ``lines`` (``price, quantity?, title?, giftCard?, discount?,
                             taxRate?``), ``customerId?, paid?, shipping?, tip?, discount?, taxRate?, taxesIncluded?,
                             test?, currency?, presentmentCurrency?, presentmentRate?, createdAt?, processedAt?``
POST …/orders/N/pay          ``amount?``: all that is outstanding unless less is said
POST …/orders/N/edit         ``add?``: lines; ``quantities?``: how many there are to be, by the line's id
POST …/orders/N/refund       ``quantities?``: how many to take away, by the line's id; ``amount?`` instead of what they
                             cost, or alone as goodwill; ``shipping?, restock?, note?``
POST …/orders/N/cancel       ``reason?, refund?``: with all money back unless refund is false
POST …/orders/N/customer     ``customerId``: give it to a customer, or by null to nobody
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
GET /app                     the app, see `App`, without its secrets
PATCH /app                   ``url, clientId, clientSecret, oldClientSecret, handle, title, home, scopes, apiVersion,
                             proxyPrefix, proxySubpath, proxyPath, flowActions, sameOrganization, subscriptions``:
                             these are ``[{topic, uri, includeFields?, name?}]``, for every shop
GET /shops/D/app             ``installed, scopes, grants``: every token that was given out
POST /shops/D/app/install    ``scopes?``: those it asks for unless told otherwise
POST /shops/D/app/uninstall  its tokens are dead, ``app/uninstalled`` is sent
PUT /shops/D/app/scopes      ``scopes``: grant others, ``app/scopes_update`` is sent
POST /shops/D/app/expire     access tokens expire now; with ``refreshTokens: true`` those too
POST /shops/D/id-token       ``{"idToken"}`` for the shop's staff. A wrong one: ``claims`` (replaces some, null leaves
                             one out), ``ageS, userId, secret, algorithm`` (HS256, HS384, HS512, none)
GET /shops/D/webhooks        deliveries, oldest first, ``?topic=&after=``; see `Delivery`. DELETE forgets them
PATCH /shops/D/webhooks      how they are delivered, see `WebhookSettings`: ``paused, shuffle, delayMs, delayMaxMs,
                             dropRate, doubleRate, badSignature, oldSecret, retrySpeed, seed``; answers with all
POST …/webhooks/events       something happens: ``topic, payload, triggeredAt?``. shop/update needs no payload, nor do
                             the compliance topics: ``customerId?, orderIds?``
POST …/webhooks/retry        what failed is tried again now
POST …/webhooks/settle       wait until nothing is on its way; ``{"waiting"}`` to be tried again
GET …/webhooks/subscriptions the app's and the shop's own. POST ``topic, uri, includeFields?, name?`` makes one as the
                             API does, DELETE …/subscriptions/N removes it
GET /shops/D/flow/runs       runs of Flow actions and their outcomes
POST /shops/D/flow/runs      ``handle, properties, actionRunId?``: start one and wait for its first outcome
POST …/flow/runs/retry       send those that wait again now
GET /shops/D/flow/triggers   triggers the app fired
PUT /shops/D/flow/workflow   ``enabled``: a workflow with the app's trigger is turned on, or off, and the app told
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

from devstore.app import CLIENT_ID, CLIENT_SECRET, App, AppSubscription, subscribe
from devstore.budget import Plan
from devstore.bulk import Bulk, BulkOperation, BulkSettings, BulkStatus, BulkType, CanceledResult
from devstore.calls import CallEntry
from devstore.clock import Clock, ManualClock
from devstore.faults import Fault, FaultAnswer, FaultApply, Latency
from devstore.merges import Merge, MergeBook, MergeSettings, MergeStatus
from devstore.order_book import NewLine, NewOrder, OrderBook
from devstore.orders import FinancialStatus, Order, OrderError
from devstore.server import DEMO_SHOP, DevStore
from devstore.shops import Shop, ShopSpec, ShopState
from devstore.webhooks import Delivery, DeliveryStatus, Webhooks, WebhookSettings

__all__ = [
    "CLIENT_ID",
    "CLIENT_SECRET",
    "DEMO_SHOP",
    "App",
    "AppSubscription",
    "Bulk",
    "BulkOperation",
    "BulkSettings",
    "BulkStatus",
    "BulkType",
    "CallEntry",
    "CanceledResult",
    "Clock",
    "Delivery",
    "DeliveryStatus",
    "DevStore",
    "Fault",
    "FaultAnswer",
    "FaultApply",
    "FinancialStatus",
    "Latency",
    "ManualClock",
    "Merge",
    "MergeBook",
    "MergeSettings",
    "MergeStatus",
    "NewLine",
    "NewOrder",
    "Order",
    "OrderBook",
    "OrderError",
    "Plan",
    "Shop",
    "ShopSpec",
    "ShopState",
    "WebhookSettings",
    "Webhooks",
    "subscribe",
]
