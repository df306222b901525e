from __future__ import annotations

import errno
import os
import shutil

import numpy as np
import pytest
import torch
from probe_samples import colours, small_encoder, small_scenes

import downstream.feature_files
import downstream.features
import pretext.system.checkpoint
from benchmarks.run_all import main as run_all_main
from downstream.__main__ import main as downstream_main
from downstream.features import Features, limit_cache, pooled, pooled_features, split_features
from pretext.encoders import build_encoder
from pretext.system.cache import cache_folder
from pretext.system.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def encoder():
    return small_encoder()


@pytest.fixture
def computed(monkeypatch):
    """Calls that computed features instead of reading them from the cache."""
    calls = []
    compute = downstream.features._computed

    def counting(*args):
        calls.append(args)
        return compute(*args)

    monkeypatch.setattr(downstream.features, "_computed", counting)
    return calls


def files():
    return sorted(cache_folder("features").glob("*.safetensors"))


def test_pooling_is_the_mean_over_equal_cells():
    maps = torch.arange(2 * 3 * 6 * 6, dtype=torch.float32).reshape(2, 3, 6, 6)
    expected = maps.numpy().reshape(2, 3, 2, 3, 2, 3).mean(axis=(3, 5)).reshape(2, 12)
    np.testing.assert_allclose(pooled(maps, 12).numpy(), expected)


@pytest.mark.parametrize(("most", "side"), [(1, 1), (3, 1), (11, 1), (12, 2), (26, 2), (27, 3), (10_000, 6)])
def test_the_grid_is_the_finest_that_stays_within_the_limit(most, side):
    assert pooled(torch.zeros(1, 3, 6, 6), most).shape == (1, 3 * side**2)


def test_nothing_is_computed_twice_and_everything_that_matters_is(encoder, computed):
    data = colours()
    first = split_features(encoder, data, "test", most=64)
    assert torch.equal(split_features(encoder, data, "test", most=64).stages["conv3"], first.stages["conv3"])
    assert len(computed) == 1
    split_features(encoder, data, "test", most=32)
    split_features(encoder, data, "val", most=64)
    split_features(encoder, colours(classes=4), "test", most=64)
    with torch.no_grad():
        next(encoder.parameters())[0] += 1e-3
    split_features(encoder, data, "test", most=64)
    assert len(computed) == 5 and len(files()) == 5


@pytest.mark.parametrize("spec", ["alexnet?width=0.1&stem_stride=2", "timm:resnet18?pretrained=false"])
def test_probes_with_different_images_share_the_common_ones(computed, spec):
    encoder = build_encoder(spec, input_size=32, seed=0)
    ways = [[7, 3, 11], [3, 39, 7, 0], [39], [20, 3]]
    found = [split_features(encoder, colours(train=40), "train", most=64, indices=np.array(way)) for way in ways]
    assert [call[2].tolist() for call in computed] == [[7, 3, 11], [39, 0], [20]]
    assert len(files()) == 1
    for way, shared in zip(ways, found, strict=True):
        files()[0].unlink(missing_ok=True)
        alone = split_features(encoder, colours(train=40), "train", most=64, indices=np.array(way))
        assert shared.indices.tolist() == alone.indices.tolist() == way
        assert torch.equal(shared.targets, alone.targets)
        for stage, values in alone.stages.items():  # bit-identical, whatever the rest of the batch
            assert torch.equal(shared.stages[stage], values), stage


def test_several_sizes_are_those_of_each_alone_and_encode_a_picture_once(encoder, computed):
    data, chosen = colours(train=40), np.array([5, 2, 9])
    split_features(encoder, data, "train", most=64, indices=np.array([2, 7]))
    found = pooled_features(encoder, data, "train", sizes=(1, 64, 16), indices=chosen)
    assert [(call[2].tolist(), call[3]) for call in computed[1:]] == [([5, 2, 9], [1, 16]), ([5, 9], [64])]
    again = pooled_features(encoder, data, "train", sizes=(1, 64, 16), indices=chosen)
    assert len(computed) == 3 and list(found) == [1, 64, 16]
    for most, features in found.items():
        for file in files():
            file.unlink()
        alone = split_features(encoder, data, "train", most=most, indices=chosen)
        assert features.indices.tolist() == again[most].indices.tolist() == chosen.tolist()
        for stage, values in alone.stages.items():
            assert torch.equal(features.stages[stage], values) and torch.equal(again[most].stages[stage], values)


