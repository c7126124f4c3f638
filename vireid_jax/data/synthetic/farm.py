"""Renders a whole tier with several processes, restartably: one file per identity."""

import concurrent.futures
import contextlib
import dataclasses
import io
import multiprocessing
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import tqdm
from PIL import Image

from vireid_jax.data.synthetic.render import Rendered, render
from vireid_jax.data.synthetic.tiers import Example, Tier

RENDERER_VERSION = 1
"""Raised when the images change, so that files of another renderer are never continued."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """One stored image: its key, the PNG file's bytes, keypoints float32 [16, 3]."""

    example: Example
    png: bytes
    keypoints: np.ndarray


def render_tier(
    tier: Tier,
    height: int,
    width: int,
    seed: int,
    scratch_dir: str | os.PathLike,
    processes: int | None = None,
) -> dict[str, list[pathlib.Path]]:
    """Renders what is missing of a tier, with a progress bar.

    Args:
      tier: the tier.
      height, width: of the images, pixels.
      seed: of the data set.
      scratch_dir: one file per identity is kept below it, in a folder named after all of the above;
        finished files are not rendered again. An interrupted call leaves only whole files.
      processes: number of worker processes, default one per core; 1 renders in this process.

    Returns:
      The files of each split in order of pid; `read_pictures` opens them.
    """
    folder = pathlib.Path(scratch_dir) / (
        f"{tier.name}_{height}x{width}_seed{seed}_v{RENDERER_VERSION}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        split: [folder / f"{split}_{pid:04d}.npz" for pid in tier.pids(split)]
        for split, _ in tier.splits
    }
    jobs = [
        (tier, split, pid, height, width, seed, path)
        for split, paths in files.items()
        for pid, path in zip(tier.pids(split), paths, strict=True)
    ]
    pending = [job for job in jobs if not job[-1].exists()]
    if not pending:
        return files
    with tqdm.tqdm(
        desc=f"rendering {folder.name}",
        total=len(jobs),
        initial=len(jobs) - len(pending),
        unit="id",
    ) as progress:
        for _ in _run(pending, min(processes or os.cpu_count() or 1, len(pending))):
            progress.update()
    return files


def _run(jobs, processes):
    if processes == 1:
        yield from map(_render_identity, jobs)
        return
    # Spawned rather than forked: the parent may hold threads (JAX does).
    context = multiprocessing.get_context("spawn")
    with _single_threaded_children():
        pool = concurrent.futures.ProcessPoolExecutor(processes, mp_context=context)
        try:
            futures = [pool.submit(_render_identity, job) for job in jobs]
            for future in concurrent.futures.as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextlib.contextmanager
def _single_threaded_children():
    """Children inherit these; NumPy reads them when it is imported, so not in this process."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def render_example(tier: Tier, example: Example, seed: int, height: int, width: int) -> Rendered:
    """One image of a tier with its truth; a pure function of its arguments."""
    camera = next(camera for camera in tier.cameras if camera.camid == example.camid)
    return render(
        seed,
        tier.person(example.pid),
        tier.placed(camera, example.split),
        example.number,
        height,
        width,
        occlusion=tier.occlusion,
        keypoint_noise=tier.keypoint_noise,
        keypoint_dropout=tier.keypoint_dropout,
    )


def _render_identity(job):
    tier, split, pid, height, width, seed, path = job
    examples = list(tier.examples_of(seed, split, pid))
    pngs, keypoints = [], []
    for example in examples:
        rendered = render_example(tier, example, seed, height, width)
        pngs.append(_encode(rendered.image))
        keypoints.append(rendered.keypoints)
    # A name of its own until it is whole, so that neither a kill nor a second call harms it.
    part = path.with_suffix(f".part{os.getpid()}")
    with part.open("wb") as file:
        np.savez(
            file,
            camid=[example.camid for example in examples],
            number=[example.number for example in examples],
            keypoints=np.stack(keypoints),
            size=[len(png) for png in pngs],
            png=np.frombuffer(b"".join(pngs), np.uint8),
        )
    os.replace(part, path)


def _encode(image):
    buffer = io.BytesIO()
    # Noise hardly compresses, so the fastest level costs little room.
    Image.fromarray(image).save(buffer, "png", compress_level=1)
    return buffer.getvalue()


def read_pictures(path: str | os.PathLike) -> Iterator[Picture]:
    """The images of one identity, in order of camera and number."""
    path = pathlib.Path(path)
    split, pid = path.stem.rsplit("_", 1)
    with np.load(path) as file:
        stored = {name: file[name] for name in file.files}
    ends = np.cumsum(stored["size"])
    for i, end in enumerate(ends):
        example = Example(split, int(pid), int(stored["camid"][i]), int(stored["number"][i]))
        png = stored["png"][end - stored["size"][i] : end].tobytes()
        yield Picture(example, png, stored["keypoints"][i])
