"""`doctor`: what is wrong, and what to do. It looks and changes nothing: its transactions are read-only."""
