"""Augmentation on the device, a batch at a time, in plain PyTorch."""

import math

import torch
from torch.nn import functional

MEAN = 0.485, 0.456, 0.406
STD = 0.229, 0.224, 0.225
STRIDE = 4  # of the heatmaps
ERASED_AREA = 0.02, 0.33
ERASED_ASPECT = 0.3, 3.3
ATTEMPTS = 10
KNOTS = 6


def normalise(images, dtype=torch.float32, grey=False):
    """uint8 [B, H, W, 3] -> [B, 3, H, W] in channels-last memory."""
    images = images.to(dtype)
    if grey:
        images = images.mean(-1, keepdim=True).expand_as(images)
    mean, std = (torch.tensor(x, device=images.device).to(dtype) for x in (MEAN, STD))
    return ((images / 255 - mean) / std).permute(0, 3, 1, 2)


def augment(images, heatmaps, options, dtype=torch.float32):
    """uint8 images [B, H, W, 3], heatmaps [B, h, w, 1] -> float [B, 3, H, W], [B, 1, h, w]."""
    rows, device, pad = len(images), images.device, options["crop_pad"]
    place = torch.randint(0, 2 * pad + 1, (2, rows), device=device)
    mirror = torch.rand(rows, device=device) < options["flip"]
    heatmaps = heatmaps.permute(0, 3, 1, 2).to(dtype) / 255
    if pad or options["flip"]:
        images = cut(images, place, mirror, pad)
        heatmaps = cut_heatmaps(heatmaps, place, mirror, pad)
    if options["remix"]:
        images = remix(images, options["remix"])
    images = normalise(images, dtype, options["grey"])
    if options["erase"]:
        images = erase(images, options["erase"])
    if options["erase_heatmaps"]:
        heatmaps = erase(heatmaps, options["erase_heatmaps"])
    return images, heatmaps


def cut(images, place, mirror, pad):
    """A window of each padded image, mirrored or not."""
    rows, height, width, _ = images.shape
    columns = torch.arange(width, device=images.device)
    columns = torch.where(mirror[:, None], width - 1 - columns, columns) + place[1][:, None]
    lines = torch.arange(height, device=images.device) + place[0][:, None]
    row = torch.arange(rows, device=images.device)[:, None, None]
    padded = functional.pad(images, (0, 0, pad, pad, pad, pad))
    return padded[row, lines[:, :, None], columns[:, None]]


def cut_heatmaps(heatmaps, place, mirror, pad):
    """The same window of the heatmaps, interpolated."""
    height, width = heatmaps.shape[2:]
    y, x = ((shift - pad).to(heatmaps.dtype) / STRIDE for shift in place)
    scale = torch.where(mirror, -1.0, 1.0).to(heatmaps.dtype)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    affine = torch.stack([scale, zero, 2 * x / width, zero, one, 2 * y / height], 1)
    grid = functional.affine_grid(affine.view(-1, 2, 3), heatmaps.shape, align_corners=False)
    return functional.grid_sample(heatmaps, grid, align_corners=False)


def remix(images, probability):
    """A random mixture of the channels through a random tone curve, at the old contrast."""
    rows, device = len(images), images.device
    images = images.float()
    grey = images.mean(-1).flatten(1)
    weights = torch.randn(rows, 3, 1, device=device)
    mixed = standardised(images.flatten(1, 2).bmm(weights)[..., 0])
    curve = torch.randn(rows, KNOTS, device=device)
    at = ((mixed.clamp(-2, 2) + 2) * ((KNOTS - 1) / 4)).clamp_max(KNOTS - 1 - 1e-4)
    left = at.long()
    low, high = curve.gather(1, left), curve.gather(1, left + 1)
    mixed = standardised(low + (high - low) * (at - left))
    mixed = mixed * grey.std(1, keepdim=True, correction=0) + grey.mean(1, keepdim=True)
    mixed = mixed.clamp(0, 255).view(*images.shape[:3], 1)
    chosen = torch.rand(rows, 1, 1, 1, device=device) < probability
    return torch.where(chosen, mixed, images)


def standardised(x):
    """Rows of mean 0 and deviation 1."""
    x = x - x.mean(1, keepdim=True)
    return x / (x.std(1, keepdim=True, correction=0) + 1e-3)


def erase(images, probability):
    """A rectangle of each, or none, becomes 0."""
    rows, _, height, width = images.shape
    device = images.device
    area = height * width * torch.empty(rows, ATTEMPTS, device=device).uniform_(*ERASED_AREA)
    low, high = map(math.log, ERASED_ASPECT)
    aspect = torch.empty(rows, ATTEMPTS, device=device).uniform_(low, high).exp()
    h, w = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    fits = (h < height) & (w < width)
    first = fits.int().argmax(1, keepdim=True)
    h, w = h.gather(1, first), w.gather(1, first)
    top = (torch.rand(rows, 1, device=device) * (height - h + 1)).floor()
    left = (torch.rand(rows, 1, device=device) * (width - w + 1)).floor()
    chosen = (torch.rand(rows, 1, device=device) < probability) & fits.any(1, keepdim=True)
    y, x = torch.arange(height, device=device), torch.arange(width, device=device)
    inside_y = (y >= top) & (y < top + h) & chosen
    inside_x = (x >= left) & (x < left + w)
    inside = inside_y[:, None, :, None] & inside_x[:, None, None]
    return images.masked_fill(inside, 0)
