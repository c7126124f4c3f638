"""Each data set's layout at miniature size, and every mistake that a folder can hold."""

import io
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import trees
from PIL import Image

from configs import default
from vireid_jax.data import files, heatmaps, images
from vireid_jax.data.sampler import PKSampler
from vireid_jax.types import Modality, UserError

ROOT = Path(__file__).parents[1]
TREES = {
    "regdb": trees.regdb,
    "sysu_mm01": trees.sysu,
    "llcm": trees.llcm,
    "folder": trees.folder,
}


def data_of(name, source, folder):
    data = default.get_config().data
    data.dataset, data.source, data.dir = name, str(source), str(folder)
    data.height, data.width = 16, 8
    return data


@pytest.fixture
def make(tmp_path):
    """A function (name) -> (config.data, its tree); the path has a space and an umlaut."""

    def make(name):
        root = TREES[name](tmp_path / "Bücher 1" / name)
        return data_of(name, root, tmp_path / "data"), root

    return make


def seen(image_set):
    """Images by (pid, camid, modality)."""
    keys = np.stack([image_set.pid, image_set.camid, image_set.modality], 1)
    return Counter(map(tuple, keys.tolist()))


@pytest.mark.parametrize(("trial", "train"), [(1, {1, 2}), (2, {3, 4})])
def test_regdb_has_a_split_for_each_trial(make, trial, train):
    data, root = make("regdb")
    data.trial = trial
    found = images.load_images(data, "train")
    assert set(found.pid) == train
    assert set(images.load_images(data, "test").pid) == {1, 2, 3, 4} - train
    assert seen(found) == {(p, m + 1, m): 2 for p in train for m in Modality}
    assert found.heatmaps is None
    for image, path, modality in zip(found.images, found.path, found.modality, strict=True):
        assert path.startswith(("Visible", "Thermal")[modality])
        np.testing.assert_array_equal(image, np.asarray(Image.open(root / path).convert("RGB")))
        assert (np.ptp(image, -1) == 0).all() == (modality == Modality.INFRARED)


def test_sysu_mm01(make):
    data, root = make("sysu_mm01")
    infrared = {3, 6}
    for split, pids in trees.SYSU_IDS.items():
        found = images.load_images(data, split)
        assert seen(found) == {
            (p, c, int(c in infrared)): 3 for p in pids for c in trees.SYSU_CAMERAS[p]
        }
        for path, pid, camid in zip(found.path, found.pid, found.camid, strict=True):
            assert Path(path).parent == Path(f"cam{camid}/{pid:04}")
            assert (root / path).is_file()
    data.train_split = "train+val"
    assert set(images.load_images(data, "train").pid) == {2, 3, 7}


def test_labels_with_gaps_count_from_zero_over_train_and_val(make):
    data, _ = make("sysu_mm01")
    builder = images.prepare(data)
    labels = {
        split: {int(e["pid"]): int(e["label"]) for e in builder.as_data_source(split)}
        for split in ("train", "val", "test")
    }
    assert labels == {"train": {2: 0, 7: 2}, "val": {3: 1}, "test": {1: -1, 6: -1, 9: -1}}
    data.train_split = "train+val"
    drawn, rgb, _ = PKSampler.of(images.load_images(data, "train"), 3, 2, seed=0)[0]
    pid = images.load_images(data, "train").pid[rgb]
    assert dict(zip(pid.tolist(), drawn.tolist(), strict=True)) == {2: 0, 3: 1, 7: 2}


