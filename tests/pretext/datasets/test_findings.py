"""What a command says when it opens data: counts, what is held out, what is wrong."""

from __future__ import annotations

import dataset_samples
import pytest

from pretext.datasets import Fault, at_size, open_dataset, say_opened
from pretext.datasets.findings import pictures_by_class, summary_lines


def test_classes_that_train_or_test_never_shows_are_said(tmp_path):
    dataset_samples.make("folder", tmp_path)
    (tmp_path / "test" / "b").rename(tmp_path / ".b")
    faults = [note for note in open_dataset(f"folder:{tmp_path}").notes if isinstance(note, Fault)]
    assert "No picture of test shows b (1 of 2 classes)." in faults


@pytest.mark.parametrize("kind", ["folder", "voc", "coco"])
def test_pictures_are_counted_as_their_targets_show_them(tmp_path, kind):
    part = open_dataset(dataset_samples.make(kind, tmp_path))
    counts = [0] * len(part.classes)
    for _, target in part:
        for number in set(target["labels"].tolist() if "labels" in target else [int(target["label"])]):
            counts[number] += 1
    assert pictures_by_class(part).tolist() == counts


def test_without_labels_nothing_is_counted(tmp_path):
    for number in range(4):
        dataset_samples.save(tmp_path / f"{number}.png", dataset_samples.pixels(1, number))
    assert pictures_by_class(open_dataset(f"folder:{tmp_path}")) is None


def test_the_lines_say_counts_the_first_faults_and_what_was_decided(tmp_path, capsys):
    for number in range(10):
        dataset_samples.save(tmp_path / f"{number}.png", dataset_samples.pixels(1, number))
    data = open_dataset(f"folder:{tmp_path}")
    say_opened(data)
    out, err = capsys.readouterr()
    counts, decided = err.splitlines()
    assert out == "" and counts.startswith(f"folder:{tmp_path}: 10 pictures: train 7, val 1, test 2 (30 % held out")
    assert "test split was drawn" in decided and "val split was drawn" in decided
    data.notes = tuple(Fault(f"fault {number}.") for number in range(5))
    lines = summary_lines(data)
    assert len(lines) == 4 and lines[1] == "  caution: fault 0." and "3 more; python -m pretext data" in lines[-1]
    assert summary_lines(data, notes=False) == [counts]


def test_only_the_first_of_several_processes_says_it(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    say_opened(open_dataset("scenes?train=4&val=2&test=2"))
    assert capsys.readouterr().err == ""


def test_a_packed_split_is_described_without_packing_the_others(own_cache):
    data = open_dataset("scenes?train=4&val=2&test=2&size=16")
    packed = at_size(data, 16, bad_images="skip")
    assert summary_lines(packed) == summary_lines(data)
    assert len(list((own_cache / "packs").glob("*/manifest.json"))) == 1
