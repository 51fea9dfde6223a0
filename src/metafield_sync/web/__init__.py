"""The HTTP edge: who calls, what they may send, and how the answer is put. What it means is `sync`'s and below."""
