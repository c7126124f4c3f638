"""The tasks of scripts/compare_frameworks.py in plain PyTorch: `check` and `round` of each.

`check` returns arrays by "stage/name" and the amounts of a round, see `Work.amounts`.
"""

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from augment import normalise
from network import Network
from pose_teacher import PoseTeacher
from ranking import loop
from smooth import replace_gates
from training import Trainer
from transforms import transform

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
WRITING = nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d


class Work:
    """A task on a device: `check`, and rounds of the work to be timed."""

    def __init__(self, task, weights, inputs):
        self.task, self.inputs = task, inputs
        self.device = torch.device(task["device"])
        self.dtype = torch.float64 if task["dtype"] == "float64" else torch.float32
        self.network = self.build(weights)

    def prepared(self, network, weights):
        """The network with its weights, on the device."""
        network.load_state_dict(weights)
        return network.to(self.device, self.dtype, memory_format=torch.channels_last)

    def on_host(self, array):
        """A tensor of an array, pinned where a GPU is to read it."""
        tensor = torch.from_numpy(array)
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def autocast(self):
        """bfloat16 where the task wants it."""
        enabled = self.task["dtype"] == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def counted(self, function):
        """What `function` returns, its operations, and the numbers that its layers write."""
        written = 0

        def count(module, args, output):
            nonlocal written
            written += output.numel()

        layers = [module for module in self.network.modules() if isinstance(module, WRITING)]
        hooks = [layer.register_forward_hook(count) for layer in layers]
        with FlopCounterMode(display=False) as counter:
            result = function()
        for hook in hooks:
            hook.remove()
        return result, counter.get_total_flops(), written

    def amounts(self, operations, activations, parameters):
        """Of a round: operations, and the numbers read or written.

        Args:
          operations: of a round.
          activations: the same, of what layers write.
          parameters: how often all of them are.
        """
        count = sum(x.numel() for x in self.network.parameters())
        return {
            "operations": operations,
            "activations": activations,
            "parameters": parameters * count,
        }


class Train(Work):
    """Training steps."""

    def build(self, weights):
        task = self.task
        network = Network(task["config"]["model"], task["ids"])
        if task.get("smooth"):
            replace_gates(network)
        network = self.prepared(network, weights).train()
        self.trainer = Trainer(network, task["config"], task["dtype"], self.device, task["compile"])
        self.batch = {name: self.on_host(x) for name, x in self.inputs.items()}
        return network

    def check(self):
        """Losses of two steps, gradients of the first, parameters and statistics after both."""
        terms, operations, written = self.counted(lambda: self.trainer.step(self.batch))
        found = {f"losses/{name}": x.detach() for name, x in terms.items()}
        for name, x in self.network.named_parameters():
            found[f"gradients/{name}"] = x.grad.clone()
        terms = self.trainer.step(self.batch)
        found |= {f"second losses/{name}": x.detach() for name, x in terms.items()}
        trained = dict(self.network.named_parameters())
        for name, x in self.network.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                found[f"{'parameters' if name in trained else 'statistics'}/{name}"] = x
        # An activation is written, read by the next layer and by the backward pass, and its
        # gradient read; a parameter read twice and written, its gradient and momentum both.
        steps = self.task["steps"]
        return found, self.amounts(steps * operations, 4 * steps * written, 7 * steps)

    def round(self):
        """Some steps; nothing is fetched before the last one's loss."""
        for _ in range(self.task["steps"]):
            terms = self.trainer.step(self.batch)
        return terms["loss"].item()


class Inference(Work):
    """A network over batches of uint8 images, results on the host."""

    def compiled(self, function):
        """`function` with what PyTorch has for inference."""
        if not self.task["compile"]:
            return function
        return torch.compile(function, options={"freezing": True})

    @torch.inference_mode()
    def run(self, function, images):
        """{name: results of all batches side by side}; nothing is fetched before the last."""
        found = []
        for batch in images.split(self.task["batch"]):
            with self.autocast():
                found.append(function(batch.to(self.device, non_blocking=True)))
        return {name: torch.cat([x[name] for x in found]).cpu() for name in found[0]}

    def one_batch(self, function):
        """The results of one batch, for `check`."""
        return self.run(function, self.images[: self.task["batch"]])

    def counted_batch(self, function):
        """The same, and the amounts of a round."""
        found, operations, written = self.counted(lambda: self.one_batch(function))
        batches = len(self.images) // self.task["batch"]
        return found, self.amounts(batches * operations, 2 * batches * written, batches)


