"""All that a run changes while it trains."""

from typing import Any

from flax import struct


@struct.dataclass
class TrainState:
    """A run's position.

    Attributes:
      step: int32 scalar, updates done.
      params: the network's parameters.
      batch_stats: BatchNorm's running statistics.
      opt_state: of the optimiser.
    """

    step: Any
    params: Any
    batch_stats: Any
    opt_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        """What the network is applied with."""
        return {"params": self.params, "batch_stats": self.batch_stats}
