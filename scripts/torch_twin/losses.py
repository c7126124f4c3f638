"""The four losses in plain PyTorch; `outputs` are those of `network.Network`."""

import torch
from torch.nn import functional

TINY = 1e-12


def identity(outputs, label, heatmap, identities):
    """Cross entropy of every head, averaged over images and summed over heads."""
    logits = outputs["logits"]
    heads, rows, _ = logits.shape
    label = label.repeat(heads)
    return functional.cross_entropy(logits.flatten(0, 1), label, reduction="sum") / rows


def hetero_center(outputs, label, heatmap, identities, form, margin):
    """Hetero-center triplet loss; rows are RGB then IR, each in `identities` runs of one label."""
    features = outputs["features"]
    heads, _, width = features.shape
    centers = features.view(heads, 2 * identities, -1, width).mean(2)
    distance = (centers[:, :, None] - centers[:, None]).square().sum(-1)
    distance = distance.clamp_min(TINY).sqrt()
    positive = distance.diagonal(identities, 1, 2).repeat(1, 2)
    own = torch.eye(identities, dtype=torch.bool, device=features.device).repeat(2, 2)
    negative = distance.masked_fill(own, float("inf")).amin(2)
    hinge = (margin + positive - negative).relu().sum()
    return hinge / {"sum": 1, "mean": 2 * identities}[form]


def pose(outputs, label, heatmap, identities, form):
    """Squared error of the heatmaps, the mean over all pixels."""
    if form != "mean":
        raise ValueError(f"no form {form!r} here")
    return functional.mse_loss(outputs["heatmap"], heatmap)


def distillation(outputs, label, heatmap, identities, temperature, detach_teacher):
    """Kullback-Leibler divergence of every head from the teacher, which learns from it too."""
    teacher = outputs["teacher_logits"]
    teacher = teacher.detach() if detach_teacher else teacher
    log_t = functional.log_softmax(teacher / temperature, -1)
    log_s = functional.log_softmax(outputs["logits"] / temperature, -1)
    return (log_t.exp() * (log_t - log_s)).sum(-1).mean(1).sum() * temperature**2


TERMS = {
    "identity": identity,
    "hetero_center": hetero_center,
    "pose": pose,
    "distillation": distillation,
}


def objective(outputs, label, heatmap, identities, loss):
    """The weighted sum by a config's `loss` section, and the raw terms beside it.

    Terms of weight 0 are left out.
    """
    terms, total = {}, 0
    for name, options in loss.items():
        options = dict(options)
        if weight := options.pop("weight"):
            terms[name] = TERMS[name](outputs, label, heatmap, identities, **options)
            total = total + weight * terms[name]
    return total, terms
