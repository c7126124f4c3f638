"""Trains and evaluates: python main.py --config=configs/synthetic.py --workdir=runs/synthetic."""

import sys

from absl import app, flags, logging
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "File of the configuration; FILE:VARIANT chooses a row of Table IV."
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; an interrupted run continues.")
MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "evaluate: the last checkpoint.")


def main(_):
    """Runs the mode; a mistake of the user's ends with one message and exit status 2."""
    logging.set_verbosity(logging.WARNING)
    from vireid_jax.training import train
    from vireid_jax.types import UserError

    try:
        getattr(train, MODE.value)(CONFIG.value, WORKDIR.value)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
