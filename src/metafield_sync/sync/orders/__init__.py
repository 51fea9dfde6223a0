"""Orders: what is known of each, what it is worth by its rule, and the postings that make up the difference.

`handlers` takes webhooks, `fetching` and `catch_up` ask Shopify; all three end in `applying`, which decides whether
what came is newer than what is known, and `settling`, which posts. `rules` keeps the earning rules, `earnings` is what
merging and forgetting customers need, `standing` answers "why has this order these points?".
"""
