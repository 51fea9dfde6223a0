"""`python -m metafield_sync`: the same as the command `metafield-sync`."""

import sys

from metafield_sync.cli import main

if __name__ == "__main__":
    sys.exit(main())
