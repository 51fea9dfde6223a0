"""Each step: `NNNN_name.sql` is what happens, `NNNN_name.py` is its place in the order."""
