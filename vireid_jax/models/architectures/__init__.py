"""Architectures, one file each; `config.model.architecture` is its name.

A file has NEEDS_HEATMAPS, whether the network needs keypoint heatmaps beside its images, in
evaluation too, and one function, called inside `network.Network`, which then holds what it makes:

  outputs(net, layers, rgb, ir, heatmap): images [B, H, W, 3], one of the two perhaps None, and
    heatmaps [rows, h, w, J], None where they are not needed -> `Outputs`, RGB rows first

`net` has the fields of `Network`. Submodules that belong to one modality alone are named `rgb` and
`ir`: both start from the same weights.
"""
