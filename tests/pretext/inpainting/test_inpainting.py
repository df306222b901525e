"""Inpainting errors against loops over the formulas, the baselines, the sheet and the command."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from pretext.__main__ import main
from pretext.datasets import ImageDataset, open_dataset
from pretext.encoders import build_encoder
from pretext.inpainting.baselines import fill_interpolated, fill_mean_colour
from pretext.inpainting.command import inpaint_command
from pretext.inpainting.measuring import (
    HoledPictures,
    baseline_fills,
    drawn_pictures,
    filled_by,
    hole_errors,
    inpainting_scores,
    scores_of,
)
from pretext.system.errors import UserError
from pretext.tasks.base import Batch, Inpainter, Task
from pretext.training.config import TrainConfig
from pretext.training.loop import train
from pretext.training.sample_sheets import sample_sheet
from pretext.transforms.masks import MEAN_COLOUR, MaskKind, draw_holes

SPEC = "scenes?train=12&val=6&test=10&size=32"
SIZE = 32


class Grey(Inpainter):
    """Paints the whole image in one grey, and remembers its inputs."""

    def __init__(self, grey: float = 0.5) -> None:
        super().__init__(build_encoder("alexnet?width=0.125&stem_stride=1", input_size=SIZE, seed=0))
        self.grey = grey
        self.seen: list[Tensor] = []
        self.was_training = True

    def losses(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        yield "task", torch.zeros((), requires_grad=True)

    def inpaint(self, images: Tensor, holes: Tensor) -> Tensor:
        self.seen.append(images)
        self.was_training = self.training
        return torch.full(images.shape, self.grey)


class Plain(Task):
    def losses(self, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        yield "task", torch.zeros((), requires_grad=True)


@pytest.fixture(scope="module")
def data() -> ImageDataset:
    return open_dataset(SPEC)


def some_pictures(count: int = 3, hole: MaskKind = "random_region") -> tuple[HoledPictures, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, 24, 24), dtype=torch.uint8, generator=generator)
    holes = draw_holes(hole, count, 24, generator)
    painted = torch.rand(count, 3, 24, 24, generator=generator)
    return HoledPictures(images, holes), torch.where(holes, painted, images.float() / 255)


# Errors


@pytest.mark.parametrize("hole", ["central", "random_block", "random_region"])
def test_errors_are_those_of_a_loop_over_hidden_pixels(hole: MaskKind) -> None:
    pictures, filled = some_pictures(hole=hole)
    found = hole_errors(filled, pictures)
    for i in range(3):
        truth, mine = pictures.images[i].double().numpy() / 255, filled[i].double().numpy()
        differences = [
            float(mine[c, y, x] - truth[c, y, x])
            for y, x in np.argwhere(pictures.holes[i, 0].numpy())
            for c in range(3)
        ]
        mse = sum(d * d for d in differences) / len(differences)
        assert found["L1"][i] == pytest.approx(100 * sum(map(abs, differences)) / len(differences))
        assert found["L2"][i] == pytest.approx(100 * mse)
        assert found["PSNR"][i] == pytest.approx(10 * math.log10(1 / mse))


def test_psnr_of_a_central_hole_is_scikit_images() -> None:
    pictures, filled = some_pictures(hole="central")
    for i, psnr in enumerate(hole_errors(filled, pictures)["PSNR"]):
        truth, mine = (each[i, :, 6:18, 6:18].double().numpy() for each in (pictures.images / 255, filled))
        assert psnr == pytest.approx(peak_signal_noise_ratio(truth, mine, data_range=1.0), abs=1e-4)


def similarity(one: NDArray[np.float64], other: NDArray[np.float64], y: int, x: int) -> float:
    """SSIM of two planes around a pixel, from equation 13 of Wang et al. 2004, their edges mirrored."""
    reach = 5
    offsets = np.arange(-reach, reach + 1)
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    weights = np.outer(line, line) / line.sum() ** 2
    windows = [
        np.pad(plane, reach, mode="symmetric")[y : y + 2 * reach + 1, x : x + 2 * reach + 1] for plane in (one, other)
    ]
    means = [(weights * window).sum() for window in windows]
    a, b = (window - mean for window, mean in zip(windows, means, strict=True))
    variances = [(weights * each * each).sum() for each in (a, b)]
    covariance = (weights * a * b).sum()
    c1, c2 = 0.01**2, 0.03**2
    return float(
        (2 * means[0] * means[1] + c1)
        * (2 * covariance + c2)
        / ((means[0] ** 2 + means[1] ** 2 + c1) * (variances[0] + variances[1] + c2))
    )


def test_ssim_is_that_of_the_formula_at_hidden_pixels() -> None:
    pictures, filled = some_pictures(count=2, hole="central")
    found = hole_errors(filled, pictures)["SSIM"]
    for i in range(2):
        truth, mine = pictures.images[i].double().numpy() / 255, filled[i].double().numpy()
        values = [
            similarity(mine[c], truth[c], int(y), int(x))
            for y, x in np.argwhere(pictures.holes[i, 0].numpy())
            for c in range(3)
        ]
        assert found[i] == pytest.approx(np.mean(values), abs=1e-6)


def test_a_whole_hole_has_the_ssim_of_the_whole_picture() -> None:
    pictures, _ = some_pictures(count=1)
    everywhere = HoledPictures(pictures.images, torch.ones_like(pictures.holes))
    painted = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    _, whole = structural_similarity(
        painted[0].double().numpy(),
        pictures.images[0].double().numpy() / 255,
        data_range=1.0,
        channel_axis=0,
        gaussian_weights=True,
        use_sample_covariance=False,
        full=True,
    )
    assert hole_errors(painted, everywhere)["SSIM"][0] == pytest.approx(whole.mean())


@pytest.mark.parametrize("hole", ["central", "random_block", "random_region"])
def test_sharpness_and_seam_are_those_of_a_loop_over_neighbours(hole: MaskKind) -> None:
    pictures, filled = some_pictures(hole=hole)
    found = hole_errors(filled, pictures)
    steps: dict[str, dict[str, list[float]]] = {name: {"mine": [], "true": []} for name in ("sharpness", "seam")}
    for i in range(3):
        hidden = pictures.holes[i, 0].numpy()
        for which, pixels in (("mine", filled), ("true", pictures.images / 255)):
            values, inside, across = pixels[i].double().numpy(), [], []
            for y, x in np.ndindex(hidden.shape):
                for there in ((y + 1, x), (y, x + 1)):
                    if max(there) < len(hidden) and (hidden[y, x] or hidden[there]):
                        step = np.abs(values[:, y, x] - values[:, there[0], there[1]]).mean()
                        (inside if hidden[y, x] and hidden[there] else across).append(step)
            steps["sharpness"][which].append(float(np.mean(inside)))
            steps["seam"][which].append(float(np.mean(across)))
    for name, both in steps.items():
        np.testing.assert_allclose(found[name], np.array(both["mine"]) / np.mean(both["true"]), rtol=1e-6)


def test_the_truth_has_the_sharpness_and_the_seam_of_one_and_one_colour_no_sharpness() -> None:
    pictures, _ = some_pictures(hole="central")
    truth = hole_errors(pictures.images.double() / 255, pictures)
    assert truth["sharpness"].mean() == pytest.approx(1) and truth["seam"].mean() == pytest.approx(1)
    grey = torch.where(pictures.holes, 0.5, pictures.images.float() / 255)
    assert (hole_errors(grey, pictures)["sharpness"] == 0).all()
    whole = pictures._replace(holes=torch.ones_like(pictures.holes))
    assert (hole_errors(grey, whole)["seam"] == 1).all()  # there is no border


def test_a_perfect_fill_has_finite_scores() -> None:
    pictures, _ = some_pictures()
    found = hole_errors(pictures.images.float() / 255, pictures)
    assert found["L1"].max() < 1e-5
    assert found["SSIM"] == pytest.approx(np.ones(3))
    assert found["PSNR"] == pytest.approx(np.full(3, 10 * math.log10(12 * 255**2)))


# Images and holes


def test_a_task_sees_the_mean_colour_and_is_left_as_it_was(data: ImageDataset) -> None:
    task = Grey()
    task.train()
    task.encoder.eval()
    pictures = drawn_pictures(data, image_size=SIZE, test_images=4, seed=0, hole="central")
    filled = filled_by(task, pictures)
    assert not task.was_training
    assert task.training
    assert not task.encoder.training
    inside = pictures.holes.expand_as(pictures.images)
    colour = torch.tensor(MEAN_COLOUR).view(1, 3, 1, 1).expand_as(filled)
    assert torch.equal(task.seen[0][inside], (255 * colour).round().byte()[inside])
    assert torch.equal(task.seen[0][~inside], pictures.images[~inside])
    assert (filled[inside] == 0.5).all()
    assert torch.equal(filled[~inside], pictures.images[~inside].float() / 255)


def test_what_is_painted_beyond_white_is_white(data: ImageDataset) -> None:
    pictures = drawn_pictures(data, image_size=SIZE, test_images=2, seed=0, hole="central")
    assert filled_by(Grey(7.0), pictures).max() == 1


def test_scores_keep_the_contract(data: ImageDataset) -> None:
    scores = inpainting_scores(Grey(), data, image_size=SIZE, test_images=6)
    assert [(s.metric, s.unit, s.higher_is_better) for s in scores] == [
        ("L1", "%", False),
        ("L2", "%", False),
        ("PSNR", "dB", True),
        ("SSIM", "", True),
        ("sharpness", "", True),
        ("seam", "", False),
    ]
    assert [s.metric for s in scores if s.headline] == ["PSNR"]
    for score in scores:
        assert score.items is not None
        assert score.n == len(score.items) == 6
        assert score.value == pytest.approx(score.items.mean())


def test_one_seed_hides_the_same_of_the_same_pictures(data: ImageDataset) -> None:
    def drawn(seed: int, count: int) -> HoledPictures:
        return drawn_pictures(data, image_size=SIZE, test_images=count, seed=seed, hole="random_block")

    first, again, other = drawn(0, 5), drawn(0, 5), drawn(1, 5)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.holes, again.holes)
    assert not torch.equal(first.images, other.images)
    assert not torch.equal(first.holes, other.holes)
    assert len(drawn(0, 1000).images) == len(data.split("test"))


def test_pictures_too_small_for_ssim_are_named(data: ImageDataset) -> None:
    with pytest.raises(UserError, match="at least 11"):
        inpainting_scores(Grey(), data, image_size=8)


# Baselines


def test_baselines_are_scored_on_the_same_pictures(data: ImageDataset) -> None:
    pictures = drawn_pictures(data, image_size=SIZE, test_images=6, seed=0, hole="central")
    found = {name: scores_of(filled, pictures) for name, filled in baseline_fills(pictures).items()}
    assert list(found) == ["mean colour", "interpolated"]
    psnr = {name: next(s.value for s in scores if s.metric == "PSNR") for name, scores in found.items()}
    assert psnr["interpolated"] > psnr["mean colour"]  # a horizon goes on through the hole


def test_the_mean_colour_is_of_what_is_visible() -> None:
    pictures, _ = some_pictures()
    filled = fill_mean_colour(pictures.images, pictures.holes)
    for i in range(3):
        hole = pictures.holes[i, 0].numpy()
        values = pictures.images[i].numpy() / 255
        for c in range(3):
            np.testing.assert_allclose(filled[i, c].numpy()[hole], values[c][~hole].mean(), atol=1e-5)
            np.testing.assert_allclose(filled[i, c].numpy()[~hole], values[c][~hole], atol=1e-6)


def test_interpolation_goes_on_with_what_is_linear() -> None:
    ramp = torch.arange(0, 240, 10, dtype=torch.uint8)
    images = ramp.view(1, 1, 1, 24).expand(1, 3, 24, 24).clone()
    holes = torch.zeros(1, 1, 24, 24, dtype=torch.bool)
    holes[..., 5:11] = True  # the whole height is hidden: nothing is visible above or below
    filled = fill_interpolated(images, holes)
    torch.testing.assert_close(filled, images.float() / 255)


def test_interpolation_is_that_of_a_loop() -> None:
    pictures, _ = some_pictures(count=2)
    filled = fill_interpolated(pictures.images, pictures.holes)
    for i in range(2):
        hole, values = pictures.holes[i, 0].numpy(), pictures.images[i].double().numpy() / 255
        for y, x in np.argwhere(hole):
            seen = []
            for dy, dx in ((0, 1), (0, -1), (1, 0), (-1, 0)):
                a, b, steps = y + dy, x + dx, 1
                while 0 <= a < 24 and 0 <= b < 24 and hole[a, b]:
                    a, b, steps = a + dy, b + dx, steps + 1
                if 0 <= a < 24 and 0 <= b < 24:
                    seen.append((1 / steps, values[:, a, b]))
            if seen:
                expected = sum(w * v for w, v in seen) / sum(w for w, _ in seen)
                np.testing.assert_allclose(filled[i, :, y, x].numpy(), expected, atol=1e-5)


def test_where_nothing_is_visible_there_is_no_nan() -> None:
    images = torch.full((1, 3, 12, 12), 9, dtype=torch.uint8)
    filled = fill_interpolated(images, torch.ones(1, 1, 12, 12, dtype=torch.bool))
    assert filled.isfinite().all()


# The sheet and the command


def test_a_sheet_shows_every_picture_under_its_heading(tmp_path: Path) -> None:
    red, blue = torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 16, 16)
    red[:, 0], blue[:, 2] = 1, 1
    columns = {"input": red, "context_encoder:adversarial?loss=l1": blue}
    sample_sheet(columns, tmp_path / "sheets" / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "sheets" / "sheet.png")).astype(int)
    for colour, half in (([255, 0, 0], 0), ([0, 0, 255], 1)):
        where = (pixels == colour).all(axis=-1)
        assert where.sum() == 2 * 112 * 112
        assert where[:, : pixels.shape[1] // 2].any() == (half == 0)
    heading = pixels[: np.argwhere((pixels == [255, 0, 0]).all(axis=-1))[0, 0] - 1]
    columns_with_ink = np.flatnonzero((heading < 128).all(axis=-1).any(axis=0))
    assert columns_with_ink.min() >= 6
    assert columns_with_ink.max() < 6 + 112 + 6 + 112  # a long heading is wrapped, not cut


def fake_runs(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    encoder = build_encoder("alexnet?width=0.125&stem_stride=1", input_size=SIZE, seed=0)
    larger = Grey()
    larger.encoder.input_size = 48
    tasks = {"grey": Grey(0.4), "dark": Grey(0.1), "plain": Plain(encoder), "larger": larger}
    for name in tasks:
        (root / name).mkdir()
        task = "rotation" if name == "plain" else "context_encoder"
        (root / name / "run.json").write_text(json.dumps({"task": task}))
    monkeypatch.setattr("pretext.inpainting.command.load_task", lambda folder: tasks[Path(folder).name])
    return {name: root / name for name in tasks}


def test_the_command_measures_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data: ImageDataset
) -> None:
    runs = fake_runs(tmp_path, monkeypatch)
    argv = ["--checkpoint", str(runs["grey"]), "--checkpoint", str(runs["dark"]), "--data", SPEC]
    assert inpaint_command([*argv, "--n", "3", "--out", str(tmp_path / "out")]) == 0
    found = json.loads((tmp_path / "out" / "inpaintings.json").read_text())["scores"]
    first = f"context_encoder {runs['grey']}"
    assert list(found) == [first, f"context_encoder {runs['dark']}", "mean colour", "interpolated"]
    expected = inpainting_scores(Grey(0.4), data, image_size=SIZE)
    for score in expected:
        assert found[first][score.metric]["value"] == pytest.approx(score.value)
    printed = capsys.readouterr().out
    row = next(line for line in printed.splitlines() if line.startswith(first))
    assert f"{expected[2].value:.2f}" in row
    with Image.open(tmp_path / "out" / "inpaintings.png") as sheet:
        assert sheet.width >= 6 * 112
        assert 3 * 112 < sheet.height < 5 * 112
    assert inpaint_command([*argv, "--test-images", "2", "--out", str(tmp_path / "few")]) == 0  # fewer than the sheet's
    assert "2 test images of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("checkpoints", "more", "word"),
    [
        (["plain"], [], "rotation has no decoder"),
        (["grey", "larger"], [], "trained at 48 px, but .*grey at 32 px"),
        ([], [], "give --checkpoint"),
        (["grey"], ["--n", "0"], "n is 0"),
        (["grey"], ["--hole", "round"], "round"),
        (["grey"], ["--sed", "1"], "did you mean --seed"),
    ],
)
def test_what_cannot_be_filled_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: list[str], more: list[str], word: str
) -> None:
    runs = fake_runs(tmp_path, monkeypatch)
    argv = [part for name in checkpoints for part in ("--checkpoint", str(runs[name]))]
    with pytest.raises(UserError, match=word) as caught:
        inpaint_command([*argv, "--data", SPEC, *more, "--out", str(tmp_path / "out")])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_what_was_trained_can_fill_holes(tmp_path: Path, data: ImageDataset) -> None:
    config = TrainConfig(steps=1, batch_size=4, samples=0)
    for name, task in (("painter", "context_encoder:adversarial"), ("turner", "rotation")):
        train(task, "alexnet?width=0.05&stem_stride=1", data, config, tmp_path / name, image_size=SIZE)
    argv = ["inpaint", "--data", SPEC, "--out", str(tmp_path / "out"), "--hole", "random_region"]
    assert main([*argv, "--checkpoint", str(tmp_path / "painter")]) == 0
    found = json.loads((tmp_path / "out" / "inpaintings.json").read_text())["scores"]
    assert list(found) == ["context_encoder:adversarial", "mean colour", "interpolated"]
    with pytest.raises(UserError, match="rotation has no decoder"):
        main([*argv, "--checkpoint", str(tmp_path / "turner")])
