"""Names of the files in a run's folder that say how it came about."""

RECIPE, METRICS = "recipe.yaml", "metrics.json"

__all__ = ["METRICS", "RECIPE"]
