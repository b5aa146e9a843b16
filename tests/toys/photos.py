"""Small folders of photographs in the layout of ImageNet, written by tests."""

import numpy as np
from PIL import Image

CLASSES = ("n01", "n02", "n03")


def write_photo(path, place, size=None):
    """Write a smooth coloured image whose size and content follow from its place."""
    width, height = (20 + 3 * (place % 5), 18 + 2 * (place % 7)) if size is None else size
    y, x = np.mgrid[0:height, 0:width]
    planes = [(x * 9 + place * 31) % 256, (y * 11 + place * 17) % 256, (x + y + place * 7) % 256]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack(planes, -1).astype(np.uint8)).save(path)


def write_imagenet(root, train=12, val=6, classes=CLASSES):
    """Write train/CLASS/*.JPEG and val/CLASS/*.JPEG with images of several sizes."""
    for part, count in (("train", train), ("val", val)):
        for place in range(count):
            name = classes[place % len(classes)]
            write_photo(
                root / part / name / f"{name}_{part}_{place}.JPEG", place + 100 * (part == "val")
            )
    return root
