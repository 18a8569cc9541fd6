"""Ray Train's trainer without the processes that a run has no use for: each imports Ray again, for seconds of the start."""

from typing import Any

from ray.train.torch import TorchTrainer

_UNUSED = frozenset(
    {
        "DatasetsCallback",  # deals shards of datasets that are given to the trainer: raykd's workers read their own steps
        "PlacementGroupCleanerCallback",  # removes the bundles of a driver that died: `shell` does, at the next start
    }
)


class LeanTrainer(TorchTrainer):
    """A `TorchTrainer` without the callbacks above, whose names are Ray Train's own: one that it renames is back."""

    def _create_default_callbacks(self) -> list[Any]:
        return [callback for callback in super()._create_default_callbacks() if type(callback).__name__ not in _UNUSED]  # type: ignore[misc]