def test_what_could_not_be_decoded_is_not_tried_again(encoder, computed, monkeypatch):
    data = colours(train=40)
    batches = downstream.features.image_batches

    def without_some(part, indices):
        for images, read in batches(part, indices):
            kept = [i for i, index in enumerate(read) if index % 2]
            if kept:
                yield images[kept], [read[i] for i in kept]

    monkeypatch.setattr(downstream.features, "image_batches", without_some)
    with pytest.raises(UserError, match="no image of this split can be decoded"):
        split_features(encoder, data, "train", most=64, indices=np.array([2, 4]))
    for _ in range(2):
        found = split_features(encoder, data, "train", most=64, indices=np.array([1, 2, 3, 4]))
        assert found.indices.tolist() == [1, 3] and all(len(values) == 2 for values in found.stages.values())
    assert [call[2].tolist() for call in computed] == [[2, 4], [1, 3]]


def test_batches_make_no_difference(encoder, monkeypatch):
    whole = split_features(encoder, colours(), "train", most=64)
    files()[0].unlink()
    monkeypatch.setattr(downstream.features, "BATCH", 7)
    parts = split_features(encoder, colours(), "train", most=64)
    for stage, values in whole.stages.items():
        torch.testing.assert_close(parts.stages[stage], values, atol=1e-5, rtol=1e-4)
    assert torch.equal(parts.targets, whole.targets)


def flipped(content, at):
    return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]


@pytest.mark.parametrize(
    "harm",
    [
        lambda content: content[:-100],
        lambda content: b"not a tensor",
        lambda content: b"",
        lambda content: flipped(content, len(content) // 2),  # a number is another
        lambda content: flipped(content, len(content) - 1),
        lambda content: content.replace(b'"kept"', b'"kepT"'),  # a name is another
        lambda content: content.replace(b'"crc32 by block"', b'"crc31 by block"'),
        None,
    ],
    ids=["cut", "text", "empty", "flip", "flip at the end", "name", "no checksum", "deleted"],
)
def test_a_damaged_or_deleted_file_is_computed_again(encoder, computed, harm):
    first = split_features(encoder, colours(), "test", most=64)
    (file,) = files()
    sound = file.read_bytes()
    if harm is None:
        file.unlink()
    else:
        assert harm(sound) != sound
        file.write_bytes(harm(sound))
    again = split_features(encoder, colours(), "test", most=64)
    assert len(computed) == 2 and files() == [file] and file.read_bytes() == sound
    assert all(torch.equal(values, first.stages[stage]) for stage, values in again.stages.items())
    assert torch.equal(again.targets, first.targets) and torch.equal(again.indices, first.indices)


def test_only_the_blocks_of_the_wanted_images_are_read_and_checked(encoder, computed, monkeypatch):
    monkeypatch.setattr(downstream.feature_files, "BLOCK", 4)
    every = split_features(encoder, colours(), "train", most=64)
    (file,) = files()
    last_row = next(iter(every.stages.values()))[-1].numpy().tobytes()
    at = file.read_bytes().index(last_row)
    file.write_bytes(flipped(file.read_bytes(), at))
    last = len(every.indices) - 1
    first = split_features(encoder, colours(), "train", most=64, indices=np.array([5, 0, 3]))
    assert len(computed) == 1 and first.indices.tolist() == [5, 0, 3]
    assert all(torch.equal(values, every.stages[stage][[5, 0, 3]]) for stage, values in first.stages.items())
    again = split_features(encoder, colours(), "train", most=64, indices=np.array([last]))
    assert len(computed) == 2
    assert all(torch.equal(values, every.stages[stage][[last]]) for stage, values in again.stages.items())


def test_a_full_disk_costs_a_line_and_no_features(encoder, computed, monkeypatch, capsys):
    expected = split_features(encoder, colours(), "test", most=64)
    files()[0].unlink()

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pretext.system.checkpoint, "save_file", full)
    found = split_features(encoder, colours(), "test", most=64)
    assert all(torch.equal(values, expected.stages[stage]) for stage, values in found.stages.items())
    assert "features are not cached: " in (said := capsys.readouterr().err) and "No space left" in said


def test_a_limit_that_is_no_number_is_named_before_anything_is_computed(encoder, computed, monkeypatch):
    monkeypatch.setenv("PRETEXT_FEATURES_GB", "much")
    with pytest.raises(UserError, match="PRETEXT_FEATURES_GB=much"):
        split_features(encoder, colours(), "test", most=64)
    assert not computed


def test_a_limit_of_0_writes_nothing_and_deletes_nothing(encoder, computed, monkeypatch):
    split_features(encoder, colours(), "val", most=64)
    before = files()
    monkeypatch.setenv("PRETEXT_FEATURES_GB", "0")
    for _ in range(2):
        split_features(encoder, colours(), "test", most=64)
    assert len(computed) == 3 and files() == before


def test_a_limit_of_0_reads_nothing(encoder, computed, monkeypatch):
    for _ in range(2):
        split_features(encoder, colours(), "test", most=64)
    assert len(computed) == 1 and files()
    monkeypatch.setenv("PRETEXT_FEATURES_GB", "0")
    split_features(encoder, colours(), "test", most=64)
    assert len(computed) == 2


