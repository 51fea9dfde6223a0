"""Which shops there are, the API keys that speak for them, and their access tokens at rest. Knows PostgreSQL only."""
