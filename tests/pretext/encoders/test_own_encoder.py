"""An encoder in a file of one's own: built, trained, reloaded by path and content, and compared."""

from __future__ import annotations

import csv

import pytest
import torch
from comparison_samples import SPEC, run_smoke
from module_samples import example

from benchmarks.executors.computing import compute
from benchmarks.folders.reproduction import stored_cell
from benchmarks.planning.cells import encoder_cell, probe_cell
from benchmarks.planning.making import open_data
from benchmarks.planning.probes import default_probe
from benchmarks.planning.row_flags import encoder_rows
from benchmarks.planning.rows import PLAIN, Row
from benchmarks.records.results import read_measurements
from downstream.__main__ import main as judge_main
from pretext.__main__ import main
from pretext.datasets import open_dataset
from pretext.encoders import build_encoder, load_encoder, read_record, save_encoder
from pretext.encoders.files import encoder_digest
from pretext.system.errors import UserError
from pretext.tasks import build_task, task_names
from pretext.tasks.base import LabelKind
from pretext.training.config import TrainConfig
from pretext.training.loop import train
from pretext.training.run_folder import load_task

WRAPS = """
from torch import nn
from pretext.encoders import Encoder

def build(spec, path, config, input_size):
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1))
    return Encoder.wrap(net, input_size=input_size)
"""
HEAD = "from pretext.encoders import Encoder, Stage\nimport torch\n"
BUILD = "def build(spec, path, config, input_size):\n"
OWN = f"""{HEAD}
class A(Encoder):
    stages = (Stage("a", 4, 2), Stage("b", 4, 4))
    def __init__(self, *given):
        super().__init__(*given)
        self.conv = torch.nn.Conv2d(3, 4, 3, 2, 1)
    def maps(self, x):
        x = self.conv(x)
        return MAPS
{BUILD}    return A(spec, input_size)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "dilated.py"
    path.write_text(example("encoder"))
    return path


def run(file, out, task="rotation"):
    config = TrainConfig(steps=2, batch_size=8, workers=0, device="cpu")
    return train(
        task, f"{file}?width=8", open_dataset("scenes?size=32&train=16&val=8&test=8"), config, out, image_size=32
    )


def test_the_example_builds_and_its_options_are_its_config(file):
    encoder = build_encoder(f"{file}?width=8", input_size=32, seed=0)
    assert encoder.spec == f"{file}?width=8" and [stage.channels for stage in encoder.stages] == [8, 8, 8]
    for wrong, said in (
        ("width=0", "allowed is from 1"),
        ("widht=8", "did you mean 'width'"),
        ("width=a", "whole number"),
    ):
        with pytest.raises(UserError, match=said):
            build_encoder(f"{file}?{wrong}", input_size=32, seed=0)


def test_a_path_below_the_working_directory_becomes_absolute(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    assert build_encoder("dilated.py", input_size=32, seed=0).spec == str(file)


def test_it_trains_and_loads_and_the_run_goes_on(file, tmp_path):
    made = run(file, tmp_path / "run")
    encoder = load_encoder(made)
    assert encoder.spec == f"{file}?width=8" and encoder.record["encoder"] == f"{file}?width=8"
    assert torch.equal(load_task(tmp_path / "run").encoder.stem.weight, encoder.stem.weight)
    assert run(file, tmp_path / "run") == made
    file.write_text(file.read_text() + "# another version\n")
    with pytest.raises(UserError, match="encoder_code_sha256"):
        run(file, tmp_path / "run")
    with pytest.raises(UserError, match="was made with another version of"):
        load_task(tmp_path / "run")


def test_a_changed_or_missing_file_is_one_line_that_says_how_to_go_on(file, tmp_path):
    encoder = build_encoder(f"{file}?width=8", input_size=32, seed=1)
    save_encoder(encoder, made := tmp_path / "made.safetensors", {"images_seen": 7})
    assert len(read_record(made)["code_sha256"]) == 64
    file.write_text(file.read_text() + "# another version\n")
    with pytest.raises(UserError, match="was made with another version of") as caught:
        load_encoder(made)
    advised = str(caught.value).rsplit(": ", 1)[1]
    assert advised == f"{file}?width=8&weights={made}"
    loaded = load_encoder(advised)  # the advice works, at the size that the encoder file records
    assert loaded.input_size == 32 and torch.equal(loaded.stem.weight, encoder.stem.weight)
    (tmp_path / "ELSEWHERE").mkdir()
    file.rename(tmp_path / "ELSEWHERE" / file.name)
    with pytest.raises(UserError, match=f"in {file}, which is missing") as caught:
        load_encoder(made)
    advised = str(caught.value).rsplit(": ", 1)[1]
    assert torch.equal(load_encoder(f"{tmp_path}/{advised}").stem.weight, encoder.stem.weight)


def test_content_and_not_the_path_is_the_identity(file, tmp_path):
    source, _ = open_data(SPEC, 16, bad_images="skip", download=False)

    def identity(path):
        cells = (
            encoder_cell("random", seed=0, data=source, encoder=f"{path}?width=8", task="random", train=TrainConfig()),
            encoder_cell("mine", seed=0, data=source, encoder="alexnet", foreign=f"{path}?width=8"),
        )
        built = build_encoder(f"{path}?width=8", input_size=16, seed=0)
        return (*(cell.name for cell in cells), encoder_digest(built))

    (tmp_path / "elsewhere").mkdir()
    (moved := tmp_path / "elsewhere" / "dilated.py").write_text(file.read_text())
    before = identity(file)
    assert identity(moved) == before
    file.write_text(file.read_text() + "# another version\n")
    assert not set(identity(file)) & set(before)


def test_a_file_that_changes_during_a_comparison_is_refused_and_a_result_is_found_again(file, tmp_path):
    source, _ = open_data(SPEC, 16, bad_images="skip", download=False)
    maker = encoder_cell("random", seed=0, data=source, encoder=f"{file}?width=8", task="random", train=TrainConfig())
    cell = probe_cell(maker, "label_free", default_probe("label_free"), seed=0)
    for each in (maker, cell):
        compute(each, tmp_path)
    stored = read_measurements(tmp_path)[0]
    assert stored_cell(tmp_path, stored) == (maker, cell)
    file.write_text(file.read_text() + "# another version\n")
    with pytest.raises(UserError, match=r"dilated.py was changed during the run"):
        compute(maker, tmp_path)
    with pytest.raises(UserError, match="its settings have changed: encoder dilated@"):
        stored_cell(tmp_path, stored)


def test_a_row_is_called_after_the_file(file, capsys):
    assert encoder_rows((f"{file}?width=8", f"other={file}"), taken={}, size=32) == (
        Row("dilated?width=8", source=f"{file}?width=8"),
        Row("other", source=str(file)),
    )
    assert "nothing loaded" in capsys.readouterr().out
    with pytest.raises(UserError, match="No such file"):
        encoder_rows((f"{file}x.py",), taken={}, size=32)


def test_commands_take_it(file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data = ["--data", "scenes?size=16&train=20&val=8&test=20"]
    assert judge_main(["label_free", "--encoder", "random:dilated.py?width=8", "--image-size", "16", *data]) == 0
    assert judge_main(["label_free", "--encoder", "dilated.py?width=8", "--image-size", "16", *data]) == 0
    assert "tensors are as the file sets them" in capsys.readouterr().out
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert "my_encoder.py" in listed and "torchvision:resnet50" in listed


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        ("x = 1", "has no function build.*CONTRIBUTING.md has an example"),
        (f"class Config: pass\n{BUILD}    pass", "Config is no dataclass"),
        (f"{BUILD}    return 1", "build returns int, not an Encoder; return Encoder.wrap"),
        (f"{BUILD}    return undefined", "line 2: NameError: name 'undefined'"),
        (f"{BUILD}    raise ValueError('only 64 px')", "only 64 px"),
        ("import nothing_of_this_name", "line 1: ModuleNotFoundError"),
        (OWN.replace("MAPS", "[x]"), "returns 1 maps and declares 2 stages"),
        (OWN.replace("MAPS", "[x, x.mean((2, 3))]"), "stage b returns 1×4, not a map B×C×H×W"),
        (OWN.replace("MAPS", "[x, x[:, :3, ::2, ::2]]"), "stage b declares 4 channels and returns 1×3×8×8"),
        (OWN.replace("MAPS", "[x, x[:, :, ::8, ::8]]"), "declares stride 4, and its map of a picture of 32 px has 2×2"),
        (OWN.replace("MAPS", "[x, x]").replace('"b", 4, 4', '"a", 4, 2'), "two stages have one name"),
        (OWN.replace("MAPS", "1 / 0"), "cannot read images of 32 px, its input size .division by zero"),
    ],
)
def test_a_file_that_is_no_encoder_is_one_line(tmp_path, content, said):
    path = tmp_path / "mine.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=said) as caught:
        build_encoder(str(path), input_size=32, seed=0)
    assert "mine.py" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.slow
def test_every_task_that_fits_trains_it(file, tmp_path):
    (path := tmp_path / "small.py").write_text(WRAPS)
    fitted = []
    for name in task_names():
        for own in (f"{file}?width=8", str(path)):
            encoder = build_encoder(own, input_size=32, seed=0)
            try:
                build_task(name, encoder, labels=LabelKind(10, False), seed=0)
            except UserError as error:
                assert str(error).isprintable()
            else:
                fitted.append(name)
    missing = {"mae", "ijepa"}  # they need a vision transformer
    assert {name.partition(":")[0] for name in task_names()} - set(fitted) <= missing | {"simmim"}


@pytest.mark.slow
def test_a_comparison_trains_and_judges_it_in_spawned_workers(file, tmp_path):
    words = ["--architecture", f"{file}?width=8", "--encoder", f"mine={file}", "--data", SPEC, "--tasks", "rotation"]
    probes = ("--probes", "linear", "knn", "segmentation", "detection", "retrieval", "fine_tune", "label_free")
    assert run_smoke(tmp_path / "out", *words, *probes) == 0
    with (tmp_path / "out" / "results.csv").open(newline="") as results:
        rows = list(csv.DictReader(results))
    assert {(row["pretext"], row["probe"]) for row in rows} == {
        (pretext, probe) for pretext in ("random", "supervised", "rotation", "mine") for probe in probes[1:]
    } | {(plain.name, probe) for plain in PLAIN for probe in ("linear", "knn", "retrieval")}
    assert {row["encoder"] for row in rows} == {f"{file}?width=8", str(file), *(plain.source for plain in PLAIN)}