def test_a_limit_is_set_for_this_process_and_those_it_starts(encoder, computed, monkeypatch):
    monkeypatch.setenv("PRETEXT_FEATURES_GB", "1")
    limit_cache(0)
    split_features(encoder, colours(), "test", most=64)
    assert not files() and os.environ["PRETEXT_FEATURES_GB"] == "0"
    limit_cache(0.5)
    split_features(encoder, colours(), "test", most=64)
    assert len(files()) == 1


@pytest.mark.parametrize("gigabytes", [-1.0, float("nan"), float("inf")])
def test_a_limit_out_of_range_is_named(gigabytes, monkeypatch):
    monkeypatch.setenv("PRETEXT_FEATURES_GB", "1")
    with pytest.raises(UserError, match=r"--cache-gb is .*; allowed is 0"):
        limit_cache(gigabytes)
    assert os.environ["PRETEXT_FEATURES_GB"] == "1"


@pytest.mark.parametrize("main", [downstream_main, run_all_main])
def test_the_commands_set_the_limit(main, tmp_path, monkeypatch):
    monkeypatch.setenv("PRETEXT_FEATURES_GB", "1")
    seen = []
    stop = UserError("far enough")

    def note(gigabytes):
        seen.append(gigabytes)
        raise stop

    monkeypatch.setattr("downstream.features.limit_cache", note)
    words = {
        downstream_main: ["knn", "--encoder", "random:alexnet", "--data", "scenes"],
        run_all_main: ["--profile", "smoke", "--out", str(tmp_path / "out")],
    }
    with pytest.raises(UserError, match="far enough"):
        main([*words[main], "--cache-gb", "2.5"])
    assert seen == [2.5]


@pytest.mark.parametrize(
    "when", ["before it is read", "while it is computed", "before it is written", "while evicting"]
)
def test_the_folder_may_be_deleted_at_any_time(encoder, computed, monkeypatch, when):
    first = split_features(encoder, colours(), "test", most=64)
    folder = cache_folder("features")

    def deleting_first(module, name):
        inner = getattr(module, name)

        def wrapped(*args, **named):
            shutil.rmtree(folder, ignore_errors=True)
            return inner(*args, **named)

        monkeypatch.setattr(module, name, wrapped)

    places = {
        "before it is read": (downstream.features, "load"),
        "while it is computed": (downstream.features, "_computed"),
        "before it is written": (pretext.system.checkpoint, "save_file"),
        "while evicting": (downstream.features, "evict"),
    }
    deleting_first(*places[when])
    if when != "before it is read":
        files()[0].unlink()
    again = split_features(encoder, colours(), "test", most=64)
    assert len(computed) == 2
    assert all(torch.equal(values, first.stages[stage]) for stage, values in again.stages.items())


def test_what_was_read_outlives_its_file(encoder):
    first = split_features(encoder, colours(), "test", most=64)
    again = split_features(encoder, colours(), "test", most=64)
    shutil.rmtree(cache_folder("features"))
    assert all(torch.equal(values, first.stages[stage]) for stage, values in again.stages.items())


def test_a_file_that_goes_between_reading_and_marking_it_is_used_all_the_same(encoder, computed, monkeypatch):
    split_features(encoder, colours(), "test", most=64)

    def gone(*args):
        raise FileNotFoundError

    monkeypatch.setattr("downstream.feature_files.os.utime", gone)
    split_features(encoder, colours(), "test", most=64)
    assert len(computed) == 1


def test_pictures_without_classes_have_features_and_no_targets(encoder):
    data = small_scenes(only=())
    found = split_features(encoder, data, "test", most=64)
    assert torch.equal(found.targets, torch.full((16,), -1))
    labelled = split_features(encoder, small_scenes(), "test", most=64)
    assert all(torch.equal(values, labelled.stages[stage]) for stage, values in found.stages.items())


def test_every_stage_has_about_as_many_numbers():
    found = split_features(small_encoder(), colours(), "test", most=256)
    assert all(64 < values.shape[1] <= 256 for values in found.stages.values())


def test_a_draw_from_a_sorted_split_shows_every_class_and_keeps_the_order():
    targets = torch.arange(4).repeat_interleave(25)
    whole = Features({"a": torch.arange(100.0)[:, None]}, targets, torch.arange(100) + 7, targets)
    some = whole.drawn(8, seed=1)
    assert some.targets.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    rows = (some.indices - 7).tolist()
    assert rows == sorted(rows) == some.stages["a"][:, 0].tolist() != (whole.drawn(8, seed=2).indices - 7).tolist()
    assert torch.equal(targets[rows], some.targets)
    for count in (0, 100, 101):
        every = whole.drawn(count, seed=1)
        assert torch.equal(every.indices, whole.indices) and torch.equal(every.stages["a"], whole.stages["a"])
