"""Draw the figures of docs/context-encoder.md: masks, fills, and what the adversarial loss changes.

python docs/figures/context_encoder.py [--images N] [--out DIR]

Trains three context encoders on drawn scenes from fixed seeds, some minutes in all, and prints the numbers that the
page quotes. The runs stay in OUT/runs: started again with the same budget, only the figures are drawn.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

from pretext import TrainConfig, open_dataset, train
from pretext.inpainting.measuring import HoledPictures, drawn_pictures, filled_by, scores_of
from pretext.tasks import task_config
from pretext.training.log import read_log
from pretext.training.run_folder import load_task
from pretext.training.sample_sheets import sample_sheet
from pretext.transforms.masks import draw_holes, fill

SIDE = 32
DATA = f"scenes?size={SIDE}&train=4000&val=8&test=200"
ENCODER = "alexnet?width=0.25&stem_stride=2"
BASE = "mask=central&decoder_width=0.5&discriminator_width=0.5"
TASKS = {
    "L2": f"context_encoder?{BASE}",
    "L2 + 0.001 adversarial": f"context_encoder:adversarial?{BASE}",
    "L2 + 0.03 adversarial": f"context_encoder:adversarial?{BASE}&adversarial_weight=0.03",
}
"""The task of each run by its name in the figures."""
COLOURS = dict(zip(TASKS, ("#0072b2", "#e69f00", "#cc3311"), strict=True))
SHOWN = 4
"""Pictures in the figures of tiles."""
SHOWN_METRICS = ("PSNR", "sharpness", "seam")


def main() -> None:
    """Train, draw and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=24_000, help="training images of each run")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the figures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    runs = {name: options.out / "runs" / f"{number}" for number, name in enumerate(TASKS)}
    for name, spec in TASKS.items():
        settings = TrainConfig(images=options.images, batch_size=64, learning_rate=2e-3, workers=0, log_every=10)
        data, task = open_dataset(DATA), spec.split("?", maxsplit=1)[0]
        train(task, ENCODER, data, settings, runs[name], image_size=SIDE, task_settings=task_config(spec))

    pictures = drawn_pictures(open_dataset(DATA), image_size=SIDE, test_images=200, seed=0, hole="central")
    fills = {name: filled_by(load_task(run), pictures) for name, run in runs.items()}
    original = pictures.images.float() / 255

    draw_masks(original[:SHOWN], options.out / "masks.png")
    hole = {"the hole": pictures.shown().float() / 255}
    columns = hole | fills | {"original": original}
    sheet({name: column[:SHOWN] for name, column in columns.items()}, options.out / "fills.png")
    draw_adversary(runs, fills, pictures, options.out / "adversary.png")

    print(f"{'in the hole':24}" + "".join(f"{metric:>10}" for metric in SHOWN_METRICS))
    for name, filled in (fills | {"original": original}).items():
        values = {score.metric: score.value for score in scores_of(filled, pictures)}
        print(f"{name:24}" + "".join(f"{values[metric]:10.2f}" for metric in SHOWN_METRICS))


def sheet(columns: dict[str, torch.Tensor], file: Path) -> None:
    """Write a sheet of tiles in 256 colours, a third of the size."""
    sample_sheet(columns, file)
    with Image.open(file) as drawn:
        small = drawn.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(file, optimize=True)


def draw_masks(images: torch.Tensor, file: Path) -> None:
    """Write a sheet of pictures under the three kinds of mask."""
    columns = {"original": images}
    for kind in ("central", "random_block", "random_region"):
        holes = draw_holes(kind, len(images), SIDE, torch.Generator().manual_seed(1))
        columns[f"{kind.replace('_', ' ')} {holes.float().mean():.0%} hidden"] = fill(images, holes)
    sheet(columns, file)


def spectrum(images: torch.Tensor) -> np.ndarray:
    """Return the mean power of the central half at each spatial frequency, in cycles per picture of that half."""
    start, side = SIDE // 4, SIDE // 2
    grey = images[:, :, start : start + side, start : start + side].mean(dim=1).numpy()
    window = np.outer(np.hanning(side), np.hanning(side))
    power = (np.abs(np.fft.fft2((grey - grey.mean(axis=(1, 2), keepdims=True)) * window)) ** 2).mean(axis=0)
    frequencies = np.fft.fftfreq(side, 1 / side)
    radius = np.hypot(*np.meshgrid(frequencies, frequencies)).round().astype(int)
    return np.array([power[radius == r].mean() for r in range(1, side // 2)])


def draw_adversary(runs: dict[str, Path], fills: dict[str, torch.Tensor], pictures: HoledPictures, file: Path) -> None:
    """Write two panels: how often the discriminator is right, and the detail of the fills by spatial frequency."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), constrained_layout=True)
    for name, run in runs.items():
        rows = [row for row in read_log(run / "log.jsonl") if "discriminator_accuracy" in row["metrics"]]
        if rows:
            seen = [row["images"] / 1000 for row in rows]
            left.plot(seen, [row["metrics"]["discriminator_accuracy"] for row in rows], color=COLOURS[name], label=name)
    left.axhline(0.5, color="grey", linestyle=":", label="chance")
    left.set(xlabel="thousand pictures seen", ylabel="discriminator accuracy", ylim=(0, 1.02))
    true = spectrum(pictures.images.float() / 255)
    cycles = np.arange(1, len(true) + 1)
    for name, filled in fills.items():
        right.plot(cycles, spectrum(filled) / true, color=COLOURS[name], label=name)
    right.axhline(1, color="grey", linestyle=":", label="original")
    right.set(xlabel="cycles across the hole", ylabel="power, relative to the original", yscale="log")
    for panel, place in ((left, "lower right"), (right, (0.5, 0.62))):
        panel.legend(frameon=False, fontsize=8, loc=place)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    main()
