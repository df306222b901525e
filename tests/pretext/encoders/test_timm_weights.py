"""Weights of a timm model from a local file: all of them, or an error of one line; no code in a file runs."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from comparison_samples import SPEC, Constant, recipe
from safetensors.torch import save_file

from benchmarks.executors.computing import compute
from benchmarks.planning.cells import encoder_cell
from benchmarks.planning.making import Judging, make_plan, open_data
from benchmarks.planning.row_flags import encoder_rows
from benchmarks.planning.rows import Row
from benchmarks.records.results import encoder_path
from pretext.datasets import open_dataset
from pretext.encoders import build_encoder, load_encoder, read_record
from pretext.system.errors import UserError
from pretext.training.config import TrainConfig
from pretext.training.loop import train
from pretext.training.run_folder import load_task

timm = pytest.importorskip("timm", reason="timm is not installed")
NAME = "resnet10t"  # the smallest residual network in timm
VIT = "vit_tiny_patch16_224"


def published(name=NAME, seed=5, **options):
    """Return a model with changed weights, as a published one has."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = timm.create_model(name, pretrained=False, **options)
        for parameter in model.parameters():
            parameter.data.add_(0.01 * torch.randn_like(parameter))
        for key, value in model.named_buffers():
            if key.endswith("running_mean"):
                value.normal_()
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return published()


def file_of(model, tmp_path, name="weights.safetensors", wrapped=None):
    tensors, path = model.state_dict(), tmp_path / name
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({wrapped: tensors, "epoch": 3} if wrapped else tensors, path)
    return path


@pytest.mark.parametrize(
    ("name", "wrapped"), [("a.safetensors", None), ("a.pth", None), ("a.pth", "state_dict"), ("a.bin", "model")]
)
def test_the_whole_encoder_comes_from_the_file(model, tmp_path, name, wrapped):
    path = file_of(model, tmp_path, name, wrapped)
    encoder = load_encoder(f"timm:{NAME}?weights={path}", input_size=64)
    found, given = encoder.model.state_dict(), model.state_dict()
    assert set(given) - set(found) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, given[key]) for key, value in found.items())
    images = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        torch.testing.assert_close(encoder(images)[-1], model.forward_features((images - mean) / std))
    assert encoder.spec == f"timm:{NAME}" and len(encoder.record["weights_sha256"]) == 64
    assert not any("state_dict" in getattr(part, "pretrained_cfg", {}) for part in encoder.modules())


@pytest.mark.slow
def test_a_transformers_positions_are_resampled(tmp_path):
    model = published(VIT)
    encoder = load_encoder(f"timm:{VIT}?weights={file_of(model, tmp_path)}", input_size=64)
    found, given = encoder.model.state_dict(), model.state_dict()
    same = [key for key in found if torch.equal(found[key], given.get(key.removeprefix("model."), torch.zeros(0)))]
    assert set(found) - set(same) == {"model.pos_embed"}
    assert found["model.pos_embed"].shape == (1, 1 + 16, 192)
    images = torch.rand(1, 3, 224, 224)
    whole = load_encoder(f"timm:{VIT}?weights={file_of(model, tmp_path)}", input_size=224)
    with torch.no_grad():
        theirs = model.forward_intermediates((images - 0.5) / 0.5, indices=1, intermediates_only=True)[-1]
        torch.testing.assert_close(whole(images)[-1], theirs)


@pytest.mark.slow
def test_another_number_of_classes_and_no_classifier_do_no_harm(tmp_path):
    for classes in (7, 0):
        path = file_of(published(num_classes=classes), tmp_path, f"{classes}.safetensors")
        assert build_encoder(f"timm:{NAME}?weights={path}", input_size=32, seed=0).stages


class Harm:
    def __reduce__(self):
        return (pytest.fail, ("code in a file was run",))


