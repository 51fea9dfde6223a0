"""Posting, statements and verification of points. Knows PostgreSQL only and has never heard of Shopify's API.

`posting` is the only writer of entries, `statements` reads them, `verification` holds stored balances against them.
"""
