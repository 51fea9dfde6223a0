"""`demo`: the whole job on real purchases, with real parts and a local stand-in for Shopify."""