def broken(tmp_path, model, how):
    tensors, path = dict(model.state_dict()), tmp_path / "w.pth"
    if how == "missing":
        del tensors["conv1.0.weight"], tensors["bn1.bias"], tensors["bn1.weight"], tensors["layer1.0.conv1.weight"]
    if how == "extra":
        tensors["neck.odd"] = torch.zeros(1)
    if how == "shape":
        tensors["conv1.0.weight"] = tensors["conv1.0.weight"][:, :1]
    if how == "pickle":
        path.write_bytes(pickle.dumps(Harm()))
    elif how == "object":
        torch.save({"state_dict": tensors, "args": Harm()}, path)
    elif how == "list":
        torch.save([1, 2], path)
    elif how == "none":
        torch.save({"epoch": 3}, path)
    elif how.startswith("cut at"):
        torch.save(tensors, path)
        path.write_bytes(path.read_bytes()[: int(how.removeprefix("cut at "))])
    elif how == "text":  # begins like a pickle
        path.write_text("this is no picture\n")
    elif how == "cut safetensors":
        path = file_of(model, tmp_path, "w.safetensors")
        path.write_bytes(path.read_bytes()[:1000])
    elif how != "nowhere":
        torch.save(tensors, path)
    return path


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "missing conv1.0.weight; missing bn1.weight; missing bn1.bias and 1 more; nothing was loaded"),
        ("extra", "unexpected neck.odd"),
        ("shape", "conv1.0.weight has shape (24, 1, 3, 3), expected (24, 3, 3, 3)"),
        ("pickle", "not a complete file of plain tensors"),
        ("object", "not a complete file of plain tensors"),
        ("list", "contains no named tensors"),
        ("none", "contains no named tensors"),
        ("cut at 1000", "not a complete file"),
        ("cut at 5000", "not a complete file"),
        ("text", "not a complete file of plain tensors"),
        ("cut safetensors", "not a complete file"),
        ("nowhere", "there is no such file"),
    ],
)
def test_what_does_not_fit_is_one_line_before_anything_is_computed(model, tmp_path, how, said):
    path = broken(tmp_path, model, how)
    with pytest.raises(UserError) as caught:
        encoder_rows((f"mine=timm:{NAME}?weights={path}",), taken={}, size=32)
    assert said in str(caught.value) and path.name in str(caught.value) and "\n" not in str(caught.value)


def test_two_sources_are_one_too_many(tmp_path):
    with pytest.raises(UserError, match="give one"):
        build_encoder(f"timm:{NAME}?pretrained=true&weights=x.pth", input_size=32, seed=0)


def test_rows_have_short_names_and_hashes_follow_the_file(model, tmp_path):
    first, second = file_of(model, tmp_path, "one.safetensors"), file_of(published(seed=6), tmp_path, "two.safetensors")
    moved = file_of(model, tmp_path, "moved.safetensors")
    specs = {path.stem: f"timm:{NAME}?weights={path}" for path in (first, second, moved)}
    found = encoder_rows((specs["one"], f"mine={specs['two']}"), taken={}, size=32)
    assert found == (Row(f"timm:{NAME} one", source=specs["one"]), Row("mine", source=specs["two"]))
    with pytest.raises(UserError, match="a row is called mine already"):
        encoder_rows((f"mine={specs['one']}", f"mine={specs['two']}"), taken={}, size=32)
    source, _ = open_data(SPEC, 16, bad_images="skip", download=False)
    cells = {
        key: encoder_cell("mine", seed=0, data=source, encoder="alexnet", foreign=spec) for key, spec in specs.items()
    }
    assert cells["one"].name == cells["moved"].name != cells["two"].name
    assert str(tmp_path) not in cells["one"].settings
    named = encoder_cell("mine", seed=0, data=source, encoder="alexnet", foreign=f"timm:{NAME}")
    assert named.name != cells["one"].name


def test_a_row_is_computed_and_its_file_stands_alone(model, tmp_path):
    path = file_of(model, tmp_path)
    source, data = open_data("scenes?size=32&train=8&val=4&test=4", 32, bad_images="skip", download=False)
    planned = make_plan(
        recipe(image_size=32), [Judging(source, data, {"a": Constant()})], seeds=1,
        rows=[Row("mine", source=f"timm:{NAME}?weights={path}")],
    )  # fmt: skip
    for cell in planned.cells:
        compute(cell, tmp_path / "out")
    made = encoder_path(tmp_path / "out", planned.cells[0].name)
    path.unlink()
    encoder = load_encoder(made)
    assert torch.equal(encoder.model.state_dict()["layer4.0.conv1.weight"], model.state_dict()["layer4.0.conv1.weight"])
    assert read_record(made)["record"]["weights_sha256"]


@pytest.mark.slow
def test_training_starts_from_the_file_and_is_loaded_without_it(model, tmp_path):
    path = file_of(model, tmp_path)
    config = TrainConfig(steps=1, batch_size=4, workers=0, device="cpu", learning_rate=1e-12, weight_decay=0.0)
    data = open_dataset("scenes?size=32&train=8&val=4&test=4")
    train("rotation", f"timm:{NAME}?weights={path}", data, config, tmp_path / "run", image_size=32)
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["encoder"] == f"timm:{NAME}?weights={path}"
    path.unlink()
    for encoder in (load_task(tmp_path / "run").encoder, load_encoder(tmp_path / "run" / "encoder.safetensors")):
        torch.testing.assert_close(
            encoder.model.state_dict()["layer4.0.conv1.weight"], model.state_dict()["layer4.0.conv1.weight"]
        )
