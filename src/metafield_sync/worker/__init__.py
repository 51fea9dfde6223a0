"""The worker: finds shops that have something to push, and drains them, for ever."""
