"""PyTorch state dicts to Flax variables and back, number for number.

Three layouts: torchvision's ResNet-50, the published VI-ReID network, and its pose teacher
(GCCPM). A layout says which tensor a Flax leaf is called; values only change their axes:

  convolution          OIHW <-> HWIO
  transposed           IOHW <-> HWIO, flipped in space
  fully connected      (out, in) <-> (in, out)
  the 12 part heads    one tensor each <-> one leaf with a leading axis

State dicts here are {name: NumPy array}.
"""

import dataclasses
import importlib
import re
from pathlib import Path

import jax
import numpy as np

from vireid_jax.types import UserError

_LEAVES = {
    ("params", "kernel"): "weight",
    ("params", "scale"): "weight",
    ("params", "bias"): "bias",
    ("batch_stats", "mean"): "running_mean",
    ("batch_stats", "var"): "running_var",
}
_TRACKED = "num_batches_tracked"  # a counter beside every running variance; nothing reads it
INPUT_SIZE = "input_size"
"""Beside the tensors of a pose teacher of ours: [2], the height and width it was trained at."""
_WRAPPERS = ("net", "state_dict", "model")  # keys under which training scripts keep the state

_BOTTLENECK = (
    (r"block(\d+)/", r"\1."),
    (r"downsample_conv$", "downsample.0"),
    (r"downsample_bn$", "downsample.1"),
)
_REFINEMENT = (
    (r"u_block/(encoder\d|decoder\d)_", r"trunk.0.\1."),
    (r"refine(\d)/", r"trunk.\1."),
    (r"initial$", "initial.0"),
    (r"trunk_(\d)", r"trunk.\1"),
    (r"heatmap_(\d)", r"heatmaps.\1.0"),
)
_CONV_BLOCK = ((r"/conv$", ".0"), (r"/norm$", ".1"))


@dataclasses.dataclass(frozen=True)
class Layout:
    """How one PyTorch network names its tensors.

    Attributes:
      title: for messages.
      mark: a tensor that only this network has.
      rules: (pattern, replacement) in turn, from a Flax module path to a tensor's prefix; `{}`
        stands for the number of a tensor that is stacked.
      covers: pattern of the Flax paths that the layout has tensors for.
      stacked: pattern of those whose leaves hold several tensors, along a leading axis.
      ignored: pattern of tensors that have no counterpart.
    """

    title: str
    mark: str
    rules: tuple[tuple[str, str], ...]
    covers: str = ""
    stacked: str = "$^"
    ignored: str = "$^"

    def stacks(self, path: tuple[str, ...]) -> bool:
        """Whether the leaf at `path` (collection first) holds several tensors."""
        return bool(re.match(self.stacked, "/".join(path[1:])))

    def names(self, path: tuple[str, ...], shape: tuple[int, ...]) -> list[str]:
        """The tensors that the leaf at `path`, of `shape`, holds."""
        collection, *modules, leaf = path
        module = "/".join(modules)
        if not re.match(self.covers, module):
            return []
        for pattern, replacement in self.rules:
            module = re.sub(pattern, replacement, module)
        name = f"{module}.{_LEAVES[collection, leaf]}"
        return [name.format(i + 1) for i in range(shape[0])] if self.stacks(path) else [name]


