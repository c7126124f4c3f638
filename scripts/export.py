"""Exports a run: embedding functions that need JAX only, weights, a model card.

$ python scripts/export.py RUN OUTPUT

RUN is the folder of a run, of which the checkpoint counts that --mode=evaluate takes. OUTPUT is a
new folder; its README.md, the model card, says what is in it and how to use it.
"""

from pathlib import Path

from tqdm import tqdm

from vireid_jax import command_line
from vireid_jax.training import export, trained


def main(run: str, output: str) -> None:
    """Loads, writes, says what was written."""
    export.write(trained.load(run), output)
    for file in sorted(Path(output).iterdir()):
        tqdm.write(f"{file}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    command_line.run(main)
