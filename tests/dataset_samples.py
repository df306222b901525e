"""Small generated samples of every kind of data set; the contract test runs over all of them.

For a new kind, add a function that writes a sample and returns its spec. `shade` seeds the pixels: samples of the
same shade are equal byte for byte, samples of different shades differ.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from store_samples import write_arrow, write_lists, write_parquet, write_shards

from pretext.datasets import open_dataset
from pretext.system.errors import UserError

PER_SPLIT = 6


def one_line(excinfo):
    """Return the message of an exception, which must be one line."""
    text = str(excinfo.value)
    assert "\n" not in text
    return text


def fails(spec, match):
    """Check that opening `spec` raises a `UserError` whose message is one line and matches."""
    with pytest.raises(UserError, match=match) as excinfo:
        open_dataset(spec)
    one_line(excinfo)


def pixels(shade, number, height=20, width=24):
    return np.random.default_rng((shade, number)).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    # these options keep the colours of a JPEG; other formats ignore them
    Image.fromarray(array).save(path, quality=95, subsampling=0)


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def scenes(root, shade):
    return f"scenes?train=8&val=3&test=3&size=24&seed={shade}"


def folder(root, shade):
    for split in ("train", "val", "test"):
        for number in range(PER_SPLIT):
            save(root / split / "ab"[number % 2] / f"{split}{number}.png", pixels(shade, number))
    return f"folder:{root}"


def clips(root, shade):
    """Write two clips per split, of 3 and 4 frames."""
    for split in ("train", "val", "test"):
        for clip, frames in enumerate((3, 4)):
            for number in range(frames):
                save(root / split / f"clip{clip}" / f"{number}.png", pixels(shade, 10 * clip + number))
    return f"clips:{root}"


def voc(root, shade):
    """Write pictures with one red rectangle, 10×8 at (5, 6), whose mask value is 7 (car)."""
    year = root / "VOC2007"
    for split in ("train", "val", "test"):
        names = [f"{split}_{number}" for number in range(PER_SPLIT)]
        write(year / "ImageSets" / "Main" / f"{split}.txt", "\n".join(names) + "\n")
        for number, name in enumerate(names):
            picture = pixels(shade, number) // 2
            picture[6:14, 5:15] = 250, 0, 0
            mask = np.zeros(picture.shape[:2], np.uint8)
            mask[6:14, 5:15] = 7
            mask[0] = 255
            save(year / "JPEGImages" / f"{name}.jpg", picture)
            save(year / "SegmentationClass" / f"{name}.png", mask)
            write(year / "Annotations" / f"{name}.xml", voc_xml([("car", (6, 7, 15, 14), 0)]))
    return f"voc:{root}"


def voc_xml(objects, width=24, height=20):
    entries = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult>"
        f"<bndbox><xmin>{x0}</xmin><ymin>{y0}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax></bndbox></object>"
        for name, (x0, y0, x1, y1), difficult in objects
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{size}{entries}</annotation>"


def coco(root, shade):
    """Write pictures with one rectangle, 10×8 at (5, 6), annotated as a polygon."""
    for split in ("train", "val", "test"):
        images, annotations = [], []
        for number in range(PER_SPLIT):
            save(root / f"{split}2017" / f"{number:04}.png", pixels(shade, number))
            images.append({"id": 10 + number, "file_name": f"{number:04}.png", "width": 24, "height": 20})
            annotations.append(
                {
                    "id": number,
                    "image_id": 10 + number,
                    "category_id": (90, 4)[number % 2],
                    "bbox": [5, 6, 10, 8],
                    "iscrowd": 0,
                    "segmentation": [[5, 6, 15, 6, 15, 14, 5, 14]],
                }
            )
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 90, "name": "brush"}, {"id": 4, "name": "tram"}],
        }
        write(root / "annotations" / f"instances_{split}2017.json", json.dumps(content))
    return f"coco:{root}"


def masks(root, shade):
    write(root / "classes.txt", "sea\nland\n")
    for split in ("train", "val", "test"):
        for number in range(PER_SPLIT):
            mask = np.zeros((20, 24), np.uint8)
            mask[6:14, 5:15] = 1 + number % 2
            mask[0] = 255
            save(root / "images" / split / f"{number}.jpg", pixels(shade, number))
            save(root / "masks" / split / f"{number}.png", mask)
    return f"masks:{root}"


def wds(root, shade):
    folder(root / "folder", shade)
    return f"wds:{write_shards(root / 'folder', root / 'shards')}"


def parquet(root, shade):
    folder(root / "folder", shade)
    return f"parquet:{write_parquet(root / 'folder', root / 'files')}"


def hf(root, shade):
    folder(root / "folder", shade)
    return f"hf:{write_arrow(root / 'folder', root / 'saved')}"


def list_of_files(root, shade):
    folder(root, shade)
    return write_lists(root)


def mnist_like(name):
    def make(root, shade):
        raw = root / name / "raw"
        raw.mkdir(parents=True)
        for prefix, count in (("train", 12), ("t10k", 6)):
            images = np.stack([pixels(shade, number, 28, 28)[..., 0] for number in range(count)])
            labels = (np.arange(count) % 10).astype(np.uint8)
            shape = b"".join(side.to_bytes(4, "big") for side in images.shape)
            (raw / f"{prefix}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + shape + images.tobytes())
            (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(
                b"\0\0\x08\x01" + count.to_bytes(4, "big") + labels.tobytes()
            )
        return str(root)

    return make


def cifar_like(base, parts, meta, names, fine):
    def make(root, shade):
        (root / base).mkdir(parents=True)
        for position, part in enumerate(parts):
            rows = np.stack([pixels(shade, 10 * position + n, 32, 32).transpose(2, 0, 1).ravel() for n in range(4)])
            entry = {"data": rows, "fine_labels" if fine else "labels": [0, 1, 2, 3]}
            (root / base / part).write_bytes(pickle.dumps(entry))
        (root / base / meta).write_bytes(pickle.dumps({names: [f"class{n}" for n in range(10)]}))
        return str(root)

    return make


def stl10(root, shade):
    base = root / "stl10_binary"
    base.mkdir(parents=True)
    for part, count in (("train", 6), ("test", 4)):
        array = np.stack([pixels(shade, n, 96, 96).transpose(2, 1, 0) for n in range(count)])
        (base / f"{part}_X.bin").write_bytes(array.tobytes())
        (base / f"{part}_y.bin").write_bytes((np.arange(count) % 2 + 1).astype(np.uint8).tobytes())
    (base / "unlabeled_X.bin").write_bytes(b"")
    write(base / "class_names.txt", "airplane\nbird\n")
    return str(root)


def svhn(root, shade):
    from scipy.io import savemat

    root.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", 6), ("test", 4)):
        images = np.stack([pixels(shade, n, 32, 32) for n in range(count)], axis=-1)
        savemat(root / f"{part}_32x32.mat", {"X": images, "y": np.arange(1, count + 1)[:, None] % 10 + 1})
    return str(root)


def class_folders(inside, classes, splits, suffix=".jpg"):
    def make(root, shade):
        for split in splits:
            for number in range(PER_SPLIT):
                name = f"{split or 'all'}{number}{suffix}"
                save(root / inside / split / classes[number % 2] / name, pixels(shade, number))
        return str(root)

    return make


def dtd(root, shade):
    base = root / "dtd" / "dtd"
    for split in ("train", "val", "test"):
        names = [f"{'ab'[n % 2]}/{split}{n}.jpg" for n in range(PER_SPLIT)]
        write(base / "labels" / f"{split}1.txt", "\n".join(names) + "\n")
        for number, name in enumerate(names):
            save(base / "images" / name, pixels(shade, number))
    return str(root)


def food101(root, shade):
    for split in ("train", "test"):
        listed = {kind: [f"{kind}/{split}{n}" for n in range(3)] for kind in ("pie", "soup")}
        write(root / "food-101" / "meta" / f"{split}.json", json.dumps(listed))
        for number, name in enumerate(name for some in listed.values() for name in some):
            save(root / "food-101" / "images" / f"{name}.jpg", pixels(shade, number))
    return str(root)


def gtsrb(root, shade):
    base = root / "gtsrb" / "GTSRB"
    lines = ["Filename;ClassId"]
    for number in range(PER_SPLIT):
        save(base / "Training" / f"{number % 2:05}" / f"{number}.ppm", pixels(shade, number))
        save(base / "Final_Test" / "Images" / f"{number}.ppm", pixels(shade, 10 + number))
        lines.append(f"{number}.ppm;{number % 2}")
    write(root / "gtsrb" / "GT-final_test.csv", "\n".join(lines) + "\n")
    return str(root)


def fgvc_aircraft(root, shade):
    base = root / "fgvc-aircraft-2013b" / "data"
    write(base / "variants.txt", "707-320\nTu-154\n")
    for split in ("train", "val", "test"):
        lines = []
        for number in range(PER_SPLIT):
            save(base / "images" / f"{split}{number}.jpg", pixels(shade, number))
            lines.append(f"{split}{number} {('707-320', 'Tu-154')[number % 2]}")
        write(base / f"images_variant_{split}.txt", "\n".join(lines) + "\n")
    return str(root)


def flowers102(root, shade):
    from scipy.io import savemat

    base = root / "flowers-102"
    for number in range(1, 13):
        save(base / "jpg" / f"image_{number:05}.jpg", pixels(shade, number))
    savemat(base / "imagelabels.mat", {"labels": np.arange(12) % 2 + 1})
    savemat(base / "setid.mat", {"trnid": [1, 2, 3, 4], "valid": [5, 6, 7, 8], "tstid": [9, 10, 11, 12]})
    return str(root)


def oxford_iiit_pet(root, shade):
    base = root / "oxford-iiit-pet"
    for split in ("trainval", "test"):
        lines = []
        for number in range(PER_SPLIT):
            breed = ("great_dane", "siamese")[number % 2]
            name = f"{breed}_{split}{number}"
            trimap = np.full((20, 24), 2, np.uint8)
            trimap[5:15, 5:15] = 3
            trimap[6:14, 6:14] = 1
            save(base / "images" / f"{name}.jpg", pixels(shade, number))
            save(base / "annotations" / "trimaps" / f"{name}.png", trimap)
            lines.append(f"{name} {number % 2 + 1} 1 1")
        write(base / "annotations" / f"{split}.txt", "\n".join(lines) + "\n")
    return str(root)


def places365(root, shade):
    write(root / "categories_places365.txt", "/a/abbey 0\n/z/zoo 1\n")
    for listed, images in (("train_standard", "data_256_standard"), ("val", "val_256")):
        lines = []
        for number in range(PER_SPLIT):
            save(root / images / f"{number}.jpg", pixels(shade, number))
            lines.append(f"/{number}.jpg {number % 2}")
        write(root / f"places365_{listed}.txt", "\n".join(lines) + "\n")
    return str(root)


def stanford_cars(root, shade):
    from scipy.io import savemat

    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    files = {
        "train": base / "devkit" / "cars_train_annos.mat",
        "test": base / "cars_test_annos_withlabels.mat",
    }
    for split, file in files.items():
        rows = np.array([(f"{n}.jpg", n % 2 + 1) for n in range(PER_SPLIT)], dtype=[("fname", "O"), ("class", "O")])
        savemat(file, {"annotations": rows})
        for number in range(PER_SPLIT):
            save(base / f"cars_{split}" / f"{number}.jpg", pixels(shade, number))
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": np.array(["Acura", "Volvo"], dtype=object)})
    return str(root)


def sun397(root, shade):
    write(root / "SUN397" / "ClassName.txt", "/a/abbey\n/z/zoo/indoor\n")
    for number in range(2 * PER_SPLIT):
        where = ("a/abbey", "z/zoo/indoor")[number % 2]
        save(root / "SUN397" / where / f"sun_{number}.jpg", pixels(shade, number))
    return str(root)


def imagenet(root, shade):
    import torch

    names = {"n01": ("tench", "Tinca tinca"), "n02": ("goldfish",)}
    make = class_folders("", ("n01", "n02"), ("train", "val"), ".JPEG")
    make(root, shade)
    torch.save((names, ["n01", "n02"]), root / "meta.bin")
    return str(root)


CIFAR10_PARTS = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
TORCHVISION = {
    "cifar10": cifar_like("cifar-10-batches-py", CIFAR10_PARTS, "batches.meta", "label_names", fine=False),
    "cifar100": cifar_like("cifar-100-python", ["train", "test"], "meta", "fine_label_names", fine=True),
    "country211": class_folders("country211", ("AD", "ZW"), ("train", "valid", "test")),
    "dtd": dtd,
    "eurosat": class_folders("eurosat/2750", ("Forest", "River"), ("",)),
    "fashion_mnist": mnist_like("FashionMNIST"),
    "fgvc_aircraft": fgvc_aircraft,
    "flowers102": flowers102,
    "food101": food101,
    "gtsrb": gtsrb,
    "imagenet": imagenet,
    "imagenette": class_folders("imagenette2", ("n01440764", "n03888257"), ("train", "val"), ".jpeg"),
    "kmnist": mnist_like("KMNIST"),
    "mnist": mnist_like("MNIST"),
    "oxford_iiit_pet": oxford_iiit_pet,
    "places365": places365,
    "stanford_cars": stanford_cars,
    "stl10": stl10,
    "sun397": sun397,
    "svhn": svhn,
}
OWN = {"scenes": scenes, "folder": folder, "clips": clips, "voc": voc, "coco": coco, "masks": masks}
OWN |= {"wds": wds, "parquet": parquet, "hf": hf, "list": list_of_files}


def make(kind: str, root: Path, shade: int = 1) -> str:
    """Write a sample of `kind` into `root` and return its spec."""
    if kind in TORCHVISION:
        return f"{kind}:{TORCHVISION[kind](root, shade)}"
    return OWN[kind](root, shade)
