"""A folder of images in which each class has a folder of its own, as Keras and torchvision read it.

``folder/CLASS/*.png``, or ``folder/train/CLASS/*.png`` and ``folder/test/CLASS/*.png``. The labels
are the places of the classes' names in their order, as ``keras.utils.image_dataset_from_directory``
and ``torchvision.datasets.ImageFolder`` number them.
"""

from __future__ import annotations

import os

import numpy as np

from hesscli.problem.npz import MAX_ARRAY_BYTES, RawArray
from hesscli.system.errors import InputError, reason
from hesscli.system.files import expanded, opened
from hesscli.system.memory import require_memory

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
# Pillow's names for a byte a pixel, and for three.
_MODES = ("L", "RGB")


def image_files(folder: str, split: str) -> tuple[tuple[str, int], ...]:
    """(path, label) of each image in order; none if the folder holds no folders of images.

    Without folders called train and test all images are of the split ``train``.
    """
    parted = [part for part in ("train", "test") if os.path.isdir(expanded(f"{folder}/{part}"))]
    if split not in parted and (parted or split != "train"):
        return ()
    above = os.path.join(folder, split) if parted else folder
    root = expanded(above)
    classes = sorted(name for name in os.listdir(root) if _images_in(os.path.join(root, name)))
    return tuple(
        (os.path.join(above, name, image), label)
        for label, name in enumerate(classes)
        for image in _images_in(os.path.join(root, name))
    )


def read_images(files: tuple[tuple[str, int], ...]) -> tuple[RawArray, RawArray]:
    """The pixels (M, height, width) or (M, height, width, 3) as bytes, and the labels (M,).

    Raises InputError if Pillow is missing, an image is damaged, or has another size or another
    kind of pixels than the first.
    """
    first = _pixels(files[0][0])
    needed = len(files) * first.nbytes
    if needed > MAX_ARRAY_BYTES:
        raise InputError(f"{len(files)} images take {needed / 2**30:.1f} GiB; use fewer")
    require_memory(needed, "the images need", "use fewer")
    images = np.empty((len(files), *first.shape), dtype=np.uint8)
    for image, (path, _) in zip(images, files, strict=True):
        pixels = _pixels(path)
        if pixels.shape != first.shape:
            raise InputError(
                f"{path}: of shape {pixels.shape}; {files[0][0]} has {first.shape}, and all images "
                "must have the same"
            )
        image[...] = pixels
    return images, np.array([label for _, label in files], dtype=np.int64)


def _images_in(folder: str) -> list[str]:
    if not os.path.isdir(folder):
        return []
    return sorted(name for name in os.listdir(folder) if name.lower().endswith(_SUFFIXES))


def _pixels(path: str) -> RawArray:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise InputError(f"{path}: images need Pillow: pip install 'hesscli[images]'") from error
    try:
        with opened(path, "a readable image is needed") as stream, Image.open(stream) as image:
            mode = image.mode
            # Pillow refuses itself what would unpack to far more than it is.
            pixels = np.asarray(image) if mode in _MODES else None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: damaged or no image ({reason(error)})") from error
    if pixels is None:
        raise InputError(
            f"{path}: pixels of kind {mode}; save it in gray or in three colors "
            f"({' or '.join(_MODES)})"
        )
    return pixels
