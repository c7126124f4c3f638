"""The three tiers of the benchmark: who is seen by which camera, how often, in which split.

`easy` separates methods within minutes on a CPU; `sysu` mirrors SYSU-MM01 and `regdb` mirrors
RegDB. Different tiers show different people, so that training on one and testing on another is
clean.
"""

import dataclasses
from collections.abc import Iterator

from vireid_jax.data.synthetic.camera import CAMERAS, Camera, Facing
from vireid_jax.data.synthetic.streams import Purpose, stream


@dataclasses.dataclass(frozen=True)
class Example:
    """The key of one image.

    Attributes:
      split: name of the split.
      pid: the identity, 1 or more, in one split only.
      camid: the camera.
      number: of the image within identity and camera, 1 or more.
    """

    split: str
    pid: int
    camid: int
    number: int

    @property
    def path(self) -> str:
        """The image's place in the published layout, unique within a tier."""
        return f"cam{self.camid}/{self.pid:04d}/{self.number:04d}.png"


@dataclasses.dataclass(frozen=True)
class Tier:
    """One benchmark.

    Attributes:
      name: its name; files are named after it, so a tier with other options needs another.
      splits: (split, number of identities); pids count on from 1 through the splits.
      cameras: the cameras.
      images: number of images of each identity by each camera that saw it.
      first_person: the renderer's number of pid 1; tiers keep a distance of 10000.
      occlusion: probability of an occluder in an image.
      indoors: share of the identities that were ever seen by the indoor cameras.
      camera_dropout: probability that any other camera never saw an identity. Every identity keeps
        an infrared camera, and a visible one other than camera 2 (which camera 3 may not search).
      keypoint_noise: standard deviation added to the keypoints, as a share of the image height.
      keypoint_dropout: probability that a joint is missing from the keypoints.
      unseen_test_locations: whether the test split is shot at other places than the rest.
    """

    name: str
    splits: tuple[tuple[str, int], ...]
    cameras: tuple[Camera, ...]
    images: int
    first_person: int
    occlusion: float = 0.0
    indoors: float = 1.0
    camera_dropout: float = 0.0
    keypoint_noise: float = 0.0
    keypoint_dropout: float = 0.0
    unseen_test_locations: bool = False

    def pids(self, split: str) -> range:
        """The identities of a split."""
        first = 1
        for name, count in self.splits:
            if name == split:
                return range(first, first + count)
            first += count
        raise ValueError(f"tier {self.name} has no split {split!r}, only {dict(self.splits)}")

    def person(self, pid: int) -> int:
        """The renderer's number of an identity."""
        return self.first_person + pid - 1

    def cameras_of(self, seed: int, pid: int) -> tuple[Camera, ...]:
        """The cameras that saw an identity, in order."""
        rng = stream(seed, Purpose.CAMERAS_OF_IDENTITY, self.person(pid))
        was_indoors = rng.random() < self.indoors
        cameras = [camera for camera in self.cameras if was_indoors or camera.outdoor]
        draws = dict(zip(cameras, rng.random(len(cameras)), strict=True))
        indispensable = [
            [camera for camera in cameras if camera.modality == 1],
            [camera for camera in cameras if camera.modality == 0 and camera.camid != 2],
        ]
        kept = {max(group, key=draws.get) for group in indispensable}
        kept |= {camera for camera, draw in draws.items() if draw >= self.camera_dropout}
        return tuple(camera for camera in cameras if camera in kept)

    def placed(self, camera: Camera, split: str) -> Camera:
        """The camera as it stands for a split."""
        if self.unseen_test_locations and split == "test":
            return dataclasses.replace(camera, location=camera.location + UNSEEN)
        return camera

    def examples(self, seed: int) -> Iterator[Example]:
        """All images, in order of split, identity, camera and number."""
        for split, _ in self.splits:
            for pid in self.pids(split):
                yield from self.examples_of(seed, split, pid)

    def examples_of(self, seed: int, split: str, pid: int) -> Iterator[Example]:
        """The images of one identity."""
        for camera in self.cameras_of(seed, pid):
            for number in range(1, self.images + 1):
                yield Example(split, pid, camera.camid, number)


UNSEEN = 100  # added to the numbers of the locations


def _cameras(*camids, **changes):
    return tuple(dataclasses.replace(CAMERAS[camid], **changes) for camid in camids)


EASY = Tier(
    name="easy",
    splits=(("train", 128), ("test", 64)),
    cameras=_cameras(1, 2, 3, 6, facing=Facing.CAMERA, yaw_sd=20.0),
    images=5,
    first_person=1,
)

# In SYSU-MM01, 56 of the 96 test identities were indoors, where people come near and are seen from
# the front. This makes indoor search the easier one, as it is on the real data.
SYSU = Tier(
    name="sysu",
    splits=(("train", 296), ("val", 99), ("test", 96)),
    cameras=(
        *_cameras(1, 2, 3, facing=Facing.CAMERA, yaw_sd=45.0, native_rows=(220, 400)),
        *_cameras(4, 5, 6),
    ),
    images=8,
    first_person=10_001,
    occlusion=0.15,
    indoors=0.6,
    camera_dropout=0.1,
)

REGDB = Tier(
    name="regdb",
    splits=(("everyone", 412),),
    cameras=_cameras(7, 8, facing=Facing.BY_IDENTITY, yaw_sd=10.0),
    images=10,
    first_person=20_001,
)

TIERS = {tier.name: tier for tier in (EASY, SYSU, REGDB)}

REGDB_TRIALS = 10


def regdb_trial_ids(trial: int, seed: int = 0) -> tuple[list[int], list[int]]:
    """Training and test identities of one RegDB-like trial: two random halves of the 412.

    Each trial is its own train/test split of the same images, so that a model of one trial must be
    tested on that trial.

    Args:
      trial: 1 to 10.
      seed: of the data set.

    Returns:
      Ascending pids to train on (206) and to test on (206).
    """
    if not 1 <= trial <= REGDB_TRIALS:
        raise ValueError(f"RegDB trials are numbered 1 to {REGDB_TRIALS}, not {trial}")
    pids = REGDB.pids("everyone")
    order = stream(seed, Purpose.TRIAL, trial).permutation(pids).tolist()
    half = len(pids) // 2
    return sorted(order[:half]), sorted(order[half:])
