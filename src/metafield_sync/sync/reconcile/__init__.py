"""Reconciliation: what Shopify shows for every customer, read back and compared; repaired if asked."""