class Embed(Inference):
    """Features f_ID and f_ALL of visible images; in `check` of infrared ones too."""

    def build(self, weights):
        network = Network(self.task["config"]["model"], self.task["ids"])
        network, grey = (
            self.prepared(network, weights).eval(),
            self.task["config"]["augment"]["grey"],
        )
        self.visible, self.infrared = (
            lambda x: network.embed(normalise(x, self.dtype, grey), None),
            lambda x: network.embed(None, normalise(x, self.dtype, grey)),
        )
        self.function = self.compiled(self.visible)
        self.images = self.on_host(self.inputs["images"])
        return network

    def check(self):
        visible, amounts = self.counted_batch(self.visible)
        infrared = self.one_batch(self.infrared)
        found = {f"outputs/{name}, visible": x for name, x in visible.items()}
        found |= {f"outputs/{name}, infrared": x for name, x in infrared.items()}
        return found, amounts

    def round(self):
        return self.run(self.function, self.images)


class Extract(Inference):
    """Heatmaps of the last stage of the pose teacher."""

    def build(self, weights):
        network = PoseTeacher(self.task["stages"], self.task["width"])
        network = self.prepared(network, weights).eval()

        def maps(x):
            x = (x.flip(-1).to(self.dtype) - 128) / 256  # BGR
            return {"maps": network(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)}

        self.maps, self.function = maps, self.compiled(maps)
        self.images = self.on_host(self.inputs["images"])
        return network

    def check(self):
        found, amounts = self.counted_batch(self.maps)
        return {f"outputs/{name}": x for name, x in found.items()}, amounts

    def round(self):
        return self.run(self.function, self.images)


class Host:
    """Work for the host alone."""

    def __init__(self, task, weights, inputs):
        self.task, self.inputs = task, inputs


class Evaluate(Host):
    """Rankings of all trials."""

    def __init__(self, task, weights, inputs):
        super().__init__(task, weights, inputs)
        query = inputs["query_pid"], inputs["query_camid"]
        self.trials = [
            (
                inputs["similarity"].take(rows, axis=1),
                *query,
                inputs["gallery_pid"][rows],
                inputs["gallery_camid"][rows],
            )
            for rows in (trial[trial >= 0] for trial in inputs["galleries"])
        ]

    def check(self):
        found = {}
        for i, results in enumerate(self.round()):
            for name, x in zip(("ap", "inp", "cmc"), results, strict=True):
                found[f"outputs/{name} {i}"] = x
        return found, {}

    def round(self):
        return [loop(*trial, self.task["excluded"], "identities") for trial in self.trials]


class Data(Host):
    """Batches of transformed images."""

    def batch(self, rows, **options):
        rng = np.random.default_rng(0)
        images = self.inputs["images"]
        return np.stack([transform(images[row], rng, **options) for row in rows])

    def check(self):
        plain = self.batch(self.inputs["rows"][0], pad=0, flip=0, erase=0)
        return {"outputs/images": plain.transpose(0, 2, 3, 1)}, {}

    def round(self):
        for rows in self.inputs["rows"]:
            self.batch(rows, pad=10, flip=0.5, erase=0.5)


class Product:
    """Products of square matrices."""

    def __init__(self, task, weights, inputs):
        self.repeats = task["repeats"]
        x = torch.from_numpy(inputs["x"])
        self.x = x.to(task["device"], DTYPES[task["dtype"]])

    def round(self):
        for _ in range(self.repeats):
            y = self.x @ self.x
        return y[0, 0].item()


class Copy(Product):
    """Sums of an array and a number, which read and write all of it."""

    def round(self):
        for _ in range(self.repeats):
            y = self.x + 1
        return y[0, 0].item()


TASKS = {
    "train": Train,
    "embed": Embed,
    "extract": Extract,
    "evaluate": Evaluate,
    "data": Data,
    "product": Product,
    "copy": Copy,
}
