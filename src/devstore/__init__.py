"""A local stand-in for a Shopify development store: the demo and the tests talk to it over real HTTP."""
