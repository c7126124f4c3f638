"""Trains and evaluates: python main.py --config=configs/synthetic.py --workdir=runs/synthetic."""

import contextlib

from absl import flags
from ml_collections import config_flags

from vireid_jax import command_line

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "File of the configuration; FILE:VARIANT one of configs/variants.py."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; an interrupted run continues.")
ALLOW = flags.DEFINE_bool(
    "allow_config_change", False, "Continue a run with a config that differs from its own."
)
DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes of a run, as the cluster or JAX_* name them."
)
MODE = flags.DEFINE_enum(
    "mode", "train", ["train", "evaluate"], "evaluate: what the run selects, the last by default."
)


def main():
    """Runs the mode."""
    with contextlib.ExitStack() as together:
        if DISTRIBUTED.value:
            from vireid_jax.training import devices

            together.enter_context(devices.connected())
        from vireid_jax.training import train  # late: rendering starts this file in many processes

        modes = {"train": train.train, "evaluate": train.evaluate}
        modes[MODE.value](CONFIG.value, WORKDIR.value, ALLOW.value)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    command_line.run(main)
