"""Backbones, one file each; `config.model.backbone` is its name.

A file has STAGES, the length of `blocks`, and three functions, called inside a Flax module that
then holds what they make. `width` and `blocks` are those of the config; H and W are multiples of 8:

  specific(layers, width, blocks, x): images [B, H, W, 3] -> F_m [B, H/4, W/4, .], one copy for
    each modality
  shared(layers, width, blocks, x): F_m -> F_S [B, H/8, W/8, .]
  identity(layers, width, blocks, x): F_S -> F_id2 [B, H/16, W/16, .], rounded up
"""
