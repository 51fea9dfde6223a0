"""What the guarantees cost, measured side by side in one run. `make bench`; figures stand in docs/benchmarks.md."""
