"""A trained run as files that need nothing of this package: functions, weights, a model card."""

import dataclasses
import json
import shutil
from pathlib import Path

import flax
import jax
import numpy as np
from jax import export

import vireid_jax
from vireid_jax.evaluation import report
from vireid_jax.interop import torch_weights
from vireid_jax.training.trained import Trained
from vireid_jax.types import Modality, UserError

PLATFORMS = ("cpu", "cuda", "tpu")
WEIGHTS, CARD = "weights.safetensors", "README.md"


def file_name(modality: Modality) -> str:
    """Of the function for one modality's images."""
    return f"{modality.name.lower()}.jax_export"


def write(trained: Trained, folder: str | Path) -> None:
    """Writes everything into a new `folder`, whole or not at all.

    It holds a function for each modality (see `embedding`), the weights with PyTorch's names (see
    `torch_weights`) and the model card.

    Raises:
      UserError: the folder exists, or the one above it does not.
    """
    folder = Path(folder)
    if folder.exists():
        raise UserError(f"{folder} exists already: remove it, or name another folder")
    if not folder.absolute().parent.is_dir():
        raise UserError(f"{folder}: there is no folder {folder.parent}")
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for modality in Modality:
        content = embedding(trained, modality).serialize()
        (partial / file_name(modality)).write_bytes(content)
    state = torch_weights.to_torch(trained.variables, torch_weights.PUBLISHED)
    torch_weights.write(partial / WEIGHTS, state)
    (partial / CARD).write_text(model_card(trained))
    partial.rename(folder)


def embedding(trained: Trained, modality: Modality) -> export.Exported:
    """The features of one modality's images, for any number of them and for `PLATFORMS`.

    Returns:
      uint8 [n, H, W, 3] -> {"f_ID": float32 [n, P F], "f_ALL": float32 [n, 2 P F]}, as
      `step.make_embed`; the weights are in it.
    """
    # What stands for convolutions on CPUs would be slow elsewhere; one file serves all.
    network = trained.network.clone(conv_general_dilated=None)
    embed = dataclasses.replace(trained, network=network).embed(modality)
    n = export.symbolic_shape("n")
    images = jax.ShapeDtypeStruct((*n, *trained.size, 3), np.uint8)
    function = jax.jit(lambda images: embed(trained.variables, images))
    return export.export(function, platforms=PLATFORMS)(images)


def model_card(trained: Trained) -> str:
    """What the files are, how they are used, what was measured, in Markdown."""
    config, (height, width) = trained.config, trained.size
    name = f"{config.name}:{config.variant}"
    parts, features = config.model.parts, config.model.features
    sizes = trained.feature_sizes
    outputs = ", ".join(f'"{key}": float32 [n, {size}]' for key, size in sizes.items())
    widest = list(sizes)[-1]
    versions = {module.__name__: module.__version__ for module in (vireid_jax, jax, flax)}
    data = config.data
    return f"""# {name}, trained on {data.dataset}

A network for visible-infrared person re-identification: it maps an image of a person, by day or by
night, to a vector, so that images of one person have similar vectors. Weights of step
{trained.step}, chosen by `config.train.selection={config.train.selection}`.

## Files

- `{file_name(Modality.VISIBLE)}`, `{file_name(Modality.INFRARED)}`: the function for images of
  that modality, weights included, for {", ".join(PLATFORMS)};
- `{WEIGHTS}`: the weights, under the tensor names of the published PyTorch network.

## Use

    pip install jax flatbuffers

```python
import jax, jax.export
content = open("{file_name(Modality.INFRARED)}", "rb").read()
embed = jax.jit(jax.export.deserialize(bytearray(content)).call)
features = embed(images)  # {{{outputs}}}
```

- Input: uint8 [n, {height}, {width}, 3], any n from 1 on. Each image is of one person, whole, RGB,
  resized by Lanczos; an infrared image repeats its one channel, one of 16 bits is stretched from
  its 1st to its 99th percentile to 0..255. Normalisation is inside.
- Output: {parts} parts of {features} numbers and length 5 each, side by side. The dot product of
  two vectors is their similarity; compare `{widest}` with `{widest}`{_averaged(trained)}.
- Each new n is compiled anew: fill a last, smaller batch up.

## Data and protocol

{_data(data)}

## Figures

{_figures(trained.results)}

## Versions

Exported with {", ".join(" ".join(pair) for pair in versions.items())}. That
version of jax and later ones read the functions; earlier ones may not. The weights do not depend on
it.

## Licence

The program that trained this is under Apache-2.0. {_licence(config)}

## Config

```json
{json.dumps(json.loads(config.to_json()), indent=2)}
```
"""


def _averaged(trained):
    return ". Each is averaged with the mirrored image's" if trained.flip_averaging else ""


def _data(data):
    tier = f", tier `{data.tier}`" if data.tier else ""
    trial = f", trial {data.trial}" if data.dataset == "regdb" or data.tier == "regdb" else ""
    return (
        f"Trained on the split `{data.train_split}` of `{data.dataset}`{tier}{trial}; evaluated on "
        f"the identities of its split `test` under the protocol `{data.protocol}`."
    )


def _figures(results):
    if results is None:
        return "Not evaluated: the run has no results.json of this step."
    lines = [f"- {remark}" for remark in report.remarks(results)]
    for protocol, measured in results["protocols"].items():
        rows = {key: own for key, own in measured.items() if key != "trials"}
        rows |= {key: own[protocol] for key, own in results["baselines"].items()}
        lines += [
            "",
            f"`{protocol}`, {measured['trials']} trials, in percent; the last rows are baselines:",
            "",
            f"| | {' | '.join(report.FIGURES)} |",
            f"|---{'|---:' * len(report.FIGURES)}|",
        ]
        for key, own in rows.items():
            cells = (report.cell(own[f], measured["trials"]) for f in report.FIGURES)
            lines.append(f"| {key} | {' | '.join(cells)} |")
    return "\n".join(lines).strip()


def _licence(config):
    files = config.model.init_from, config.model.init_pose_from, config.data.heatmap_file
    made_from = " and of ".join((config.data.dataset, *filter(None, files)))
    if made_from == "synthetic_vi":
        return "The people in the images are rendered, so the weights are under it too."
    return (
        f"The weights are made from {made_from}: the terms under which those were given govern "
        "what the weights may be used for."
    )
