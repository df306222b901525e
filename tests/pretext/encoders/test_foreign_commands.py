"""External checkpoints through the commands: probes, index, comparison and training."""

from __future__ import annotations

import pytest
from comparison_samples import SPEC, Constant, recipe
from safetensors.torch import save_file
from weight_file_samples import moco_v2, saved

import downstream.__main__ as downstream_command
import retrieval.__main__ as retrieval_command
from benchmarks.executors.computing import compute
from benchmarks.planning.cells import encoder_cell
from benchmarks.planning.making import Judging, make_plan, open_data
from benchmarks.planning.row_flags import encoder_rows
from benchmarks.planning.rows import Row
from benchmarks.records.results import encoder_path
from pretext.datasets import open_dataset
from pretext.encoders import build_encoder, load_encoder, read_record
from pretext.encoders.foreign import loaded_line
from pretext.system.errors import UserError
from pretext.training.config import TrainConfig
from pretext.training.loop import train
from pretext.training.run_folder import load_task

DATA = "scenes?size=32&train=8&val=4&test=4"


def test_a_probe_prints_what_was_loaded(partial, capsys):
    argv = ["knn", "--encoder", f"timm:resnet10_of_test?weights={partial}", "--data", SPEC, "--image-size", "32"]
    with pytest.raises(UserError, match="--allow-partial"):
        downstream_command.main(argv)
    assert downstream_command.main([*argv, "--allow-partial"]) == 0
    assert "55 of 60 tensors loaded, own names; skipped: fc (2); left random: layer4.0.conv" in capsys.readouterr().out


def test_an_index_finds_its_weights_from_any_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tensors = build_encoder("alexnet?width=0.125", input_size=224, seed=1).state_dict()
    saved({name: value for name, value in tensors.items() if name != "convs.4.0.weight"}, tmp_path)
    argv = ["index", "--encoder", "alexnet?width=0.125&weights=weights.pth", "--data", DATA, "--out", "index"]
    with pytest.raises(UserError, match="--allow-partial"):
        retrieval_command.main(argv)
    assert retrieval_command.main([*argv, "--allow-partial", "--mode", "images", "--limit", "3"]) == 0
    assert "left random: convs.4.0.weight; " in capsys.readouterr().out
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert retrieval_command.main(["search", str(tmp_path / "index"), "--query", "0", "-k", "1"]) == 0


def test_a_row_of_the_comparison_keeps_what_was_loaded(resnet, partial, tmp_path, capsys):
    text = f"mine=timm:resnet10_of_test?weights={partial}"
    with pytest.raises(UserError, match=r"missing layer4\.0"):
        encoder_rows((text,), taken={}, size=32)
    rows = encoder_rows((text,), taken={}, size=32, allow_partial=True)
    assert capsys.readouterr().out.startswith("mine: timm:resnet10_of_test?weights=")
    judged = Judging(*open_data(DATA, 32, bad_images="skip", download=False), {"a": Constant()})
    plan = make_plan(recipe(image_size=32), [judged], rows=rows, seeds=1)
    compute(plan.cells[0], tmp_path / "out")
    record = read_record(encoder_path(tmp_path / "out", plan.cells[0].name))["record"]
    assert record["weights"]["loaded"] == 55 and len(record["weights"]["left_random"]) == 5
    assert len(record["weights_sha256"]) == 64


def test_a_rows_identity_is_its_files_and_says_no_path(resnet, other, tmp_path):
    source, _ = open_data(SPEC, 16, bad_images="skip", download=False)
    both, moved = saved(moco_v2(resnet, other), tmp_path), tmp_path / "moved.pth"
    moved.write_bytes(both.read_bytes())

    def name(spec):
        made = encoder_cell("mine", seed=0, data=source, encoder="alexnet", foreign=spec)
        assert str(tmp_path) not in made.settings
        return made.name

    spec = f"timm:resnet10_of_test?weights={both}"
    assert name(spec) == name(f"timm:resnet10_of_test?weights={moved}") == name(f"{spec}&allow_partial=true")
    others = [f"{spec}&prefix=encoder_k", f"timm:resnet34?weights={both}", f"alexnet?weights={both}", "timm:resnet18"]
    assert len({name(one) for one in (spec, *others)}) == 5


def test_a_spec_by_itself_names_its_row(tmp_path):
    save_file(
        build_encoder("alexnet?width=0.25&stem_stride=2", input_size=32, seed=1).state_dict(),
        tmp_path / "own.safetensors",
    )
    spec = f"alexnet?width=0.25&stem_stride=2&weights={tmp_path / 'own.safetensors'}"
    assert encoder_rows((spec,), taken={}, size=64) == (Row("alexnet?width=0.25&stem_stride=2 own", source=spec),)


@pytest.mark.slow
def test_training_goes_on_from_a_part_and_remembers_it(partial, tmp_path):
    config = TrainConfig(steps=1, batch_size=4, workers=0, device="cpu")
    spec = f"timm:resnet10_of_test?weights={partial}&allow_partial=true"
    file = train("rotation", spec, open_dataset(DATA), config, tmp_path / "run", image_size=32)
    partial.unlink()
    assert load_task(tmp_path / "run").encoder.spec == load_encoder(file).spec == "timm:resnet10_of_test"
    assert read_record(file)["record"]["started_from"]["loaded"] == 55
    assert loaded_line(load_encoder(file), str(file)).endswith("none skipped, none left random")
