"""Fields that name the feature maps of a backbone, as `AutoBackbone` of transformers reads them."""

from typing import Any

from transformers.backbone_utils import BackboneConfigMixin


class BackboneStages(BackboneConfigMixin):
    """Mixin of configurations whose stages are the embeddings ("stem", 0) and the layers ("stage1", 1, and so on).

    `out_features` and `out_indices` are two ways to name the feature maps; setting one sets the other. Where neither
    is set, the map is that of the last layer, whatever the number of layers is, and `to_dict` names none.
    """

    num_hidden_layers: int
    _out_features: list[str] | None
    _out_indices: list[int] | None

    @property
    def stage_names(self) -> list[str]:
        """Names of the embeddings and the layers, in order."""
        return ["stem", *(f"stage{layer}" for layer in range(1, self.num_hidden_layers + 1))]

    @property
    def out_indices(self) -> list[int]:
        """Indices of the feature maps in `stage_names`, ascending."""
        return [self.num_hidden_layers] if self._out_indices is None else list(self._out_indices)

    @out_indices.setter
    def out_indices(self, out_indices: list[int] | tuple[int, ...] | None) -> None:
        self.set_output_features_output_indices(None, out_indices)

    @property
    def out_features(self) -> list[str]:
        """Names of the feature maps, in the order of `stage_names`."""
        return [self.stage_names[index] for index in self.out_indices]

    @out_features.setter
    def out_features(self, out_features: list[str] | tuple[str, ...] | None) -> None:
        self.set_output_features_output_indices(out_features, None)

    def set_output_features_output_indices(self, out_features: Any, out_indices: Any) -> None:
        """Sets the feature maps by name, by index, or by both.

        Args:
            out_features: Names of stages; None if they are given by index, or to reset them.
            out_indices: Indices of stages; negative ones count from the end. None if they are given by name.

        Raises:
            ValueError: A stage does not exist, comes twice or out of order, or names and indices differ.
        """
        if out_features is None and out_indices is None:
            self._out_features = self._out_indices = None
            return
        names = self.stage_names
        by_name = _positions("out_features", out_features, {name: place for place, name in enumerate(names)})
        places = {place: place % len(names) for place in range(-len(names), len(names))}
        by_index = _positions("out_indices", out_indices, places)
        if by_name is not None and by_index is not None and by_name != by_index:
            raise ValueError(
                f"`out_features` {out_features!r} and `out_indices` {out_indices!r} must name the same stages"
            )
        positions = by_index or by_name or []
        self._out_features, self._out_indices = [names[position] for position in positions], positions

    def verify_out_features_out_indices(self) -> None:
        """Raises a `ValueError` if a feature map is not that of a stage."""
        self.set_output_features_output_indices(self._out_features, self._out_indices)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain data; feature maps are in it where they were set."""
        found: dict[str, Any] = super().to_dict()
        return {name: value for name, value in found.items() if name not in ("out_features", "out_indices") or value}


def _positions(field: str, given: Any, known: dict[Any, int]) -> list[int] | None:
    """Positions of the stages that a field names, None where it is None.

    Args:
        field: Name of the field, for messages.
        given: Value of the field.
        known: Position of each stage by what the field may call it.
    """
    if given is None:
        return None
    if not isinstance(given, (list, tuple)) or not given:
        raise ValueError(f"`{field}` must be a list of at least one stage, got {given!r}")
    unknown = [stage for stage in given if isinstance(stage, bool) or not isinstance(stage, (int, str))]
    if unknown := unknown or [stage for stage in given if stage not in known]:
        first, *_, last = known
        raise ValueError(f"`{field}` must name stages from {first!r} to {last!r}, got {unknown[0]!r}")
    positions = [known[stage] for stage in given]
    if positions != sorted(set(positions)):
        raise ValueError(f"`{field}` must name stages in their order and each once, got {given!r}")
    return positions


__all__ = ["BackboneStages"]
