"""People: customers who come, go, are merged or forgotten, and what they may ask for.

`handlers` takes the webhooks. `merges` and `redaction` carry out what concerns points, mirror and orders together;
who a customer is, `metafield_sync.customers` knows. `traces` finds what else names somebody; `data_requests` makes the
document that a merchant hands over.
"""
