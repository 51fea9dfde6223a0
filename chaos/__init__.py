"""The proof of invariant 6: whatever happens on the way, every live customer's metafield ends up equal to the ledger.

`make chaos` posts points through the real HTTP API while everything between the ledger and Shopify goes wrong at once:
the devstore fails in every way it can, somebody else overwrites and removes metafields and deletes customers, workers
are killed and frozen beyond their lease, the web process is killed with postings under way. Then all of it stops and
nobody asks for a repair. At most six minutes later the ledger, the mirror and the metafields are held against a model
the harness has kept by itself: the sum of the amounts whose posting was acknowledged.

What differs then must be somebody else's last word: a metafield overwritten or removed after our last write, which
nothing told us of. For those, and for some more that are made for it, there is one reconciliation at the end. After it
nothing may differ.

What the seed decides, and what it does not: it decides the plan (which posting when and in which manner, which faults
at which rates, which foreign writes, which process is killed or frozen when), and the plan's digest is printed, so two
runs of one seed can be seen to be the same experiment. It does not decide which call meets which fault, what a killed
process was doing, or who holds the lease: that is up to the scheduler of the machine, and differs from run to run. A
seed that failed once may pass the next time. Run it again, and run others.

What it cannot see: it judges the end, so a guarantee whose loss another one makes up for in time goes unnoticed.
Without the reading back after 10 s, 60 s and 5 min it fails, and without the adoption of calls a killed process left
behind; without digests, or without the fencing of lost leases, it passed (one hurried run each). Those are
the tests' to show.

Nothing of the product is imported but its embedded PostgreSQL: workers, web and command line are processes, the
devstore is one, and the database is read by plain SQL.
"""
