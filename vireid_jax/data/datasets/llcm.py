"""LLCM (Zhang and Wang, CVPR 2023): 1,064 people under nine cameras in low light."""

import re
from pathlib import Path
from typing import ClassVar

from vireid_jax.data import index
from vireid_jax.data.builder import Entry, ManualBuilder
from vireid_jax.types import Modality, UserError

_WORDS = {Modality.VISIBLE: "vis", Modality.INFRARED: "nir"}
_CAMERA = re.compile(r"_c(\d+)_")  # of 0351_c06_s200656_f4830_nir.jpg


class Llcm(ManualBuilder):
    """713 identities to train on, 351 to test on; visible and near-infrared images of nine cameras.

    Source, obtained from the authors for research: `idx/train_{vis,nir}.txt`, whose lines are
    "PATH LABEL" with paths like `nir/0351/0351_c06_s200656_f4830_nir.jpg`; `idx/test_id.txt`, one
    line of identities with commas; `test_{vis,nir}/cam{1..9}/{id:04}/*`. No infrared image of the
    test split is from camera 3. A place's visible and infrared cameras share their number.

    Protocol: see `protocols.llcm_protocols`.

    Features: those of `Builder`; pid is the folder that holds the image, in test and train alike.
    """

    CAMERAS: ClassVar = {
        ("test", Modality.VISIBLE): tuple(range(1, 10)),
        ("test", Modality.INFRARED): (1, 2, *range(4, 10)),
    }
    IDENTITIES: ClassVar = {"train": 713, "test": 351}
    LAYOUT = "vis/, nir/, test_vis/, test_nir/ and idx/"

    def entries(self, root: Path) -> dict[str, list[Entry]]:
        """See the class."""
        train = [
            Entry(path, index.pid_of_folder(root, path), _camid(root, path), modality)
            for modality, word in _WORDS.items()
            for path, _ in index.lines(root, f"idx/train_{word}.txt")
        ]
        test = [
            Entry(f"test_{word}/cam{camid}/{pid:04}/{name}", pid, camid, modality)
            for modality, word in _WORDS.items()
            for pid in index.ids(root, "idx/test_id.txt")
            for camid in self.CAMERAS["test", modality]
            for name in index.images(root / f"test_{word}" / f"cam{camid}" / f"{pid:04}")
        ]
        return {"train": train, "test": test}


def builder(data) -> Llcm:
    """The builder of a config's `data` section: `dir`."""
    return Llcm(data_dir=data.dir)


def _camid(root, path):
    found = _CAMERA.search(Path(path).name)
    if not found:
        raise UserError(f"{root / path}: the file's name has no camera such as _c06_")
    return int(found[1])