def test_sysu_mm01_from_the_fields_caches(make):
    data, root = make("sysu_mm01")
    trained_on = trees.SYSU_IDS["train"] + trees.SYSU_IDS["val"]
    pixels = {}
    for word, modality in (("rgb", 0), ("ir", 1)):
        pixels[modality] = np.random.default_rng(modality).integers(0, 256, (5, 16, 8, 3), np.uint8)
        np.save(root / f"train_{word}_resized_img.npy", pixels[modality])
        np.save(root / f"train_{word}_resized_label.npy", np.array([2, 0, 1, 0, 2]))
    as_photographed = images.prepare(data).entries(root)
    assert not any("npy" in entry.path for entry in as_photographed["train"])
    for pid in trained_on:
        for folder in root.glob(f"cam*/{pid:04}"):
            shutil.rmtree(folder)
    data.dir += "_of_caches"
    train, val = (images.load_images(data, split) for split in ("train", "val"))
    assert Counter(train.pid.tolist()) == {2: 4, 7: 4}  # labels 0 and 2 of the pids 2, 3, 7
    assert Counter(val.pid.tolist()) == {3: 2}
    for image, path, modality in zip(train.images, train.path, train.modality, strict=True):
        np.testing.assert_array_equal(image, pixels[modality][int(path.split("#")[1])])
    builder = images.prepare(data)
    order = builder.in_cache_order(builder.entries(root))  # that of the heatmaps beside the cache
    infrared = [entry.path for entry in order if entry.modality == Modality.INFRARED]
    assert infrared == [f"train_ir_resized_img.npy#{row}" for row in range(5)]
    np.save(root / "train_ir_resized_label.npy", np.array([0, 0, 1, 2, 3]))
    with pytest.raises(UserError, match=r"labels from 0 to 3, but exp/ names 3 identities"):
        images.prepare(data).entries(root)


def test_llcm(make):
    data, _ = make("llcm")
    train, test = (images.load_images(data, split) for split in ("train", "test"))
    assert seen(train) == {
        (p, c, m): 1 for p in trees.LLCM_TRAIN for c in (3, 6, 9) for m in (0, 1)
    }
    cameras = {Modality.VISIBLE: (1, 2, 3), Modality.INFRARED: (1, 2, 4)}
    assert seen(test) == {
        (p, c, m): 2 for p in trees.LLCM_TEST for m in cameras for c in cameras[m]
    }


def test_ones_own_folder_by_a_share_by_lists_and_with_a_table_of_cameras(make):
    data, root = make("folder")
    data.test_fraction = 1 / 3
    train, test = (images.load_images(data, split) for split in ("train", "test"))
    assert len(set(train.pid)) == 4
    assert set(train.pid) | set(test.pid) == set(range(1, 7))
    assert seen(train) == {(p, c, m): n for p in set(train.pid) for c, m, n in
                           ((3, 0, 1), (4, 0, 1), (2, 1, 2))}  # fmt: skip
    data.split_seed = 1
    assert set(images.load_images(data, "test").pid) != set(test.pid)
    (root / "train_id.txt").write_text("1,2,3,4")
    (root / "test_id.txt").write_text("6")
    (root / "camid.csv").write_text("infrared/6/0.jpg,9\n")
    assert set(images.load_images(data, "train").pid) == {1, 2, 3, 4}
    assert seen(images.load_images(data, "test")) == {
        (6, 3, 0): 1, (6, 4, 0): 1, (6, 9, 1): 1, (6, 2, 1): 1
    }  # fmt: skip
    (root / "test_id.txt").write_text("6, 3")
    with pytest.raises(UserError, match="to train on and to test on: 3; they must differ"):
        images.load_images(data, "test")
    (root / "test_id.txt").write_text("6, 17")
    with pytest.raises(UserError, match="identities of the lists without an image: 17"):
        images.load_images(data, "test")
    (root / "visible" / "Ann").mkdir()
    with pytest.raises(UserError, match="visible holds 'Ann', where the number of an identity"):
        images.load_images(data, "test")


def test_images_are_resized(make):
    data, _ = make("regdb")
    data.height, data.width = 32, 16
    assert images.load_images(data, "train").images.shape == (8, 32, 16, 3)


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("RGBA", "png"), ("P", "png"), ("CMYK", "jpg"), ("1", "bmp")]
)
def test_other_pixels_become_rgb(tmp_path, mode, suffix):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8))
    image.convert(mode).save(tmp_path / f"x.{suffix}")
    stored = Image.open(files.encoded(tmp_path, f"x.{suffix}"))
    assert stored.mode == "RGB"
    wanted = Image.open(tmp_path / f"x.{suffix}").convert("RGB")
    np.testing.assert_array_equal(np.asarray(stored), np.asarray(wanted))


