"""Webhooks: recorded as they come, handled later, each once, in whatever order they came."""
