"""The training step in plain PyTorch."""

import torch

from augment import augment
from losses import objective

RULES = {
    "sgd": lambda groups, c: torch.optim.SGD(
        groups,
        momentum=c["momentum"],
        weight_decay=c["weight_decay"],
        nesterov=True,
        fused=True,
    ),
    "adamw": lambda groups, c: torch.optim.AdamW(
        groups,
        betas=(c["momentum"], c["second_momentum"]),
        weight_decay=c["weight_decay"],
        fused=True,
    ),
}


def build_optimizer(network, c):
    """By a config's `optimizer` section, at its first rate; the streams have their own factor."""
    rate, streams, others = c["learning_rate"], [], []
    for name, parameter in network.named_parameters():
        own = name.startswith(("visible_net.", "thermal_net."))
        (streams if own else others).append(parameter)
    groups = [
        {"params": others, "lr": rate},
        {"params": streams, "lr": rate * c["stem_multiplier"]},
    ]
    return RULES[c["rule"]](groups, c)


class Trainer:
    """Steps of a network on a device.

    Attributes:
      network: in training mode, channels last.
      optimizer: of its parameters.
    """

    def __init__(self, network, config, dtype, device, compiled):
        self.network = network
        self.optimizer = build_optimizer(network, config["optimizer"])
        self._device, self._dtype = device, dtype
        self._config, identities = config, config["batch"]["identities"]

        def loss(rgb, ir, label, heatmap):
            with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
                outputs = network(rgb, ir)
            return objective(outputs, label, heatmap, identities, config["loss"])

        self._loss = torch.compile(loss, disable=not compiled)
        self._augment = torch.compile(augment, disable=not compiled)

    def step(self, batch):
        """One update by uint8 arrays of the host; returns the loss and its raw terms."""
        batch = {name: x.to(self._device, non_blocking=True) for name, x in batch.items()}
        dtype = torch.float64 if self._dtype == "float64" else torch.float32
        options = self._config["augment"]
        rgb, rgb_map = self._augment(batch["rgb"], batch["rgb_heatmap"], options, dtype)
        ir, ir_map = self._augment(batch["ir"], batch["ir_heatmap"], options, dtype)
        label = torch.cat([batch["label"], batch["label"]]).long()
        total, terms = self._loss(rgb, ir, label, torch.cat([rgb_map, ir_map]))
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.optimizer.step()
        return {"loss": total, **terms}
