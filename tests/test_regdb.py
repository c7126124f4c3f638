"""RegDB's layout at miniature size, and every mistake that a folder can hold."""

import numpy as np
import pytest
from PIL import Image

from configs import regdb as config_file
from vireid_jax.data import images
from vireid_jax.types import Modality, UserError


@pytest.fixture
def tree(tmp_path):
    """Four identities with two images of each modality, in trials 1 and 2; a path has a space."""
    root = tmp_path / "Reg DB"
    (root / "idx").mkdir(parents=True)
    rng = np.random.default_rng(0)
    lists = {}
    for pid in range(1, 5):
        for word, letter in (("Visible", "v"), ("Thermal", "t")):
            folder = root / word / str(pid)
            folder.mkdir(parents=True)
            for number in range(2):
                file = folder / f"male_back_{letter}_{number:05}_{pid}.bmp"
                pixels = rng.integers(0, 256, (16, 8, 3) if letter == "v" else (16, 8), np.uint8)
                Image.fromarray(pixels).save(file)
                for trial in (1, 2):
                    split = "train" if (pid <= 2) == (trial == 1) else "test"
                    name = f"{split}_{word.lower()}_{trial}"
                    lists.setdefault(name, []).append(f"{file.relative_to(root)} {pid - 1}")
    for name, lines in lists.items():
        (root / "idx" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def data(tree, tmp_path):
    data = config_file.get_config().data
    data.source, data.dir = str(tree), str(tmp_path / "data")
    data.height, data.width = 16, 8
    return data


@pytest.mark.parametrize(("trial", "train"), [(1, {1, 2}), (2, {3, 4})])
def test_each_trial_has_its_own_split(data, tree, trial, train):
    data.trial = trial
    found = images.load_images(data, "train")
    assert set(found.pid) == train
    assert set(images.load_images(data, "test").pid) == {1, 2, 3, 4} - train
    np.testing.assert_array_equal(np.bincount(found.modality), [4, 4])
    np.testing.assert_array_equal(found.camid, found.modality + 1)
    assert found.heatmaps is None
    for image, path, modality in zip(found.images, found.path, found.modality, strict=True):
        assert path.startswith(("Visible", "Thermal")[modality])
        pixels = np.asarray(Image.open(tree / path).convert("RGB"))
        np.testing.assert_array_equal(image, pixels)
        assert (np.ptp(image, -1) == 0).all() == (modality == Modality.INFRARED)


def test_images_are_resized(data):
    data.height, data.width = 32, 16
    assert images.load_images(data, "train").images.shape == (8, 32, 16, 3)


def test_a_missing_source_a_wrong_trial_and_a_missing_index_are_named(data, tree):
    data.trial = 11
    with pytest.raises(UserError, match=r"config\.data\.trial=11: RegDB's trials are 1 to 10"):
        images.load_images(data, "train")
    data.trial = 3
    with pytest.raises(UserError, match=r"train_visible_3\.txt is missing"):
        images.load_images(data, "train")
    for source in ("", str(tree / "nowhere")):
        data.source = source
        with pytest.raises(UserError, match=r"give --config\.data\.source=DIR"):
            images.load_images(data, "train")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "names Visible/1/.*copy the image there"), (b"", "no readable image"),
     (b"a text file", "no readable image")],
)  # fmt: skip
def test_a_missing_or_unreadable_image_is_named_and_nothing_is_left(data, tree, content, message):
    victim = tree / "Visible" / "1" / "male_back_v_00000_1.bmp"
    pixels = victim.read_bytes()
    if content is None:
        victim.unlink()
    else:
        victim.write_bytes(content)
    with pytest.raises(UserError, match=message):
        images.load_images(data, "train")
    victim.write_bytes(pixels)
    assert len(images.load_images(data, "train")) == 8


def test_a_truncated_image_is_refused(data, tree):
    victim = tree / "Thermal" / "3" / "male_back_t_00001_3.bmp"
    victim.write_bytes(victim.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"male_back_t_00001_3\.bmp is no readable image"):
        images.load_images(data, "test")