def test_rgb_jpegs_keep_their_bytes(tmp_path):
    trees.picture(tmp_path / "x.jpg", 0)
    assert files.encoded(tmp_path, "x.jpg").read() == (tmp_path / "x.jpg").read_bytes()


def test_sixteen_bits_are_stretched_between_percentiles(tmp_path):
    values = np.linspace(21_000, 23_000, 101 * 100).reshape(101, 100)
    values[0, 0], values[-1, -1] = 0, 65_535  # a dead and a hot pixel
    Image.fromarray(np.round(values).astype(np.uint16)).save(tmp_path / "x.png")
    pixels = np.asarray(Image.open(files.encoded(tmp_path, "x.png"))).astype(float)
    assert np.ptp(pixels, -1).max() == 0
    wanted = np.clip((values - 21_020) / (22_980 - 21_020), 0, 1) * 255
    assert abs(pixels[..., 0] - wanted).max() < 1


def test_sixteen_bits_in_three_channels_are_refused(tmp_path):
    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(2 * (b"\0" + bytes(2 * 3 * 2))))
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + rows + chunk(b"IEND", b""))
    with pytest.raises(UserError, match=r"x\.png has 16 bits in each of several channels"):
        files.encoded(tmp_path, "x.png")


def test_sixteen_bits_for_all_channels_are_converted(tmp_path):
    masks = struct.pack("<3I", 0xF800, 0x07E0, 0x001F)
    info = struct.pack("<IiiHHIIiiII", 40, 2, 2, 1, 16, 3, 8, 0, 0, 0, 0)
    head = struct.pack("<2sIHHI", b"BM", 74, 0, 0, 66)
    (tmp_path / "x.bmp").write_bytes(head + info + masks + struct.pack("<4H", *[0xF800] * 4))
    pixels = np.asarray(Image.open(files.encoded(tmp_path, "x.bmp")))
    assert pixels.tolist() == [[[255, 0, 0]] * 2] * 2


def break_file(file, how):
    content = file.read_bytes()
    broken = {"truncated": content[:-40], "empty": b"", "text": b"Not an image.\n" * 9}
    file.write_bytes(broken[how])
    return content


@pytest.mark.parametrize(
    ("how", "why"), [("truncated", ""), ("empty", "it is empty"), ("text", "")]
)
@pytest.mark.parametrize("name", TREES)
def test_an_unreadable_image_is_named_and_nothing_is_left(make, name, how, why):
    data, root = make(name)
    victim = next(f for f in sorted(root.rglob("*")) if f.suffix in (".jpg", ".bmp"))
    content = break_file(victim, how)
    with pytest.raises(UserError, match=rf"{victim.name} is no readable image \(.*{why}.*replace"):
        images.load_images(data, "train"), images.load_images(data, "test")
    victim.write_bytes(content)
    assert len(images.load_images(data, "train"))


@pytest.mark.parametrize("name", TREES)
def test_a_missing_root_is_named(make, name):
    data, root = make(name)
    for source in ("", str(root / "nowhere")):
        data.source = source
        with pytest.raises(UserError, match=r"config\.data\.source='.*' is no folder: give"):
            images.load_images(data, "train")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("regdb", "idx/train_visible_1.txt"),
        ("sysu_mm01", "exp/val_id.txt"),
        ("llcm", "idx/test_id.txt"),
        ("llcm", "idx/train_nir.txt"),
    ],
)
def test_a_missing_or_malformed_index_is_named(make, name, file):
    data, root = make(name)
    good = (root / file).read_text()
    (root / file).write_text("no,number\n" if "_id" in file else "one_word\n")
    with pytest.raises(UserError, match=rf"{file}.*('no', where|line 1: 'one_word' is not)"):
        images.load_images(data, "train")
    (root / file).unlink()
    with pytest.raises(UserError, match=rf"{file} is missing"):
        images.load_images(data, "train")
    (root / file).write_text(good)
    assert len(images.load_images(data, "train"))