TORCHVISION = Layout(
    "a torchvision ResNet",
    "layer1.0.conv1.weight",
    rules=(
        (r"^((rgb|ir)/)?(streams|reid)/((rgb|ir)/)?", ""),
        (r"stem/", ""),
        (r"(layer\d)/", r"\1."),
        *_BOTTLENECK,
    ),
    covers="((rgb|ir)/)?(streams|reid)/",
    ignored=r"fc\.",
)
PUBLISHED = Layout(
    "a published VI-ReID checkpoint",
    "visible_net.b1.0.weight",
    rules=(
        (r"streams/rgb/", "visible_net."),
        (r"streams/ir/", "thermal_net."),
        (r"stem/conv1", "b1.0"),
        (r"stem/bn1", "b1.1"),
        (r"layer1/", "b2."),
        (r"streams/layer2/", "shared.b1."),
        (r"reid/layer3/", "shared.b2."),
        (r"reid/layer4/", "shared.b3."),
        *_BOTTLENECK,
        (r"pose/conv1/", "shared.conv4/"),
        (r"pose/dconv2_norm", "shared.dconv4.deconv.1"),
        (r"pose/dconv2", "shared.dconv4.deconv.0"),
        (r"pose/reduce/", "shared.reduce/"),
        (r"pose/refinement/", "shared.refinement_stages.0."),
        *_REFINEMENT,
        (r"pose/conv3/", "shared.conv1/"),
        (r"pose/conv_b6_0/", "shared.conv2/"),
        (r"pose/conv_b6_1/", "shared.conv3/"),
        (r"parts/heads/fc", "feature{}.feat_block.0"),
        (r"parts/heads/norm", "feature{}.feat_block.1"),
        (r"parts/heads/classifier", "classifier{}.classifier.1"),
        (r"teacher/head/fc", "shared.t_fc.feat_block.0"),
        (r"teacher/head/norm", "shared.t_fc.feat_block.1"),
        (r"teacher/head/classifier", "shared.t_cla.classifier.1"),
        *_CONV_BLOCK,
    ),
    stacked="parts/",
    ignored=r"(vis|inf)_feature\.|(visible|infrared)_classifier_?\.",
)
GCCPM = Layout(
    "a GCCPM pose checkpoint",
    "cpm.0.0.weight",
    rules=(
        (r"^stem/", "model.0/"),
        (r"^separable(\d+)/", r"model.\1."),
        (r"depthwise_norm", "1"),
        (r"depthwise", "0"),
        (r"pointwise_norm", "4"),
        (r"pointwise", "3"),
        (r"^cpm_(\d)", r"cpm.\1"),
        (r"^initial_heatmap_(\d)", r"initial_stage.heatmaps.\1.0"),
        (r"^initial_(\d)", r"initial_stage.trunk.\1"),
        (r"^refinement_(\d+)/", r"refinement_stages.\1."),
        *_REFINEMENT,
        *_CONV_BLOCK,
    ),
    ignored=INPUT_SIZE,
)
MOBILENET = dataclasses.replace(
    GCCPM,
    title="a MobileNet-v1",
    mark="model.13.3.weight",
    covers="stem/|separable",
    ignored=r"fc\.|model\.1[23]\.",  # its last blocks, which the pose teacher leaves out
)
REFINEMENT = Layout(
    "a refinement stage", "trunk.0.encoder1.0.0.weight", rules=(*_REFINEMENT, *_CONV_BLOCK)
)
LAYOUTS = (PUBLISHED, TORCHVISION, GCCPM, MOBILENET)


def detect(state: dict[str, np.ndarray]) -> Layout:
    """The layout of a state dict.

    Raises:
      UserError: none of the known ones.
    """
    for layout in LAYOUTS:
        if layout.mark in state:
            return layout
    raise UserError(
        f"a state dict with {', '.join(list(state)[:3])}, ... is of no network known here: "
        f"{'; '.join(f'{x.title} has {x.mark}' for x in LAYOUTS)}"
    )


def to_flax(state: dict[str, np.ndarray], variables, layout: Layout):
    """`variables` with every leaf that `layout` covers replaced by its tensor's values.

    Args:
      state: the state dict.
      variables: {"params": ..., "batch_stats": ...} of arrays or `jax.ShapeDtypeStruct`s.
      layout: of `state`.

    Returns:
      The same tree in the same dtypes; what `layout` does not cover is as before.

    Raises:
      UserError: lists the tensors that are missing, unexpected, or of another shape.
    """
    missing, shapes, used = [], [], set()

    def convert(path, leaf):
        keys = _keys(path)
        names = layout.names(keys, leaf.shape)
        if not names:
            return leaf
        used.update(names)
        absent = [name for name in names if name not in state]
        missing.extend(absent)
        if absent:
            return leaf
        values = [_torch_to_flax(keys, state[name]) for name in names]
        stacked = layout.stacks(keys)
        wanted = leaf.shape[1:] if stacked else leaf.shape
        wrong = [n for n, v in zip(names, values, strict=True) if v.shape != wanted]
        shapes.extend(
            f"{name} {list(state[name].shape)} instead of {list(_torch_shape(keys, wanted))}"
            for name in wrong
        )
        if wrong:
            return leaf
        return np.asarray(np.stack(values) if stacked else values[0], leaf.dtype)

    result = jax.tree_util.tree_map_with_path(convert, variables)
    unexpected = [
        name
        for name in state
        if name not in used and not name.endswith(_TRACKED) and not re.match(layout.ignored, name)
    ]
    problems = [
        f"{kind}: {', '.join(sorted(names))}"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape", shapes),
        )
        if names
    ]
    if problems:
        raise UserError(f"{layout.title} does not fit this network; {'; '.join(problems)}")
    return result


def start_from(file: str | Path, variables, allowed: tuple[Layout, ...], key: str):
    """`variables` with what `file` holds of them.

    Args:
      file: see `read`.
      variables: as in `to_flax`.
      allowed: layouts that the file may have.
      key: of the config that names the file, for messages.

    Raises:
      UserError: a file that cannot be read, is of another layout, or does not fit.
    """
    state = read(file)
    layout = detect(state)
    if layout not in allowed:
        wanted = " or ".join(x.title for x in allowed)
        raise UserError(f"{key}={file} is {layout.title}, where {wanted} is needed")
    return to_flax(state, variables, layout)


