"""Names of the files in a run's folder that record its settings and results."""

RECIPE, METRICS = "recipe.yaml", "metrics.json"

__all__ = ["METRICS", "RECIPE"]
