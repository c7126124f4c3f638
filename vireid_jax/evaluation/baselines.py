"""Hand-made features under the same protocols, so that no trained figure stands alone."""

import numpy as np
from skimage.feature import hog as skimage_hog
from tqdm import tqdm

from vireid_jax.evaluation.protocols import evaluate
from vireid_jax.types import ImageSet

CHANCE_DRAWS = 10


def baseline_results(train: ImageSet, test: ImageSet, protocols) -> dict[str, dict]:
    """Every baseline's figures on the test split.

    Args:
      train: images to fit LDA on; the identities differ from the test split's.
      test: the split that the protocols were made from.
      protocols: of `vireid_jax.evaluation.protocols`.

    Returns:
      {baseline: {protocol: {"rank1": {"mean", "std"}, ..., "mAP", "mINP"}}} in percent, the
      baselines being "chance", "colour histogram", "HOG" and "LDA on HOG".
    """
    train_hog, test_hog = hog(train.images), hog(test.images)
    features = {
        "colour histogram": colour_histogram(test.images),
        "HOG": test_hog,
        "LDA on HOG": lda(train_hog, train.pid, test_hog),
    }
    measured = evaluate(features, test, protocols)
    by_name = {
        name: {protocol: measured[protocol][name] for protocol in measured} for name in features
    }
    return {"chance": chance(test, protocols), **by_name}


def chance(images: ImageSet, protocols, draws: int = CHANCE_DRAWS) -> dict[str, dict]:
    """The expected figures of a random ranking: the mean over `draws` random features.

    Features drawn alike for every image rank each query's gallery in uniformly random order.
    The seed is fixed.

    Returns:
      {protocol: {figure: {"mean", "std"}}} in percent; `std` is that over trials, averaged.
    """
    rng = np.random.default_rng(0)
    features = {d: rng.standard_normal((len(images), 64), np.float32) for d in range(draws)}
    return {
        protocol: {
            figure: {
                part: float(np.mean([measured[d][figure][part] for d in features]))
                for part in ("mean", "std")
            }
            for figure in measured[0]
        }
        for protocol, measured in evaluate(features, images, protocols).items()
    }


def colour_histogram(images: np.ndarray, stripes: int = 6, bins: int = 8) -> np.ndarray:
    """Joint RGB histograms of horizontal stripes, square-rooted (Hellinger) and normalised.

    Args:
      images: uint8 [n, H, W, 3].
      stripes: of equal height, top to bottom.
      bins: levels per channel, a divisor of 256.

    Returns:
      float32 [n, stripes bins^3], unit length: the dot product is the mean Bhattacharyya
      coefficient of the stripes.
    """
    height = images.shape[1]
    stripe = np.arange(height) * stripes // height
    size = stripes * bins**3
    features = np.empty((len(images), size), np.float32)
    for i, image in enumerate(images):
        red, green, blue = np.moveaxis(image // (256 // bins), -1, 0).astype(int)
        colour = (red * bins + green) * bins + blue  # [H, W]
        features[i] = np.bincount((stripe[:, None] * bins**3 + colour).ravel(), minlength=size)
    return _unit(np.sqrt(features))


def hog(images: np.ndarray, cell: int = 8) -> np.ndarray:
    """Histograms of oriented gradients of the grey image: 9 orientations, 2x2-cell blocks.

    Images of 192 rows or more are first averaged over square blocks, down to 96 to 191 rows: a
    cell then covers a similar share of the body at every resolution, and the feature stays small.

    Args:
      images: uint8 [n, H, W, 3].
      cell: side of a cell in pixels.

    Returns:
      float32 [n, F], unit length: the dot product is the cosine.
    """
    block = max(1, images.shape[1] // 96)
    features = [
        skimage_hog(
            _block_mean(image.mean(-1, dtype=np.float32), block),
            orientations=9,
            pixels_per_cell=(cell, cell),
            cells_per_block=(2, 2),
        ).astype(np.float32)
        for image in tqdm(images, desc="HOG", unit="image", disable=None)
    ]
    return _unit(np.stack(features))


def garment_map(garments: np.ndarray, kinds: int, rows: int = 12, columns: int = 3) -> np.ndarray:
    """The share of each kind of garment in each cell of a grid.

    Args:
      garments: int [n, H, W], 0 to kinds - 1, or -1 where there is none.
      kinds: number of kinds.
      rows, columns: of the grid.

    Returns:
      float32 [n, rows columns kinds], unit length: the dot product is the cosine.
    """
    height, width = garments.shape[1:]
    row, column = np.arange(height) * rows // height, np.arange(width) * columns // width
    cell = row[:, None] * columns + column  # [H, W]
    area = np.bincount(cell.ravel())[:, None]
    features = np.empty((len(garments), rows * columns, kinds), np.float32)
    for i, own in enumerate(garments):
        seen = own >= 0
        joint = cell[seen] * kinds + own[seen]
        counts = np.bincount(joint, minlength=rows * columns * kinds)
        features[i] = counts.reshape(-1, kinds) / area
    return _unit(features.reshape(len(garments), -1))


def lda(train_features, train_pid, test_features, components: int = 200) -> np.ndarray:
    """Linear discriminants of the training identities, applied to the test features.

    PCA first: quicker than LDA on the whole feature, and better on held-out identities than
    Ledoit-Wolf shrinkage. The fixed shrinkage keeps the covariance regular for small sets.

    Args:
      train_features: float [m, F], both modalities, so that what separates the modalities counts
        as variation within an identity.
      train_pid: int [m], at least two different.
      test_features: float [n, F].
      components: of the PCA, at most.

    Returns:
      float32 [n, at most components], unit length: the dot product is the cosine.
    """
    # Imported here: slow to load, and training's first step does not need them.
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    pca = PCA(min(components, *train_features.shape), svd_solver="covariance_eigh")
    discriminants = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.1)
    discriminants.fit(pca.fit_transform(train_features), train_pid)
    return _unit(discriminants.transform(pca.transform(test_features)).astype(np.float32))


def _block_mean(image, block):
    height, width = (side // block for side in image.shape)
    image = image[: height * block, : width * block]
    return image.reshape(height, block, width, block).mean((1, 3))


def _unit(features):
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(norm, np.finfo(np.float32).tiny)
