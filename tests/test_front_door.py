"""The names that the packages offer, and what a client of the built wheel sees of their types."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import downstream
import pretext
import retrieval
from pretext.system import catalogue

ROOT = Path(pretext.__file__).parents[1]
CLIENT = """
from pathlib import Path

from downstream import Linear
from pretext import Encoder, ImageDataset, Probe, Score, Task, TrainConfig, load_encoder, open_dataset, train
from retrieval import Searchable

data: ImageDataset = open_dataset("scenes")
file: Path = train("context_encoder", "alexnet", data, TrainConfig(steps=1), Path("out"), image_size=64)
encoder: Encoder = load_encoder(str(file))
probe: Probe = Linear(train_images=100)
scores: list[Score] = list(probe.evaluate(encoder, data))
trained: list[Task] = []
found: Searchable = Searchable.open(Path("index"))
"""
WRONG = "from pretext import train\n\ntrain(1)\n"


@pytest.mark.parametrize("package", [pretext, downstream, retrieval])
def test_public_names_are_offered_and_listed(package):
    assert dir(package) == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing


def test_importing_the_packages_imports_nothing_that_takes_long():
    code = (
        "import sys, pretext, downstream, retrieval, benchmarks\n"
        "assert not {'torch', 'numpy', 'pandas', 'faiss'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.slow
def test_a_client_of_the_wheel_type_checks(tmp_path):
    source = tmp_path / "source"  # the build writes beside what it reads
    for name in ("pretext", "downstream", "retrieval", "benchmarks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q", "-w"]
    built = subprocess.run([*pip, str(tmp_path), str(source)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        for package in ("pretext", "downstream", "retrieval", "benchmarks"):
            assert f"{package}/py.typed" in names
        for page in ("retrieval/demo/page/index.html", "pretext/embedding/page/map.html"):
            assert page in names
        assert not [
            name for name in names if name.startswith(("tests/", "benchmarks/timing", "benchmarks/interval_sim"))
        ]
        venv.create(tmp_path / "client", with_pip=False)
        (site,) = (tmp_path / "client").glob("lib/python*/site-packages")
        file.extractall(site)
    python = tmp_path / "client" / "bin" / "python"
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--python-executable",
        str(python),
        "--cache-dir",
        str(tmp_path),
    ]
    for text, sound in ((CLIENT, True), (WRONG, False)):
        client = tmp_path / "client.py"
        client.write_text(text)
        done = subprocess.run([*command, str(client)], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == sound, done.stdout


def test_the_page_of_data_sets_names_every_kind_and_only_keys_that_exist():
    page = (ROOT / "docs" / "data.md").read_text()
    declared = catalogue.declared_datasets()
    for kind, (_, settings) in declared.items():
        keys = {setting.name for setting in settings} | {"limit"}
        assert kind == "torchvision_sets" or f"`{kind}" in page
        for found in re.findall(rf"`{kind}:[^`?]*\?([^`]+)`", page):
            assert {part.split("=")[0] for part in found.split("&")} <= keys, found
