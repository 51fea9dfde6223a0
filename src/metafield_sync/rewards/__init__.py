"""From orders and refunds to points: pure functions that know nothing of databases or networks."""
