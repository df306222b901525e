"""A stored cell is rebuilt from its settings, or refused with the reason; and which values count as reproduced."""

from __future__ import annotations

import dataclasses
import json

import pytest
from comparison_samples import Constant, computed, plan, row

from benchmarks.folders.reproduction import GPU_TOLERANCE, compare_values, same_value, stored_cell
from benchmarks.planning import cells, probes
from benchmarks.planning.cells import Inpainting
from pretext.encoders import build_encoder, save_encoder
from pretext.judging import probe_in_file
from pretext.system.errors import UserError
from pretext.training.config import TrainConfig

OWN_PROBE = """
from dataclasses import dataclass
from typing import ClassVar

from pretext.judging import Probe, Score


@dataclass(frozen=True)
class Mine(Probe):
    needs: ClassVar = (frozenset({"label"}),)
    ks: tuple[int, ...] = (1, 2)

    def evaluate(self, encoder, data, out=None):
        yield Score("top1", float(sum(self.ks)), "%", True, None, 1, headline=True)
"""


@pytest.fixture(autouse=True)
def probe_types(monkeypatch):
    monkeypatch.setattr(probes, "probe_types", lambda: {"a": Constant, "b": Constant})


@pytest.mark.parametrize("row", ["random", "rotation"])
def test_a_cell_is_the_same_made_from_what_lies_beside_its_numbers(tmp_path, row):
    encoder, cell, stored = computed(plan(), tmp_path, row)
    assert stored_cell(tmp_path, stored) == (_only_what_is_hashed(encoder), _only_what_is_hashed(cell))


def test_a_cell_that_learned_elsewhere_is_made_again_there(tmp_path):
    other = "scenes?size=16&train=9&val=4&test=4&seed=3"
    encoder, cell, stored = computed(plan(pretrain_data=other), tmp_path, "rotation")
    again = stored_cell(tmp_path, stored)
    assert again == (_only_what_is_hashed(encoder), _only_what_is_hashed(cell))
    assert [each.data.spec for each in again] == [other, stored.data]


def test_a_row_from_given_weights_is_the_same_wherever_they_lie(tmp_path):
    spec = "alexnet?width=0.1&stem_stride=1"
    files = [tmp_path / "one" / "given.safetensors", tmp_path / "other" / "moved.safetensors", tmp_path / "new"]
    for file, seed in zip(files, (7, 7, 8), strict=True):
        save_encoder(build_encoder(spec, input_size=16, seed=seed), file, {})
    plans = [plan(training={"rotation": {"init": str(file)}}) for file in files]
    names = [[cell.name for cell in each.cells if cell.pretext == "rotation"] for each in plans]
    assert names[0] == names[1]
    assert not {*names[0]} & {*names[2]}
    encoder, cell, stored = computed(plans[0], tmp_path, "rotation")
    assert stored_cell(tmp_path, stored) == (_only_what_is_hashed(encoder), _only_what_is_hashed(cell))
    assert stored_cell(tmp_path, stored)[0].train.init == str(files[0])


def _only_what_is_hashed(cell):
    """Return the cell with default training settings where they do not affect the encoder."""
    if cell.task == "random":  # takes no steps: its cells have default settings anyway
        return cell
    return dataclasses.replace(cell, train=TrainConfig(images=8, batch_size=4, init=cell.train.init))


def test_a_decoders_cell_is_made_again(tmp_path):
    planned = plan({"inpainting": Inpainting(test_images=4)}, rows={"context_encoder": "context_encoder"})
    _, cell, stored = computed(planned, tmp_path, "context_encoder", "inpainting")
    assert stored_cell(tmp_path, stored)[1].protocol == cell.protocol == Inpainting(test_images=4)


def test_an_encoder_from_elsewhere_is_made_again_while_its_file_is_there(tmp_path):
    file = tmp_path / "theirs.safetensors"
    save_encoder(build_encoder("alexnet?width=0.1&stem_stride=1", input_size=16, seed=3), file, {})
    encoder, cell, stored = computed(plan(rows={}, sources={"theirs": str(file)}), tmp_path / "out", "theirs")
    again = stored_cell(tmp_path / "out", stored)
    assert [(each.name, each.foreign) for each in again] == [(encoder.name, str(file)), (cell.name, str(file))]
    save_encoder(build_encoder("alexnet?width=0.1&stem_stride=1", input_size=16, seed=4), file, {})
    cells._weights_digest.cache_clear()  # a new process would have no cache
    with pytest.raises(UserError, match="its settings have changed: foreign "):
        stored_cell(tmp_path / "out", stored)
    file.unlink()
    cells._weights_digest.cache_clear()
    with pytest.raises(UserError, match=r"theirs\.safetensors: No such file or directory; restore the file, or run fr"):
        stored_cell(tmp_path / "out", stored)


