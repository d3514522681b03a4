"""Choice of the fastest way to run a model on this machine, by measuring."""
