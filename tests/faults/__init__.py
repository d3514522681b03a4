"""Injected faults and hostile inputs, with the outcome of each counted by kind: `run.py` runs them."""