def test_a_probe_in_a_file_is_found_again_and_its_tuples_are_tuples(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN_PROBE)
    _, cell, stored = computed(plan({"mine": probe_in_file(file)(ks=(3, 4))}), tmp_path / "out", "random", "mine")
    again = stored_cell(tmp_path / "out", stored)[1]
    assert again.name == cell.name
    assert again.protocol.ks == (3, 4)
    file.write_text(OWN_PROBE + "\n# another version\n")
    with pytest.raises(UserError, match=r"its settings have changed: probe mine@\w+ and mine@\w+; "):
        stored_cell(tmp_path / "out", stored)


def changed(stored, **settings):
    return dataclasses.replace(stored, config_json=json.dumps(json.loads(stored.config_json) | settings))


def test_a_changed_cell_is_refused_with_the_reason(tmp_path, monkeypatch):
    _, _, stored = computed(plan(), tmp_path, "rotation")
    stored = dataclasses.replace(stored, git_sha="0ff1ce", git_dirty=True)
    monkeypatch.setattr(cells, "CODE", cells.CODE + 1)
    message = rf"its settings have changed: code {cells.CODE - 1} and {cells.CODE}; check out 0ff1ce \(plus uncommitted"
    with pytest.raises(UserError, match=message):
        stored_cell(tmp_path, stored)
    monkeypatch.undo()
    monkeypatch.setattr(probes, "probe_types", dict)
    with pytest.raises(UserError, match=r"cannot read its settings \('a'\); check out 0ff1ce"):
        stored_cell(tmp_path, stored)
    with pytest.raises(UserError, match=r"cannot read its settings \(.*'momentum'\); check out 0ff1ce"):
        stored_cell(tmp_path, changed(stored, train={"momentum": 0.9}))
    with pytest.raises(UserError, match=r"unknown dataset|did you mean|no kind"):
        stored_cell(tmp_path, dataclasses.replace(stored, data="scnes?size=16"))


@pytest.mark.parametrize(
    ("was", "now", "device", "same"),
    [
        (0.3, 0.1 + 0.2, "cpu", False),
        (0.3, 0.3, "cpu", True),
        (50.0, 50.0 * (1 - 0.9 * GPU_TOLERANCE), "NVIDIA H100", True),
        (50.0, 50.0 * (1 - 1.1 * GPU_TOLERANCE), "NVIDIA H100", False),
        (50.0 * (1 - 0.9 * GPU_TOLERANCE), 50.0, "cpu", False),
        (-2.0, 2.0, "NVIDIA H100", False),
        (0.0, 0.0, "NVIDIA H100", True),
    ],
)
def test_a_cpu_value_must_be_identical_and_a_gpu_value_within_the_tolerance(was, now, device, same):
    assert same_value(was, now, device) is same


def test_the_tolerance_is_printed_and_so_is_a_value_that_is_gone():
    gpu = {"device": "NVIDIA H100"}
    lines, same = compare_values([row("x", value=50.0, **gpu)], [row("x", value=50.5, **gpu)])
    assert (lines, same) == (["top1 conv3: was 50.0, is 50.5", "reproduced within 2%, as required on a GPU"], True)
    before = [row("x", value=50.0), row("x", value=9.0, metric="top5")]
    lines, same = compare_values(before, before[:1])
    assert not same
    assert lines[1] == "top5 conv3: was 9.0, is missing"
    assert not compare_values(before[:1], before)[1]


def test_possible_reasons_are_named_where_a_value_is_not_reproduced():
    timed = json.dumps({"train": {"seconds": 4.0}})
    before = row("x", value=50.0, config_json=timed, git_dirty=True, torch_version="2.9", git_sha="a")
    lines, same = compare_values([before], [row("x", value=50.5, torch_version="2.10", git_sha="a", device="H100")])
    assert not same
    assert lines[-1] == (
        "NOT reproduced bit for bit, as required on a CPU; the training budget was 4.0 seconds, which is not "
        "repeatable; the stored value comes from uncommitted code; device was cpu, is H100; PyTorch was 2.9, is 2.10"
    )


def test_an_encoder_that_changed_code_has_trained_makes_its_results_dirty(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.executors.computing.revision", lambda: ("0ff1ce", False))
    for dirty in (True, False):
        file = tmp_path / f"{dirty}.safetensors"
        encoder = build_encoder("alexnet?width=0.1&stem_stride=1", input_size=16, seed=int(dirty))
        save_encoder(encoder, file, {"git_dirty": dirty})
        _, _, stored = computed(plan(rows={}, sources={"theirs": str(file)}), tmp_path / str(dirty), "theirs")
        assert (stored.git_sha, stored.git_dirty) == ("0ff1ce", dirty)
