"""Trains and evaluates: python main.py --config=configs/synthetic.py --workdir=runs/synthetic."""

from absl import flags
from ml_collections import config_flags

from vireid_jax import command_line

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "File of the configuration; FILE:VARIANT chooses a row of Table IV."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; an interrupted run continues.")
MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "evaluate: the last checkpoint.")


def main():
    """Runs the mode."""
    from vireid_jax.training import train  # late: rendering starts this file in many processes

    modes = {"train": train.train, "evaluate": train.evaluate}
    modes[MODE.value](CONFIG.value, WORKDIR.value)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    command_line.run(main)
