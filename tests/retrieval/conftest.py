"""Fixtures of the retrieval tests: an encoder, a data set, its vectors, an index of its grid, indexes for the page."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from demo_samples import make_folders
from index_samples import SIZE, SPEC, build, make_encoder

from pretext.datasets import ImageDataset, at_size, open_dataset
from pretext.encoders import Encoder, save_encoder
from retrieval.indexing.index import PatchIndex
from retrieval.patches import describe_regions
from retrieval.regions import Regions


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return make_encoder()


@pytest.fixture(scope="session")
def encoder_file(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    save_encoder(encoder, path, {})
    return path


@pytest.fixture(scope="session")
def data(cache: Path) -> ImageDataset:
    return at_size(open_dataset(SPEC), SIZE, bad_images="stop")


@pytest.fixture(scope="session")
def features(encoder: Encoder, data: ImageDataset) -> np.ndarray:
    return describe_regions(encoder, data, Regions(), stage="pool5", bad_images="stop")[0]


@pytest.fixture(scope="session")
def grid_folder(encoder: Encoder, data: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("grid") / "index"
    build(encoder, data, Regions(), folder)
    return folder


@pytest.fixture(scope="session")
def grid(grid_folder: Path) -> PatchIndex:
    return PatchIndex.open(grid_folder)


@pytest.fixture(scope="session")
def demo_folders(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    return make_folders(tmp_path_factory.mktemp("demo"))


@pytest.fixture
def saved(grid_folder: Path, tmp_path: Path) -> Path:
    """A copy of the grid index that a test may damage."""
    return shutil.copytree(grid_folder, tmp_path / "index")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.indexing.blocks.ROWS", 60)