@pytest.mark.parametrize("name", ["regdb", "llcm"])
def test_an_index_that_names_missing_images(make, name):
    data, root = make(name)
    index = next(root.glob("idx/train_[vi]*.txt"))
    lost = [line.rpartition(" ")[0] for line in index.read_text().splitlines()[:2]]
    for path in lost:
        (root / path).unlink()
    with pytest.raises(
        UserError, match=rf"{index.name} names {lost[0]} and 1 more.*copy the image"
    ):
        images.load_images(data, "train")


def test_an_empty_split_is_named(make):
    data, root = make("sysu_mm01")
    (root / "exp" / "test_id.txt").write_text("332\n")
    with pytest.raises(
        UserError, match=r"no image for the split 'test' of sysu_mm01: it needs cam1/ to cam6/"
    ):
        images.load_images(data, "train")


def test_an_unknown_trial_is_refused(make):
    data, _ = make("regdb")
    data.trial = 11
    with pytest.raises(UserError, match=r"config\.data\.trial=11: RegDB's trials are 1 to 10"):
        images.load_images(data, "train")


def test_an_identity_with_one_image_shows_it_often_and_one_modality_is_refused(make):
    data, root = make("folder")
    data.test_fraction = 1 / 6
    extra = next(p for p in set(images.load_images(data, "train").pid.tolist()))
    second = sorted((root / "visible" / str(extra)).iterdir())[1]
    second.unlink()
    found = images.load_images(data, "train")
    assert seen(found)[extra, 3, 0] == 1
    _, rgb, _ = PKSampler.of(found, 5, 4, seed=0)[0]
    assert Counter(found.pid[rgb].tolist())[extra] == 4
    shutil.rmtree(root / "infrared" / str(extra))
    with pytest.raises(UserError, match=rf"train without an infrared image: {extra}; add one"):
        images.load_images(data, "train")


def test_a_folder_that_cannot_be_written_is_named(make, tmp_path):
    data, _ = make("regdb")
    (tmp_path / "file").write_text("")
    data.dir = str(tmp_path / "file" / "data")
    with pytest.raises(UserError, match=r"config\.data\.dir=.* cannot be written .*choose another"):
        images.load_images(data, "train")
    if os.geteuid():  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        data.dir = str(tmp_path / "locked" / "data")
        with pytest.raises(UserError, match=r"config\.data\.dir=.* cannot be written"):
            images.load_images(data, "train")


FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.argv[1:] = sys.argv[2:]
sys.path[:0] = ["scripts", "."]
import runpy
runpy.run_path("scripts/prepare_data.py", run_name="__main__")
"""


def prepare(*options, limit=None):
    script = ["-c", FULL_DISK, str(limit)] if limit else ["scripts/prepare_data.py"]
    command = [sys.executable, *script, *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_full_disk_leaves_nothing_that_is_taken_for_data(make):
    data, root = make("regdb")
    options = "--dataset=regdb", f"--source={root}", f"--dir={data.dir}"
    full = prepare(*options, limit=2000)
    assert full.returncode == 2, full.stderr
    assert "cannot be written" in full.stderr
    assert "free space" in full.stderr
    assert prepare(*options).returncode == 0
    assert len(images.load_images(data, "train")) == 8


LOAD = """
from configs import default
from vireid_jax import command_line
from vireid_jax.data import images

def main(source, folder):
    data = default.get_config().data
    data.dataset, data.source, data.dir = "regdb", source, folder
    images.load_images(data, "train")
