"""Any module as an encoder: where its stages are, what its maps hold, and what it cannot do."""

from __future__ import annotations

import copy

import pytest
import torch
from module_samples import Branches, ChannelsLast, Residual, Tokens, alive, hooked
from torch import nn

from pretext.encoders import Encoder, build_encoder, load_encoder, save_encoder
from pretext.encoders.base import evaluating
from pretext.encoders.files import encoder_digest
from pretext.system.errors import UserError


def pictures(count=2, side=32):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def table(encoder):
    return [(stage.name, stage.channels, stage.stride) for stage in encoder.stages]


def test_the_last_map_of_each_resolution_is_outside_of_residual_branches_and_of_the_classifier():
    """`narrow` of the second stage has the first stage's resolution, and stands inside a branch."""
    encoder = Encoder.wrap(Residual(), input_size=32)
    assert table(encoder) == [("first", 8, 2), ("second", 16, 4)]
    assert encoder.spec == "module:Residual?stages=first,second"
    assert not any("fc" in name for name in encoder.state_dict())


def test_maps_are_what_the_modules_return_and_images_are_normalised():
    module = alive(Residual())
    encoder = Encoder.wrap(module, ["stem", "second.0", "second"], input_size=32, mean=(0.1, 0.2, 0.3), std=(1, 2, 3))
    mean, std = (torch.tensor(x).view(1, 3, 1, 1) for x in ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0)))
    expected = hooked(module, ["stem", "second.0", "second"], (pictures() - mean) / std)
    with torch.no_grad():
        for found, wanted in zip(encoder(pictures()), expected, strict=True):
            assert torch.equal(found, wanted)
    assert [name for name, *_ in table(encoder)] == ["stem", "second_0", "second"]


@pytest.mark.parametrize("registers", [0, 3])
def test_patch_tokens_form_maps_without_class_and_register_tokens(registers):
    module = alive(Tokens(registers))
    encoder = Encoder.wrap(module, input_size=32, mean=(0, 0, 0), std=(1, 1, 1))
    assert table(encoder) == [(f"blocks_{i}", 16, 8) for i in (1, 2, 3)]  # the last three, as timm gives
    expected = hooked(module, ["blocks.1", "blocks.2", "blocks.3"], pictures())
    with torch.no_grad():
        maps = encoder(pictures())
    for found, tokens in zip(maps, expected, strict=True):
        for row in range(4):
            for column in range(4):
                assert torch.allclose(found[:, :, row, column], tokens[:, 1 + registers + 4 * row + column], atol=1e-6)


def test_channels_last_is_told_from_channels_first_where_shapes_agree():
    module = alive(ChannelsLast())
    encoder = Encoder.wrap(module, ["first", "second"], input_size=32, mean=(0, 0, 0), std=(1, 1, 1))
    first, second = hooked(module, ["first", "second"], pictures())
    assert first.shape == second.shape == (2, 16, 16, 16)
    with torch.no_grad():
        maps = encoder(pictures())
    assert torch.equal(maps[0], first) and torch.equal(maps[1], second.permute(0, 3, 1, 2))


def test_each_mode_has_its_own_function_and_a_change_of_mode_by_hand_counts():
    """Dropout that is a function reads the mode of the whole part."""

    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 64, 1)

        def forward(self, x):
            return nn.functional.dropout(self.conv(x) * 0 + 1, 0.5, self.training) * 1

    encoder = Encoder.wrap(Dropping(), input_size=32).train()
    kept = lambda: (encoder(pictures())[-1] == 1).float().mean().item()  # noqa: E731
    assert kept() == 0  # halves are dropped, the others doubled
    with evaluating(encoder):
        assert kept() == 1
    assert kept() == 0
    assert copy.deepcopy(encoder).eval()(pictures())[-1].min() == 1


