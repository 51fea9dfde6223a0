"""A whole shop at once, by bulk operation: a constant number of API points, however many customers.

Steps, each on record before the next, so that a restart at any of them goes on:

1. `lines`: stale customers become lines of up to five files, one customer a line; no drain pushes them meanwhile.
2. `values`: before a shop's first backfill, what Shopify shows now is read by a bulk query, for its digests.
3. `files`: each file is staged, uploaded, run, waited for, and its result recorded line by line.

A line without a result, and a posting made meanwhile, leave their customer stale: the drain pushes them afterwards.
Every line carries its digest, so nothing that was written in between is overwritten.
"""
