"""The only place that knows both sides: the ledger's balances, and the metafields that show them.

`drain` pushes what is stale, under the one `lease` of its shop; `rows` is the SQL of the mirror's state;
`one_customer` and `runs` are what people ask for; `standing` says how things are.
"""
