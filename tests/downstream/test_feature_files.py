"""The cache of features stays within its limit, whatever killed processes left in it."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from probe_samples import colours, small_encoder

import downstream.feature_files
import pretext.system.checkpoint
from downstream.features import split_features
from pretext.system.cache import cache_folder

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def encoder():
    return small_encoder()


def files():
    return sorted(cache_folder("features").glob("*.safetensors"))


def test_files_of_others_in_the_cache_are_left_alone(encoder, monkeypatch):
    folder = cache_folder("features")
    notes, subfolder = folder / "notes.txt", folder / "mine"
    notes.write_text("mine")
    subfolder.mkdir()
    monkeypatch.setenv("PRETEXT_FEATURES_GB", "1e-7")
    split_features(encoder, colours(), "test", most=64)
    assert sorted(folder.iterdir()) == [subfolder, notes]


def test_beyond_the_limit_the_least_recently_used_files_are_deleted(encoder, monkeypatch):
    data = colours()
    for age, split in ((300, "train"), (200, "val")):
        before = set(files())
        split_features(encoder, data, split, most=64)
        (file,) = set(files()) - before
        os.utime(file, (time.time() - age,) * 2)
    oldest, kept = sorted(files(), key=lambda file: file.stat().st_mtime)
    both = kept.stat().st_size + oldest.stat().st_size
    monkeypatch.setenv("PRETEXT_FEATURES_GB", str(both / 1e9))
    split_features(encoder, data, "test", most=16)
    assert not oldest.exists() and kept.exists() and len(files()) == 2


@pytest.fixture
def killed_while_storing(monkeypatch, tmp_path):
    """Let a process be killed in the midst of storing a file: what lies in the cache at that moment stays there."""

    def kill(file, host):
        with subprocess.Popen([sys.executable, "-c", ""]) as ended:
            pass

        def half_written(tensors, path, metadata):
            path.with_name(".tmpA1b2C3").write_bytes(bytes(1000))  # safetensors' own, before it renames it
            shutil.copytree(file.parent, tmp_path / "then")

        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: ended.pid)
            patch.setattr(pretext.system.checkpoint, "HOST", host)
            patch.setattr(pretext.system.checkpoint, "save_file", half_written)
            downstream.feature_files.store(file, {"kept": torch.zeros(3)})
        shutil.rmtree(file.parent)
        (tmp_path / "then").rename(file.parent)

    return kill


@pytest.mark.parametrize("host", [pretext.system.checkpoint.HOST, "0badf00d"], ids=["this machine", "another one"])
def test_the_cache_never_stays_beyond_its_limit(encoder, monkeypatch, killed_while_storing, host):
    split_features(encoder, colours(), "val", most=64)
    (file,) = files()
    before = {*file.parent.iterdir()}
    killed_while_storing(file.with_name(f"{'0' * 32}.safetensors"), host)
    left = {*file.parent.iterdir()} - before
    assert any(entry.is_dir() for entry in left)
    for entry in left:
        os.utime(entry, (0, 0))
    limit = 2 * file.stat().st_size
    monkeypatch.setenv("PRETEXT_FEATURES_GB", str(limit / 1e9))
    split_features(encoder, colours(), "train", most=64)  # twice as many images
    assert not left & {*file.parent.iterdir()}
    assert sum(path.stat().st_size for path in file.parent.rglob("*")) <= limit
    monkeypatch.setenv("PRETEXT_FEATURES_GB", "1e-7")
    split_features(encoder, colours(), "test", most=64)
    assert not list(file.parent.iterdir())


def test_what_a_killed_process_left_goes_before_the_limit_is_reached(encoder, killed_while_storing):
    split_features(encoder, colours(), "val", most=64)
    (file,) = files()
    killed_while_storing(file.with_name(f"{'0' * 32}.safetensors"), pretext.system.checkpoint.HOST)
    split_features(encoder, colours(), "test", most=64)
    assert sorted(file.parent.iterdir()) == files() and len(files()) == 2


def test_what_another_user_left_stays_without_an_error(encoder, monkeypatch, killed_while_storing):
    folder = cache_folder("features")
    killed_while_storing(folder / f"{'0' * 32}.safetensors", pretext.system.checkpoint.HOST)
    unlink = Path.unlink

    def forbidden(self, missing_ok=False):
        if str(self.name).startswith(f".{'0' * 32}"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", forbidden)
    split_features(encoder, colours(), "test", most=64)
    assert len(files()) == 1


def test_reading_marks_a_file_as_recently_used(encoder, monkeypatch):
    split_features(encoder, colours(), "val", most=64)
    (read,) = files()
    os.utime(read, (0, 0))
    split_features(encoder, colours(), "train", most=64)
    (other,) = set(files()) - {read}
    os.utime(other, (time.time() - 100,) * 2)
    split_features(encoder, colours(), "val", most=64)
    monkeypatch.setenv("PRETEXT_FEATURES_GB", str((read.stat().st_size + other.stat().st_size) / 1e9))
    split_features(encoder, colours(), "test", most=16)
    assert read.exists() and not other.exists()
