"""Names of the explanation methods, separate from the methods, which take seconds to import."""

METHOD_NAMES = (
    "attention",
    "rollout",
    "gradient_rollout",
    "relevance",
    "grad_cam",
    "hires_cam",
    "layer_cam",
    "integrated_gradients",
    "occlusion",
    "random",
)

__all__ = ["METHOD_NAMES"]
