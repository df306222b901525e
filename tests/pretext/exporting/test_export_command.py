"""`python -m pretext export`: what it prints, what the card says, and what it refuses."""

from __future__ import annotations

import re
import sys
import warnings

import pytest
import torch
from exporting_samples import alive, block, run_cards

from pretext.__main__ import main
from pretext.encoders import load_encoder, save_encoder
from pretext.exporting.writing import export_encoder
from pretext.system.errors import UserError

ALEXNET = "alexnet?width=0.125&stem_stride=2"
RECORD = {
    "task": "simclr",
    "task_config": {"temperature": 0.5},
    "data": "folder:photos|1",
    "data_fingerprint": "f1e2",
    "images_seen": 640,
    "train_config": {"seed": 5, "batch_size": 16},
    "version": "0.1.0",
    "git_sha": "abc",
    "mentor": "nobody",
}


@pytest.fixture
def file(tmp_path):
    save_encoder(alive(ALEXNET, 32), tmp_path / "mine.safetensors", RECORD)
    return tmp_path / "mine.safetensors"


def exported(file, to, out, *more):
    return main(["export", "--encoder", str(file), "--to", to, "--out", str(out), *more])


def test_the_printed_lines_load_the_file(file, tmp_path, capsys):
    out = tmp_path / 'a "quoted" nämé.pt'
    assert exported(file, "torchscript", out) == 0
    printed = capsys.readouterr().out
    lines = re.findall(r"^    (.*)$", printed, re.MULTILINE)
    names: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer versions of PyTorch say that TorchScript is old
        exec("\n".join(lines), names)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(names["model"](images)[0], load_encoder(file).embed(images))
    assert re.search(r"largest difference \S+ \(\S+ of the largest value\)", printed)
    assert "mean 0.485 0.456 0.406, deviation 0.229 0.224 0.225; inside the file" in printed


@pytest.mark.slow
def test_the_lines_of_a_card_are_those_that_are_printed(tmp_path, capsys):
    pytest.importorskip("timm", reason="timm is not installed")
    save_encoder(alive("timm:test_vit?patch_size=8", 32), tmp_path / "mine.safetensors", {})
    for to in ("timm", "torchvision", "safetensors"):
        out = tmp_path / f"{to}.safetensors"
        assert exported(tmp_path / "mine.safetensors", to, out) == 0
        printed = capsys.readouterr().out
        lines = re.findall(r"^    (.*)$", printed, re.MULTILINE)
        assert lines and block(tmp_path / f"{to}.safetensors.md").startswith(
            "\n".join(lines).replace(str(out), out.name)
        )
        assert "mean 0.5 0.5 0.5, deviation 0.5 0.5 0.5; not inside the file" in printed
        assert ("norm.weight, norm.bias, which the encoder lacks" in printed) == (to == "timm")
        assert ("torch.nn.Identity() stands there" in printed) == (to == "torchvision")


def test_the_card_has_the_record_of_the_training(file, tmp_path):
    exported(file, "safetensors", tmp_path / "out.safetensors")
    card = (tmp_path / "out.safetensors.md").read_text()
    for row in (
        "| pretext task | `simclr` |",
        '| settings of the task | `{"temperature": 0.5}` |',
        "| data set | `folder:photos\\|1` |",
        "| fingerprint of the data | `f1e2` |",
        "| images seen | `640` |",
        "| seed | `5` |",
        "| version of pretext-bench | `0.1.0` |",
        "| Git revision | `abc` |",
        "| mentor | `nobody` |",
        "| input | B×3×32×32, RGB, values from 0 to 1 |",
        "| conv5 | 32 | 8 |",
    ):
        assert row in card, row
    assert str(tmp_path) not in card


def test_the_card_of_random_weights_says_so(tmp_path):
    made = export_encoder(alive(ALEXNET, 32), "safetensors", tmp_path / "out.safetensors")
    assert "random weights" in made.card.read_text()


REFUSED = [
    ("--to timm --out x.pth", "timm has no network like alexnet?width=0.125&stem_stride=2; --to safetensors, torchscr"),
    ("--to torchvision --out x.pth", "torchvision has no network like alexnet?width=0.125&stem_stride=2; --to safete"),
    ("--to onnx --out x.pth", "--out x.pth: a file for onnx ends in .onnx; give such a name"),
    ("--to timm --out x", "--out x: a file for timm ends in .safetensors or .pth"),
    ("--to keras --out x.h5", "torchscript"),
    ("--to timm --out x.pth --image-size 64", "records its own image size; remove --image-size"),
    ("--to timm --out x.pth --image-size 4", "--image-size is 4; allowed is from 8 to 4096"),
    ("--to safetensors --out folder.safetensors", "is a folder; give a file in it"),
    ("--to safetensors --out mine.safetensors", "is the encoder file itself; give another name"),
    ("--to timm", "--out"),
]


@pytest.mark.parametrize(("flags", "said"), REFUSED)
def test_what_cannot_be_written_is_one_line(file, tmp_path, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.safetensors").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError) as caught:
        main(["export", "--encoder", file.name, *flags.split()])
    assert said in str(caught.value) and str(caught.value).isprintable()
    assert sorted(tmp_path.iterdir()) == before


def test_a_missing_encoder_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"encoder file nothing\.safetensors does not exist"):
        exported("nothing.safetensors", "torchscript", "x.pt")


@pytest.mark.slow
def test_windows_of_another_size_are_one_line(tmp_path):
    pytest.importorskip("timm", reason="timm is not installed")
    spec = "timm:swin_tiny_patch4_window7_224"
    encoder = alive(spec, 64)
    with pytest.raises(UserError, match=r"at 64 px is not torchvision's swin_t: .*bias_table has shape .* --to timm"):
        export_encoder(encoder, "torchvision", tmp_path / "x.pth")


def test_onnx_without_its_libraries_says_what_to_install(file, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"onnx\w* is not installed; run pip install 'pretext-bench\[export\]'"):
        exported(file, "onnx", tmp_path / "x.onnx")


@pytest.mark.slow
def test_an_onnx_file_runs_with_any_batch_and_holds_no_paths(file, tmp_path):
    for library in ("onnx", "onnxscript"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    made = export_encoder(load_encoder(file), "onnx", tmp_path / "out.onnx")
    assert max(max(pair) for pair in run_cards([made], [load_encoder(file)])) <= 1e-5
    assert b"site-packages" not in made.file.read_bytes() and b".py" not in made.file.read_bytes()
    session = onnxruntime.InferenceSession(str(made.file))
    assert [each.name for each in session.get_outputs()] == ["vectors", *(s.name for s in load_encoder(file).stages)]
    for batch in (1, 2, 5):
        vectors = session.run(["vectors"], {"images": torch.rand(batch, 3, 32, 32).numpy()})[0]
        assert vectors.shape == (batch, 32)