def test_it_shares_the_tensors_of_the_module_and_leaves_modes_alone():
    module = Residual().train()
    module.first.eval()
    encoder = Encoder.wrap(module, input_size=32)
    assert [part.training for part in (module, module.first, module.first[0].norm, module.second)] == [
        True, False, False, True,
    ]  # fmt: skip
    encoder(pictures())[-1].sum().backward()
    assert module.stem.weight.grad is not None and module.fc.weight.grad is None
    assert module.second[0].norm.num_batches_tracked == 1  # trials count none
    copied = copy.deepcopy(encoder)
    assert copied.model.stem.weight is not module.stem.weight and encoder.model.stem.weight is module.stem.weight


def test_a_file_is_loaded_into_a_module_of_the_same_architecture(tmp_path):
    encoder = Encoder.wrap(alive(Residual(), 1), ["second"], input_size=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1))
    save_encoder(encoder, tmp_path / "one", {"note": 1})
    module = Residual()
    loaded = load_encoder(tmp_path / "one", module=module)
    assert encoder_digest(loaded) == encoder_digest(encoder) and loaded.record == {"note": 1}
    assert (loaded.mean, loaded.std, table(loaded)) == (encoder.mean, encoder.std, table(encoder))
    assert torch.equal(module.stem.weight, encoder.model.stem.weight) and not loaded.training
    save_encoder(loaded, tmp_path / "two", {"note": 1})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with pytest.raises(UserError, match=r"module=Residual\(…\).*my_encoder.py"):
        load_encoder(tmp_path / "one")
    with pytest.raises(UserError, match="does not match its architecture"):
        load_encoder(tmp_path / "one", module=alive_wider())
    with pytest.raises(UserError, match="only Python can build it"):
        build_encoder(encoder.spec, input_size=32, seed=0)
    save_encoder(build_encoder("alexnet?width=0.1&stem_stride=1", input_size=32, seed=0), tmp_path / "alexnet", {})
    with pytest.raises(UserError, match="needs no module"):
        load_encoder(tmp_path / "alexnet", module=Residual())


def alive_wider():
    module = Residual()
    module.second[1].narrow, module.second[1].wide = nn.Conv2d(16, 5, 1), nn.Conv2d(5, 16, 3, padding=1)
    return module


def test_normalisation_is_part_of_the_identity():
    module = alive(Residual())
    usual, other = Encoder.wrap(module, input_size=32), Encoder.wrap(module, input_size=32, std=(1, 1, 1))
    assert encoder_digest(usual) != encoder_digest(other)


@pytest.mark.parametrize(
    ("module", "stages", "said"),
    [
        (Branches(), None, "Branches cannot be traced .*write an Encoder with `maps`"),
        (Residual(), ["secund"], "has no node 'secund'; did you mean 'second'"),
        (Residual(), ["fc"], "stage fc gives 2×10 for 2 pictures of 32 px, which is neither a map nor patch tokens"),
        (Residual(), ["second", "second.1"], "stages second and second.1 are one node"),
        (Residual(), [], "stages is \\[\\]; give a list of names"),
        (Residual(), "second", "stages is 'second'; give a list of names"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), None, "Sequential has no feature maps at 32 px"),
        (nn.Sequential(nn.Conv2d(3, 4, 40)), None, "Sequential cannot read images of 32 px .*give another input size"),
        (nn.Sequential(nn.Conv2d(1, 4, 3)), None, "cannot read images of 32 px"),
    ],
)
def test_what_a_module_cannot_do_is_one_line(module, stages, said):
    with pytest.raises(UserError, match=said) as caught:
        Encoder.wrap(module, stages, input_size=32)
    assert "\n" not in str(caught.value)


def test_other_arguments_are_checked():
    for wrong, said in (({"input_size": 0}, "input_size is 0"), ({"std": (1, 1)}, "give three numbers"),
                        ({"std": (1, 0, 1)}, "std above 0")):  # fmt: skip
        with pytest.raises(UserError, match=said):
            Encoder.wrap(Residual(), **wrong)
    with pytest.raises(UserError, match="is an encoder already"):
        Encoder.wrap(Encoder.wrap(Residual(), input_size=32))
