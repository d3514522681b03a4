"""Exported files: graphs, writers, quantisation, and the checks that a file must pass before it is kept."""