command_line.run(main)
"""


def test_a_full_disk_while_decoding_leaves_nothing_either(make):
    data, root = make("regdb")
    script = FULL_DISK.split("import runpy")[0] + LOAD  # 8 images of 124 kB
    command = [sys.executable, "-c", script, "500000", str(root), data.dir]
    full = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert full.returncode == 2, full.stderr
    assert "cannot be written" in full.stderr
    data.height, data.width = 288, 144
    assert images.load_images(data, "train").images.any((1, 2, 3)).all()


def test_data_prepared_from_other_images_are_not_taken_for_these(make, tmp_path):
    data, root = make("regdb")
    images.prepare(data)
    shutil.copytree(root, tmp_path / "moved")
    data.source = str(tmp_path / "moved")
    images.prepare(data)
    data.source = str(trees.regdb(tmp_path / "another", ids=6))
    with pytest.raises(UserError, match=r"was prepared from other images .* remove that folder"):
        images.prepare(data)
    data.source = ""
    images.prepare(data)


@pytest.mark.parametrize("name", ["regdb", "llcm"])
def test_images_listed_twice_are_named(make, name):
    data, root = make(name)
    index = next(root.glob("idx/train_[vi]*.txt"))
    line = index.read_text().splitlines()[0]
    index.write_text(index.read_text() + line + "\n")
    with pytest.raises(UserError, match=rf"train lists {line.rpartition(' ')[0]} more than once"):
        images.load_images(data, "train")


def test_prepared_data_can_be_read_only(make):
    data, _ = make("regdb")
    found = images.load_images(data, "train")
    (Path(data.dir) / "lock").unlink()
    assert images.load_images(data, "train").fingerprint == found.fingerprint
    assert not (Path(data.dir) / "lock").exists()  # nothing was written


@pytest.mark.parametrize("name", TREES)
def test_check_only_of_a_sound_folder(make, name):
    data, root = make(name)
    done = prepare(f"--dataset={name}", f"--source={root}", f"--dir={data.dir}", "--check_only")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not Path(data.dir).exists() or not list(Path(data.dir).rglob("*array_record*"))
    counts = [line.split()[:5] for line in done.stdout.splitlines() if " all " in line]
    found = {split: images.load_images(data, split) for split in ("train", "test")}
    for split, own in found.items():
        for modality in Modality:
            rows = own.modality == modality
            wanted = [split, modality.name.lower(), "all", len(set(own.pid[rows])), rows.sum()]
            assert [str(w) for w in wanted] in counts


def test_check_only_names_everything_that_is_wrong(make):
    data, root = make("folder")
    victims = [root / "visible" / "1" / "1_c3_0.png", root / "infrared" / "2" / "1.bmp"]
    for victim, how in zip(victims, ("empty", "truncated"), strict=True):
        break_file(victim, how)
    (root / "train_id.txt").write_text("1,2,3")
    (root / "test_id.txt").write_text("4,5,6")
    shutil.rmtree(root / "infrared" / "3")
    done = prepare("--dataset=folder", f"--source={root}", f"--dir={data.dir}", "--check_only")
    assert done.returncode == 2
    for victim in victims:
        assert f"wrong: {victim} is no readable image" in done.stdout
    assert "wrong: identities of train without an infrared image: 3; add one" in done.stdout
    assert "note: 3 identities of train have fewer than K = 4 images" in done.stdout
    assert done.stderr.splitlines()[-1] == f"3 things to put right in {root}"
    shutil.rmtree(root / "infrared")
    done = prepare("--dataset=folder", f"--source={root}", f"--dir={data.dir}", "--check_only")
    assert done.returncode == 2
    assert f"{root / 'infrared'} is missing" in done.stderr


def test_missing_cameras_and_other_counts_are_noted(make):
    data, root = make("sysu_mm01")
    shutil.rmtree(root / "cam6")
    done = prepare("--dataset=sysu_mm01", f"--source={root}", f"--dir={data.dir}", "--check_only")
    assert "note: train has no infrared image of the cameras 6" in done.stdout
    assert "note: test has 3 identities, the published set 96" in done.stdout
    assert "note: train has 18 visible images, the published set 20284" in done.stdout


def published_maps(root, name, builder, size, dtype):
    """Merged heatmaps as the published code keeps them, and each by its image's path."""
    entries, maps = builder.in_cache_order(builder.entries(root)), {}
    rng = np.random.default_rng(0)
    for modality, word in zip(Modality, ("rgb", "ir"), strict=True):
        own = [e.path for e in entries if e.modality == modality]
        values = rng.random((len(own), *size))
        stored = (
            values.astype(dtype) if dtype == np.float32 else np.round(255 * values).astype(dtype)
        )
        trial = "_trial1" if name == "regdb" else ""
        np.save(root / f"train_{word}{trial}_merged_heatmap.npy", stored)
        maps |= dict(zip(own, values, strict=True))
    return maps


