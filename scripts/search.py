"""Searches one's own images: ranks a gallery for every query, as one HTML file.

$ python scripts/search.py --query=DIR_OR_FILE --gallery=DIR --checkpoint=RUN

RUN is the folder of a run, of which the checkpoint counts that --mode=evaluate takes. Features are
kept in RUN/features by the content of the files, so that a second search embeds new images only.
docs/search.md says what names of files mean and what the page shows.
"""

from pathlib import Path

from absl import flags
from tqdm import tqdm

from vireid_jax import command_line
from vireid_jax.evaluation import search_page
from vireid_jax.training import search, trained
from vireid_jax.types import Modality, UserError

MODALITIES = {modality.name.lower(): modality for modality in Modality}
QUERY = flags.DEFINE_string("query", None, "An image, or a folder of images.")
GALLERY = flags.DEFINE_string("gallery", None, "The folder of images to search.")
CHECKPOINT = flags.DEFINE_string("checkpoint", None, "The folder of a run.")
QUERY_MODALITY = flags.DEFINE_enum(
    "query_modality", "infrared", list(MODALITIES), "Of all of them."
)
GALLERY_MODALITY = flags.DEFINE_enum(
    "gallery_modality", None, list(MODALITIES), "Of all of them; the other one if not given."
)
TOP = flags.DEFINE_integer("top", 10, "Results of each query.", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", "search.html", "The file to write.")


def main():
    """Embeds, ranks, writes, says where the page is."""
    output = Path(OUTPUT.value)
    if not output.absolute().parent.is_dir() or output.is_dir():
        raise UserError(f"--output={output} should be a file in a folder that there is")
    found = trained.load(CHECKPOINT.value)
    cache = Path(CHECKPOINT.value) / "features"
    asked = MODALITIES[QUERY_MODALITY.value]
    searched = MODALITIES.get(GALLERY_MODALITY.value, Modality(1 - asked))
    queries = search.Images(found, QUERY.value, asked, cache)
    search_page.check_count(len(queries), TOP.value)
    gallery = search.Images(found, GALLERY.value, searched, cache)
    lists = search.search(queries, gallery, TOP.value)
    title = (
        f"{_counted(len(queries), asked, 'query', 'queries')} in "
        f"{_counted(len(gallery), searched, 'image', 'images')}"
    )
    facts = {
        "Query": QUERY.value,
        "Gallery": GALLERY.value,
        "Network": f"{CHECKPOINT.value}, step {found.step}",
        "Feature": f"{list(found.feature_sizes)[-1]}, distance 1 - mean cosine of its parts",
    }
    partial = output.with_name(f"{output.name}.partial")
    partial.write_text(search_page.page(title, facts, lists), encoding="utf-8")
    partial.rename(output)
    tqdm.write(f"{output}: {title}, {output.stat().st_size / 1e6:.1f} MB; open it in a browser")


def _counted(number, modality, one, more):
    return f"{number:,} {modality.name.lower()} {one if number == 1 else more}"


if __name__ == "__main__":
    flags.mark_flags_as_required(["query", "gallery", "checkpoint"])
    command_line.run(main)