def to_torch(variables, layout: Layout) -> dict[str, np.ndarray]:
    """The state dict of `variables`, with the names and shapes of `layout`'s PyTorch network."""
    state = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        keys, leaf = _keys(path), np.asarray(leaf)
        names = layout.names(keys, leaf.shape)
        values = leaf if layout.stacks(keys) else leaf[None]
        for name, value in zip(names, values, strict=True):
            state[name] = _flax_to_torch(keys, value)
            if name.endswith("running_var"):
                state[name.replace("running_var", _TRACKED)] = np.zeros((), np.int64)
    return state


def read(file: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a .safetensors, .npz or PyTorch file; no code in the file is run.

    Tensors may lie under a key such as `net` or `state_dict`; the prefix `module.` of
    DataParallel is taken off.

    Raises:
      UserError: no such file, or nothing that can be read safely; PyTorch is needed and absent.
    """
    file = Path(file)
    if not file.is_file():
        raise UserError(f"{file} does not exist")
    reader = {".safetensors": _read_safetensors, ".npz": _read_npz}.get(file.suffix, _read_pickle)
    try:
        state = reader(file)
    except UserError:
        raise
    except Exception as error:  # whatever a damaged file makes a reader raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"{file} cannot be read as weights: {reason}") from error
    for key in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise UserError(f"{file} holds no state dict, that is, no tensors by name")
    return {name.removeprefix("module."): _array(file, name, x) for name, x in state.items()}


def write(file: str | Path, state: dict[str, np.ndarray]) -> None:
    """Writes a state dict as .safetensors or .npz, whole or not at all.

    Raises:
      UserError: another suffix, or no such folder.
    """
    file = Path(file)
    if not file.absolute().parent.is_dir():
        raise UserError(f"{file}: there is no folder {file.parent}")
    partial = file.with_name(f"{file.stem}.partial{file.suffix}")
    if file.suffix == ".npz":
        np.savez(partial, **state)
    elif file.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file({name: np.ascontiguousarray(x) for name, x in state.items()}, partial)
    else:
        raise UserError(f"{file}: weights are written as .safetensors or .npz")
    partial.rename(file)


def _keys(path):
    return tuple(key.key for key in path)


def _is_transposed(keys):
    return keys[-2].startswith("dconv")


def _torch_to_flax(keys, x):
    if x.ndim == 4 and _is_transposed(keys):
        return x[:, :, ::-1, ::-1].transpose(2, 3, 0, 1)
    if x.ndim == 4:
        return x.transpose(2, 3, 1, 0)
    return x.T


def _flax_to_torch(keys, x):
    if x.ndim == 4 and _is_transposed(keys):
        return x[::-1, ::-1].transpose(2, 3, 0, 1)
    if x.ndim == 4:
        return x.transpose(3, 2, 0, 1)
    return x.T


def _torch_shape(keys, shape):
    return _flax_to_torch(keys, np.broadcast_to(np.float32(0), shape)).shape


def _read_safetensors(file):
    from safetensors.numpy import load_file

    return load_file(file)


def _read_npz(file):
    with np.load(file, allow_pickle=False) as archive:
        return dict(archive)


def _read_pickle(file):
    """PyTorch's own format, through its unpickler that knows tensors and plain values only."""
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise UserError(
            f"{file} is in PyTorch's format: install torch, or convert it to .safetensors where "
            "torch is installed (scripts/convert_weights.py)"
        ) from error
    # Published checkpoints keep mAP and CMC as NumPy values. Rebuilding one runs no code of the
    # file; the module names of both NumPy 1 and 2 occur.
    numpy_values = [
        (getattr(np._core.multiarray, name), f"numpy.{module}.multiarray.{name}")
        for name in ("scalar", "_reconstruct")
        for module in ("core", "_core")
    ]
    dtypes = [type(np.dtype(x)) for x in ("f4", "f8", "i4", "i8")]
    with torch.serialization.safe_globals([*numpy_values, np.ndarray, np.dtype, *dtypes]):
        return torch.load(file, map_location="cpu", weights_only=True)


def _array(file, name, x):
    if hasattr(x, "detach"):
        x = x.detach().cpu()
        x = (x.float() if x.is_floating_point() and x.element_size() < 4 else x).numpy()
    if not isinstance(x, np.ndarray) or x.dtype == object:
        raise UserError(f"{file} holds {name!r}, a {type(x).__name__}, where tensors should be")
    return x
