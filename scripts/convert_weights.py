"""Converts weights to a file that needs no PyTorch to read, or a run of ours to PyTorch's names.

$ python scripts/convert_weights.py SOURCE OUTPUT

SOURCE is a file (.pth, .t, .safetensors, .npz: a torchvision ResNet, a published VI-ReID
checkpoint, a GCCPM pose checkpoint) or the folder of a run, of which the checkpoint counts that
--mode=evaluate takes. OUTPUT ends in .safetensors or .npz and holds a state dict with the PyTorch
network's names; `--config.model.init_from=OUTPUT` starts a run from it.
"""

from pathlib import Path

from tqdm import tqdm

from vireid_jax import command_line
from vireid_jax.interop import torch_weights
from vireid_jax.training import trained


def main(source: str, output: str) -> None:
    """Reads, recognises, writes."""
    if Path(source).is_dir():
        variables = trained.load(source).variables
        layout = torch_weights.PUBLISHED
        state = torch_weights.to_torch(variables, layout)
    else:
        state = torch_weights.read(source)
        layout = torch_weights.detect(state)
    torch_weights.write(output, state)
    numbers = sum(x.size for x in state.values())
    tqdm.write(f"{output}: {layout.title}, {len(state)} tensors, {numbers:,} numbers")


if __name__ == "__main__":
    command_line.run(main)
