"""A trained network from its run's folder alone, without the run's data."""

import dataclasses
import json
from pathlib import Path

from ml_collections import ConfigDict

from vireid_jax.data import heatmaps
from vireid_jax.models import network
from vireid_jax.training import step
from vireid_jax.training.checkpoints import Checkpoints
from vireid_jax.training.workdir import read_lines
from vireid_jax.types import Modality, UserError


@dataclasses.dataclass(frozen=True)
class Trained:
    """What `--mode=evaluate` would evaluate.

    Attributes:
      config: the run's.
      network: as the config builds it on this backend.
      variables: {"params": ..., "batch_stats": ...}, on the host.
      step: after which they were saved.
      results: the content of results.json, where it is of this step; else None.
      losses: names of what it was trained with: those that its data allowed.
    """

    config: ConfigDict
    network: network.Network
    variables: dict
    step: int
    results: dict | None
    losses: list[str]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of its images."""
        return self.config.data.height, self.config.data.width

    @property
    def flip_averaging(self) -> bool:
        """As the results were measured; without any, as the config says."""
        return (self.results or self.config.evaluation)["flip_averaging"]

    @property
    def feature_sizes(self) -> dict[str, int]:
        """Numbers of each feature, the narrowest first."""
        one = self.config.model.parts * self.config.model.features
        return {"f_ID": one, "f_ALL": 2 * one} if self.config.model.pose_branch else {"f_ID": one}

    @property
    def learned_poses(self) -> bool:
        """Whether L_pose was part of the training, as it is not without heatmaps."""
        return self.config.model.pose_branch and "pose" in self.losses

    def embed(self, modality: Modality):
        """The function of `step.make_embed`."""
        return step.make_embed(
            self.network, modality, self.flip_averaging, self.config.augment.grey
        )


def load(folder: str | Path) -> Trained:
    """The network of the run in `folder`: the best checkpoint where the run selects it, else the
    newest.

    Raises:
      UserError: no run of a re-identification network, one that needs heatmaps, or none with a
        checkpoint.
    """
    folder = Path(folder)
    file = folder / "config.json"
    if not file.is_file():
        raise UserError(f"{file} is missing: {folder} is not the folder of a run")
    config = ConfigDict(json.loads(file.read_text()))
    if config.task != "reid":
        raise UserError(f"{folder} is of a pose teacher, not of a re-identification network")
    if any(config.get("replicas", {}).values()):
        raise UserError(f"{folder} is of several runs: name one of {folder}/replica_*")
    if network.architecture(config.model).NEEDS_HEATMAPS:
        raise UserError(
            f"{folder} is of the variant {config.variant}, which looks only where it is given "
            "keypoints: without heatmaps beside its images it gives no features. --mode=evaluate "
            "has those of the run's data"
        )
    selected = config.train.selection != "last"
    place = folder / ("best" if selected else "checkpoints")
    with Checkpoints(place, read_only=True, best=selected) as checkpoints:
        saved_at, variables = checkpoints.variables()
    ids = variables["params"]["parts"]["heads"]["classifier"]["bias"].shape[-1]
    joints = max(heatmaps.channels(config.data.heatmaps), 1)
    built = network.build(config.model, ids, config.dtype, joints)
    file = folder / "results.json"
    results = json.loads(file.read_text()) if file.is_file() else None
    if results:
        losses = results["losses"]
    elif logged := read_lines(folder / "metrics.jsonl"):
        losses = [name for name in logged[-1] if name in config.loss]
    else:
        losses = [name for name, options in config.loss.items() if options.weight]
    if results and results["step"] != saved_at:
        results = None
    return Trained(config, built, variables, saved_at, results, losses)
