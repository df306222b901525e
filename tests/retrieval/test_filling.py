"""Filling holes from other pictures: blending against a dense solution, and neighbours that must be found."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from pretext.datasets import open_dataset
from pretext.encoders import build_encoder, save_encoder
from pretext.inpainting.measuring import HoledPictures
from pretext.system.errors import UserError
from pretext.training.config import TrainConfig
from pretext.training.loop import train
from pretext.transforms.masks import central
from retrieval.__main__ import main
from retrieval.filling import by_hog, by_stages, fill_from, nearest_rows
from retrieval.probes.nearest_fill import NearestFill


def pictures(count=3, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def dense_blend(around, source, hole):
    """Solve f_p's equations (Pérez et al. 2003, equation 7) pixel by pixel, for one channel."""
    inside = [tuple(p) for p in np.argwhere(hole)]
    matrix, right = np.zeros((len(inside), len(inside))), np.zeros(len(inside))
    for i, (y, x) in enumerate(inside):
        for q in ((y, x + 1), (y, x - 1), (y + 1, x), (y - 1, x)):
            if not (0 <= q[0] < hole.shape[0] and 0 <= q[1] < hole.shape[1]):
                continue
            matrix[i, i] += 1
            right[i] += source[y, x] - source[q]
            if hole[q]:
                matrix[i, inside.index(q)] -= 1
            else:
                right[i] += around[q]
    result = around.copy()
    for value, place in zip(np.linalg.solve(matrix, right), inside, strict=True):
        result[place] = value
    return result


def test_blending_solves_poissons_equation():
    images, sources = pictures(3, 9), pictures(3, 9, seed=1)
    holes = torch.zeros(3, 1, 9, 9, dtype=torch.bool)
    holes[0, 0, 2:6, 3:7] = True
    holes[1, 0, 0:3, 5:9] = True  # touches the picture's corner
    holes[2, 0, 1, 1:4] = holes[2, 0, 5:8, 2] = holes[2, 0, 6, 2:6] = True  # two pieces
    found = fill_from(HoledPictures(images, holes), sources).double().numpy()
    for k in range(3):
        for channel in range(3):
            around, source = (x[k, channel].double().numpy() / 255 for x in (images, sources))
            wanted = dense_blend(around, source, holes[k, 0].numpy()).clip(0, 1)
            np.testing.assert_allclose(found[k, channel], wanted, atol=1e-5)


def test_the_same_gradients_give_the_same_picture_back():
    images = pictures(2) // 2
    filled = fill_from(HoledPictures(images, central(2, 16)), images + 100)
    torch.testing.assert_close(filled, images.float() / 255, atol=1e-5, rtol=0)


def test_without_blending_the_hole_shows_the_other_picture():
    images, sources, holes = pictures(2), pictures(2, seed=1), central(2, 16)
    filled = fill_from(HoledPictures(images, holes), sources, blended=False)
    torch.testing.assert_close(filled, torch.where(holes, sources, images).float() / 255)


def test_what_is_hidden_is_not_looked_at():
    encoder = build_encoder("alexnet?width=0.125&stem_stride=1", input_size=16, seed=0)
    images, holes = pictures(4), central(4, 16)
    others = torch.where(holes, pictures(4, seed=1), images)
    for one, other in zip(
        (by_hog(HoledPictures(images, holes)), *by_stages(encoder, HoledPictures(images, holes)).values()),
        (by_hog(HoledPictures(others, holes)), *by_stages(encoder, HoledPictures(others, holes)).values()),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
        torch.testing.assert_close(one.norm(dim=1), torch.ones(4))


def test_the_picture_itself_is_the_nearest():
    encoder = build_encoder("alexnet?width=0.125&stem_stride=1", input_size=16, seed=0)
    database = HoledPictures(pictures(20), central(20, 16))
    queries = HoledPictures(database.images[[3, 17, 8]], central(3, 16))
    for stage, vectors in by_stages(encoder, queries).items():
        assert nearest_rows(vectors, by_stages(encoder, database)[stage]).tolist() == [3, 17, 8]
    assert nearest_rows(by_hog(queries), by_hog(database)).tolist() == [3, 17, 8]


def test_the_probe(tmp_path):
    data = open_dataset("scenes?size=16&train=60&val=20&test=12")
    encoder = build_encoder("alexnet?width=0.125&stem_stride=1", input_size=16, seed=0)
    scores = list(NearestFill().evaluate(encoder, data, tmp_path))
    (headline,) = [score for score in scores if score.headline]
    assert (headline.metric, headline.n) == ("PSNR", 12)
    assert {score.stage for score in scores} == {stage.name for stage in encoder.stages}
    assert (tmp_path / "nearest_fill.png").is_file()
    few = list(NearestFill(database=1).evaluate(encoder, data))
    values = {(s.stage, s.metric): s.value for s in few}
    assert len({values[stage.name, "PSNR"] for stage in encoder.stages}) == 1  # the only picture fills every hole


@pytest.mark.parametrize("settings", [{"database": 0}, {"test_images": -1}])
def test_settings_out_of_range(settings):
    with pytest.raises(ValueError, match=r"allowed is [01] or more"):
        NearestFill(**settings)


def test_the_command_compares_encoders_decoders_and_baselines(tmp_path, capsys):
    data, spec = "scenes?size=16&train=60&val=20&test=12", "alexnet?width=0.125&stem_stride=1"
    config = TrainConfig(steps=1, batch_size=4, workers=0, device="cpu")
    made = train("context_encoder", spec, open_dataset(data), config, tmp_path / "run", image_size=16)
    random = tmp_path / "random.safetensors"
    save_encoder(build_encoder(spec, input_size=16, seed=0), random, {"task": "random"})
    words = ["--encoder", str(made), "--encoder", str(random), "--checkpoint", str(tmp_path / "run"), "--data", data]
    assert (
        main(["inpaint", *words, "--test-images", "3", "--out", str(tmp_path / "few")]) == 0
    )  # fewer than the sheet's
    assert "3 test pictures of" in capsys.readouterr().out
    assert main(["inpaint", *words, "--out", str(tmp_path / "fills")]) == 0
    said = capsys.readouterr().out
    for name in ("nearest by HOG", "nearest by context_encoder pool5", "nearest by random pool5", "interpolated"):
        assert name in said
    scores = json.loads((tmp_path / "fills" / "fills.json").read_text())["scores"]
    assert set(scores["context_encoder"]) == {"L1", "L2", "PSNR", "SSIM", "sharpness", "seam"}
    assert (tmp_path / "fills" / "fills.png").is_file()
    save_encoder(build_encoder(spec, input_size=32, seed=0), random, {"task": "random"})
    with pytest.raises(UserError, match="has input size 32 px, the first one 16 px"):
        main(["inpaint", *words])
    with pytest.raises(UserError, match="give --encoder"):
        main(["inpaint", "--data", data])
