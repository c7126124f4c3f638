"""Procedural visible and infrared pedestrians with exact keypoints, in NumPy only.

Rooms: `streams` (keyed randomness), `body`, `wardrobe`, `figure` (a dressed person as cones),
`camera`, `raycast`, `paint` (materials on surfaces), `scene`, `sensor`, `render` (one image),
`tiers` (the benchmarks), `farm` (many images, many processes).
"""
