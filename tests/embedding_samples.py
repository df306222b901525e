"""A folder of pictures in two classes, an encoder for it, and its vectors computed one by one."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from pretext.__main__ import main
from pretext.encoders import build_encoder, load_encoder, save_encoder

SIZE = 32
SPEC = "alexnet?width=0.125&stem_stride=2"


def write_pictures(folder, *, train=20, val=4, test=4, classes=("a", "b")):
    """Write PNG files of noise, in class folders if there are classes."""
    for split, count in (("train", train), ("val", val), ("test", test)):
        for number in range(count):
            shape = (24 + number % 3, 30, 3)
            noise = np.random.default_rng([number, *split.encode()]).integers(0, 256, shape, dtype=np.uint8)
            below = folder / split / (classes[number % len(classes)] if classes else "")
            below.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise).save(below / f"{split}{number:02}.png")
    return folder


def write_encoder(file):
    save_encoder(build_encoder(SPEC, input_size=SIZE, seed=0), file, {"task": "random"})
    return file


def embed(*argv):
    return main(["embed", *map(str, argv)])


def stored(file):
    """The arrays of an .npz file."""
    with np.load(file, allow_pickle=False) as opened:
        return {name: opened[name] for name in opened.files}


def maps_of(encoder, path, stage):
    """The map of one file's picture, by torchvision's own resize."""
    encoder = load_encoder(encoder)
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)
    image = F.resize(F.center_crop(pixels, [min(pixels.shape[1:])] * 2), [SIZE, SIZE], antialias=True)
    with torch.no_grad():
        maps = encoder(image[None])
    return maps[[each.name for each in encoder.stages].index(stage)][0].numpy()
