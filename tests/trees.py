"""Data sets at miniature size, in the layouts of their authors."""

import numpy as np
import scipy.io
from PIL import Image


def picture(file, seed, size=(16, 8), grey=False):
    """Writes an image of noise, in the format of its suffix."""
    pixels = np.random.default_rng(seed).integers(0, 256, size if grey else (*size, 3), np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


def regdb(root, ids=4, images=2, trials=(1, 2)):
    """`ids` identities; the lower half trains in trial 1, the upper half in the others."""
    lists = {}
    for pid in range(1, ids + 1):
        for word, letter in (("Visible", "v"), ("Thermal", "t")):
            for number in range(images):
                file = root / word / str(pid) / f"male_back_{letter}_{number:05}_{pid}.bmp"
                picture(file, [pid, number, ord(letter)], grey=letter == "t")
                for trial in trials:
                    split = "train" if (2 * pid <= ids) == (trial == 1) else "test"
                    lines = lists.setdefault(f"{split}_{word.lower()}_{trial}", [])
                    lines.append(f"{file.relative_to(root).as_posix()} {pid - 1}")
    (root / "idx").mkdir()
    for name, lines in lists.items():
        (root / "idx" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


SYSU_IDS = {"train": (2, 7), "val": (3,), "test": (1, 6, 9)}
SYSU_CAMERAS = {
    2: (1, 2, 3, 6),
    7: (1, 2, 3, 4, 5, 6),
    3: (3, 4, 5),
    1: (1, 2, 3, 4, 5, 6),
    6: (2, 3, 4),
    9: (1, 5, 6),
}


def sysu(root, images=3):
    """Six identities, `images` each in their cameras, and the index file of the galleries."""
    for split, pids in SYSU_IDS.items():
        (root / "exp").mkdir(parents=True, exist_ok=True)
        (root / "exp" / f"{split}_id.txt").write_text(",".join(map(str, pids)) + "\n")
        for pid in pids:
            for camid in SYSU_CAMERAS[pid]:
                for number in range(1, images + 1):
                    file = root / f"cam{camid}" / f"{pid:04}" / f"{number:04}.jpg"
                    picture(file, [pid, camid, number])
    scipy.io.savemat(root / "exp" / "rand_perm_cam.mat", {"rand_perm_cam": orders(images)})
    return root


def orders(images, trials=10):
    """`rand_perm_cam`: cells of cameras, of cells of identities, of trials in rows."""
    rng = np.random.default_rng(0)
    cameras = np.empty((6, 1), object)
    for camid in range(1, 7):
        count = 12 if camid in (1, 2, 6) else 15  # some never seen, as in the published file
        cells = np.empty((count, 1), object)
        for pid in range(1, count + 1):
            seen = camid in SYSU_CAMERAS.get(pid, ())
            order = [rng.permutation(images) + 1 for _ in range(trials)] if seen else []
            cells[pid - 1, 0] = np.array(order, np.uint8)
        cameras[camid - 1, 0] = cells
    return cameras


LLCM_TRAIN, LLCM_TEST = (4, 351), (12, 713, 20)


def llcm(root):
    """Two identities to train on, three to test on; no test infrared image is of camera 3."""
    for word in ("vis", "nir"):
        lines = []
        for label, pid in enumerate(LLCM_TRAIN):
            for camid in (6, 3, 9):
                name = f"{pid:04}_c{camid:02}_s200656_f{camid}830_{word}.jpg"
                file = root / word / f"{pid:04}" / name
                picture(file, [pid, camid, ord(word[0])])
                lines.append(f"{file.relative_to(root).as_posix()} {label}")
        (root / "idx").mkdir(exist_ok=True)
        (root / "idx" / f"train_{word}.txt").write_text("\n".join(lines) + "\n")
        for pid in LLCM_TEST:
            for camid in (1, 2, 3) if word == "vis" else (1, 2, 4):
                for number in range(2):
                    name = f"{pid:04}_c{camid:02}_s1_f{number}_{word}.jpg"
                    file = root / f"test_{word}" / f"cam{camid}" / f"{pid:04}" / name
                    picture(file, [pid, camid, number, ord(word[0])])
    (root / "idx" / "test_id.txt").write_text(",".join(map(str, LLCM_TEST)) + "\n")
    return root


def folder(root, ids=6, images=2):
    """`ids` identities; the cameras are in the names of the visible images only."""
    for pid in range(1, ids + 1):
        for number in range(images):
            suffix = ("jpg", "png", "bmp")[pid % 3]
            name = f"{pid}_c{number + 3}_{number}.{suffix}"
            picture(root / "visible" / str(pid) / name, [pid, number])
            picture(
                root / "infrared" / str(pid) / f"{number}.{suffix}", [pid, number, 1], grey=True
            )
    return root


def lip(root, images=4, size=(40, 24)):
    """`images` people a split; all hide the right wrist, every second one lacks the left."""
    height, width = size
    for split in ("train", "val"):
        lines = []
        for number in range(images):
            name = f"{number}_{split}.jpg"
            picture(root / "TrainVal_images" / f"{split}_images" / name, [number, len(split)], size)
            rng = np.random.default_rng(number)
            points = [[*xy, 0] for xy in rng.integers(0, (width, height), (16, 2))]
            points[10][2] = 1
            if number % 2:
                points[15] = ["nan"] * 3
            lines.append(",".join([name, *(str(x) for point in points for x in point)]))
        file = root / "TrainVal_pose_annotations" / f"lip_{split}_set.csv"
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join(lines) + "\n")
    return root
