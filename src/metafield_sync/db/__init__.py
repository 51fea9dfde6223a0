"""PostgreSQL: the server we carry, the schema, and connections that act for one shop with no privilege to spare."""
