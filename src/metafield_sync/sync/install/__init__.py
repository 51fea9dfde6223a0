"""Installing a shop: its token, its customers, and what an earlier app has left on them.

`begin.install` stores the token and, for a shop that is new here, holds the mirror. `steps.take_step` then goes on from
wherever it is, however often the process is ended: Shopify reads out everybody by a bulk query, each of them becomes a
customer at 0, and what they show is kept. Nobody shows anything: the shop goes live. Somebody does: it waits for
`begin.choose`, which makes opening balances of the values, or has them overwritten.
"""
