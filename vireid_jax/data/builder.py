"""What the TFDS builders of all data sets share; none of it needs TensorFlow."""

from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

IMAGE_FEATURES = {
    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
    "pid": np.int32,
    "camid": np.int32,
    "modality": np.int32,
    "path": tfds.features.Text(),
}
"""Of every data set: PNG bytes, RGB; the set's own numbers; 0 visible, 1 infrared; unique."""


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A builder whose examples have `IMAGE_FEATURES` and the class's `EXTRA_FEATURES`."""

    # TFDS would work this out with importlib_resources, which it neither declares nor installs.
    code_path = epath.Path(__file__)
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release."}
    EXTRA_FEATURES: ClassVar = {}

    def __init__(self, *, file_format="array_record", **kwargs):
        """As every builder, but for a file format that needs no TensorFlow."""
        super().__init__(file_format=file_format, **kwargs)

    def _info(self):
        features = tfds.features.FeaturesDict(IMAGE_FEATURES | self.EXTRA_FEATURES)
        return tfds.core.DatasetInfo(builder=self, description=self.__doc__, features=features)
