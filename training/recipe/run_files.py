"""Names of the files in a run's folder that record its settings and results."""

RECIPE, METRICS = "recipe.yaml", "metrics.json"
DRY_RUN_PICTURE = "dry_run.png"  # left by a dry run before the run begins

__all__ = ["DRY_RUN_PICTURE", "METRICS", "RECIPE"]