@pytest.mark.parametrize(
    ("name", "size", "dtype"),
    [("regdb", (4, 2), np.uint8), ("sysu_mm01", (16, 8), np.float32)],
)
def test_published_heatmaps_are_converted_and_stand_beside_their_images(make, name, size, dtype):
    data, root = make(name)
    data.train_split = "train+val" if name == "sysu_mm01" else "train"
    maps = published_maps(root, name, images.prepare(data), size, dtype)
    done = prepare(f"--dataset={name}", f"--source={root}", f"--dir={data.dir}",
                   f"--heatmaps={root}", "--height=16", "--width=8")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    data.heatmap_file = done.stdout.split("--config.data.heatmap_file=")[1].strip()
    found = images.load_images(data, "train")
    block = size[0] // 4
    for path, own in zip(found.path, found.heatmaps, strict=True):
        wanted = maps[path].reshape(4, block, 2, block).mean((1, 3))
        assert abs(own[..., 0] / 255 - wanted).max() < 1.01 / 255
    with np.load(data.heatmap_file) as archive:
        assert "merged_heatmap.npy" in str(archive["made_by"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda maps: maps[:-1], r"holds \d+ maps of \(4, 2\), but the data set has \d+ images"),
        (lambda maps: maps[:, :3], r"needs maps of \(4, 2\) or \(16, 8\)"),
        (
            lambda maps: np.where(maps > 0.9, np.nan, maps),
            "map 0 has values that are not from 0 to 1",
        ),
        (lambda maps: 2 * maps, "has values that are not from 0 to 1"),
        (lambda maps: maps > 0.5, "holds bool, where bytes or fractions should be"),
        (lambda maps: np.float32(0), "holds no NumPy array"),
        (b"text", "is no NumPy array"),
        (b"", "is no NumPy array"),
    ],
)
def test_heatmaps_that_do_not_fit(make, change, message):
    data, root = make("regdb")
    published_maps(root, "regdb", images.prepare(data), (4, 2), np.float32)
    file = root / "train_ir_trial1_merged_heatmap.npy"
    maps = np.load(file)
    maps[0, 0, 0] = 1.0
    if callable(change):
        np.save(file, change(maps))
    else:
        file.write_bytes(change)
    done = prepare("--dataset=regdb", f"--source={root}", f"--dir={data.dir}",
                   f"--heatmaps={root}", "--height=16", "--width=8", "--check_only")  # fmt: skip
    assert done.returncode == 2
    (line,) = [x for x in done.stdout.splitlines() if x.startswith("wrong")]
    with pytest.raises(UserError, match=message) as caught:
        heatmaps.from_cache(file, 4, (4, 2))
    assert line == f"wrong: {caught.value}"


def test_the_loader_decodes_what_was_stored(make):
    data, root = make("folder")
    found = images.load_images(data, "train")
    for image, path in zip(found.images, found.path, strict=True):
        stored = Image.open(io.BytesIO(files.encoded(root, path).read()))
        np.testing.assert_array_equal(image, np.asarray(stored))
