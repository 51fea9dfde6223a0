"""Keeps one Shopify customer metafield equal to a points ledger in PostgreSQL."""

from importlib.metadata import version

__version__ = version("metafield-sync")
