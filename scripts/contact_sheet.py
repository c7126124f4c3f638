"""Draws a contact sheet of synthetic people: a row per identity, its images by camera.

    python scripts/contact_sheet.py --data_dir data --config easy_96x48 --output sheet.png

Renders the data set first where it is not there. Visible cameras stand left of infrared ones.
"""

import argparse

import numpy as np
from PIL import Image, ImageDraw

from vireid_jax.data.datasets.synthetic_vi import SyntheticVi

BONES = (
    *((0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5)),  # legs, by way of the pelvis
    *((6, 7), (7, 8), (8, 9)),  # trunk and head
    *((10, 11), (11, 12), (12, 7), (7, 13), (13, 14), (14, 15)),  # arms
)
"""Pairs of LIP joints."""
RIGHT, MIDDLE, LEFT = (255, 96, 64), (255, 224, 64), (64, 160, 255)
JOINT_COLOURS = (*[RIGHT] * 3, *[LEFT] * 3, *[MIDDLE] * 4, *[RIGHT] * 3, *[LEFT] * 3)
HIDDEN, SEEN = 1, 2
GAP = 4  # pixels between images, and between cameras twice that


def main():
    """Reads the arguments, draws the sheet, says where it is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_dir", required=True, help="where data sets are stored")
    parser.add_argument("--config", default="easy_96x48", choices=list(SyntheticVi.builder_configs))
    parser.add_argument("--split", default="train", help="name of the split")
    parser.add_argument("--ids", type=int, default=6, help="number of identities")
    parser.add_argument("--images", type=int, default=3, help="images per identity and camera")
    parser.add_argument("--scale", type=int, default=2, help="enlargement")
    parser.add_argument("--keypoints", action="store_true", help="draw the skeletons")
    parser.add_argument("--output", required=True, help="PNG file to write")
    args = parser.parse_args()

    builder = SyntheticVi(config=args.config, data_dir=args.data_dir)
    builder.download_and_prepare()
    if args.split not in builder.info.splits:
        parser.error(f"--split must be one of {', '.join(builder.info.splits)}")
    chosen = choose_images(builder.as_data_source(args.split), args.ids, args.images)
    sheet = draw_sheet(chosen, args.images, args.scale, args.keypoints)
    sheet.save(args.output)
    print(f"{args.output}: {len(chosen)} identities of {args.config}, split {args.split}")


def choose_images(source, ids, images):
    """The first identities: {pid: {(modality, camid): [example, ...]}}, cameras in sheet order."""
    people = {}
    for example in source:
        camera = int(example["modality"]), int(example["camid"])
        people.setdefault(int(example["pid"]), {}).setdefault(camera, []).append(example)
    first = {}
    for pid in sorted(people)[:ids]:
        first[pid] = {
            camera: sorted(taken, key=lambda example: example["path"])[:images]
            for camera, taken in people[pid].items()
        }
    return first


def draw_sheet(people, images, scale, keypoints):
    """A PIL image of the people that `choose_images` chose."""
    cameras = sorted({camera for person in people.values() for camera in person})
    height, width = next(iter(next(iter(people.values())).values()))[0]["image"].shape[:2]
    height, width = scale * height, scale * width
    camera_width = images * (width + GAP) + GAP
    sheet = Image.new("RGB", (len(cameras) * camera_width, len(people) * (height + GAP)), "white")
    for row, person in enumerate(people.values()):
        for column, camera in enumerate(cameras):
            for i, example in enumerate(person.get(camera, ())):
                x, y = column * camera_width + i * (width + GAP), row * (height + GAP)
                picture = Image.fromarray(example["image"]).resize((width, height), Image.NEAREST)
                if keypoints:
                    draw_skeleton(picture, example["keypoints"], scale)
                sheet.paste(picture, (x, y))
    return sheet


def draw_skeleton(picture, keypoints, scale):
    """Overlays bones and joints: right red, left blue; hidden joints as rings."""
    draw = ImageDraw.Draw(picture)
    points = scale * (keypoints[:, :2] + 0.5)
    visibility = keypoints[:, 2].astype(int)
    for a, b in BONES:
        if visibility[a] and visibility[b]:
            draw.line([tuple(points[a]), tuple(points[b])], fill=MIDDLE)
    radius = np.full(2, 1.5 * scale)
    for point, seen, colour in zip(points, visibility, JOINT_COLOURS, strict=True):
        if seen >= HIDDEN:
            box = [tuple(point - radius), tuple(point + radius)]
            draw.ellipse(box, outline=colour, fill=colour if seen == SEEN else None)


if __name__ == "__main__":
    main()
