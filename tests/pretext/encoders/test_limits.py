"""What a backbone cannot do is said in one line before anything is computed; and an encoder can be trained as it is."""

from __future__ import annotations

import pytest
import torch
from comparison_samples import plan
from module_samples import Residual, Tokens

from downstream import Detection, Robustness, Segmentation
from pretext.datasets import open_dataset
from pretext.encoders import Encoder, build_encoder, load_encoder
from pretext.encoders.trials import COMPUTED, check_stages, on_blank_images
from pretext.system.errors import UserError
from pretext.training.config import TrainConfig
from pretext.training.loop import train

DATA = "scenes?size=32&train=16&val=8&test=8"


@pytest.mark.parametrize("spec", ["torchvision:squeezenet1_1", "timm:test_convnext", "alexnet?stem_stride=4"])
def test_a_network_too_deep_for_the_pictures_stops_training_and_the_plan(spec, tmp_path):
    if spec.startswith("timm"):
        pytest.importorskip("timm", reason="timm is not installed")
    with pytest.raises(UserError, match=r"8 px"):
        train("rotation", spec, open_dataset(DATA), TrainConfig(steps=1), tmp_path / "run", image_size=8)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=r"give (another|a larger) (image|input) size"):
        plan(encoder=spec, image_size=8)


@pytest.mark.parametrize("probe", [Detection(batch_size=1), Segmentation(batch_size=1)])
def test_one_picture_at_once_of_one_cell_is_refused_by_the_plan_and_by_the_probe(probe):
    spec = "alexnet?width=0.1&stem_stride=2"  # pool5 has one cell at 16 px
    said = "batch_size is 1, and the deepest map of .* has one cell at 16 px: .* raise batch_size"
    with pytest.raises(UserError, match=f"probe mine: {said}"):
        plan({"mine": probe}, encoder=spec)
    encoder = build_encoder(spec, input_size=16, seed=0)
    with pytest.raises(UserError, match=said):
        next(iter(probe.evaluate(encoder, open_dataset(DATA))))


def test_a_probe_that_draws_the_architecture_anew_says_before_that_it_cannot():
    encoder = Encoder.wrap(Residual(), input_size=32)
    with pytest.raises(UserError, match="only Python can build it"):
        next(iter(Robustness().evaluate(encoder, open_dataset(DATA))))


@pytest.mark.parametrize("side", [32, COMPUTED + 8])
def test_a_trial_changes_nothing(side):
    module = Residual().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    state = torch.get_rng_state()
    shape = on_blank_images(module, (2, 3, side, side), module).shape
    assert shape == (2, 10) and module.training and torch.equal(torch.get_rng_state(), state)
    after = module.state_dict()
    assert all(torch.equal(value, after[name]) and not after[name].is_meta for name, value in before.items())


def test_a_module_with_values_of_its_own_is_tried_as_it_is():
    class Scaled(Residual):
        def __init__(self):
            super().__init__()
            self.scale = torch.ones(1, 3, 1, 1)  # neither a parameter nor a buffer

        def forward(self, x):
            return super().forward(x * self.scale)

    assert len(check_stages(Encoder.wrap(Scaled(), input_size=COMPUTED + 8)).stages) == 2


def test_an_encoder_is_trained_as_it_is_and_the_run_goes_on(tmp_path):
    def made():
        torch.manual_seed(0)
        return Encoder.wrap(Residual(), input_size=32)

    config = TrainConfig(steps=2, batch_size=4, workers=0, device="cpu")
    encoder = made()
    file = train("rotation", encoder, open_dataset(DATA), config, tmp_path / "run", image_size=32)
    loaded = load_encoder(file, module=Residual())
    assert torch.equal(loaded.model.stem.weight, encoder.model.stem.weight)
    assert not torch.equal(encoder.model.stem.weight, made().model.stem.weight)
    assert train("rotation", made(), open_dataset(DATA), config, tmp_path / "run", image_size=32) == file
    with pytest.raises(UserError, match="encoder_sha256"):  # it began with other weights
        train("rotation", encoder, open_dataset(DATA), config, tmp_path / "run", image_size=32)
    with pytest.raises(UserError, match="image_size is 64, but the encoder was made for 32 px"):
        train("rotation", made(), open_dataset(DATA), config, tmp_path / "run", image_size=64)


def test_a_task_that_reads_other_sizes_says_that_the_encoder_has_one(tmp_path):
    encoder = Encoder.wrap(Tokens(), input_size=32)
    with pytest.raises(UserError, match="cannot read"):
        train("dino", encoder, open_dataset(DATA), TrainConfig(steps=1), tmp_path / "run", image_size=32)
