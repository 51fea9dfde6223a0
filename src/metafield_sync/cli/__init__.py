"""The command line: `metafield-sync …`. Knows everything, and holds no rule of its own."""

from metafield_sync.cli.app import main

__all__ = ["main"]
