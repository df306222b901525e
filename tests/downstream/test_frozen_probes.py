from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

import downstream.probes
import retrieval.probes
from downstream.__main__ import main
from downstream.classification import CLASS_MEAN, mean_average_precision, quality
from downstream.features import pooled, split_features
from downstream.label_sampling import draw_labelled
from downstream.probes.fine_tune import FineTune, ten_crops
from downstream.probes.knn import Knn, vote
from downstream.probes.linear import Linear, minimise, objective
from pretext.datasets import at_size, open_dataset
from pretext.datasets.base import ImageDataset
from pretext.datasets.classification import class_targets
from pretext.encoders import build_encoder, save_encoder
from pretext.judging import probes_in
from pretext.system.errors import UserError

DATA = "scenes?size=32&train=60&val=30&test=40"
QUICK = {
    "linear": Linear(train_images=40, penalties=(0.1,), iterations=5, features=64),
    "knn": Knn(train_images=40, ks=(3,), features=64),
    "fine_tune": FineTune(train_images=24, steps=3, batch_size=8),
}


@pytest.fixture
def encoder():
    return build_encoder("alexnet?width=0.1&stem_stride=2", input_size=32, seed=0)


class Colours(ImageDataset):
    """Images of one flat colour per class: any encoder separates them."""

    annotations = frozenset({"label"})

    def __init__(self, count, *, classes=4, seed=0, labels=None):
        self.spec, self.classes = "colours", tuple(map(str, range(classes)))
        self.label = torch.arange(count) % classes if labels is None else labels
        self.seed = seed

    def __len__(self):
        return len(self.label)

    @property
    def fingerprint(self):
        return f"{self.seed}-{self.label.tolist()}"

    def __getitem__(self, index):
        rng = np.random.default_rng((self.seed, index))
        colour = 40 + 50 * int(self.label[index])
        noise = rng.integers(0, 10, (3, 32, 32))
        return torch.from_numpy((colour + noise).astype(np.uint8)), {"label": self.label[index].clone()}


def splits(train, test):
    parts = {"train": train, "val": test, "test": test}
    for part in parts.values():
        part.splits = parts
    return train


def test_all_probes_are_found():
    found = probes_in(downstream.probes)
    assert {"linear", "knn", "fine_tune", "detection", "segmentation"} <= found.keys()
    assert "retrieval" in probes_in(retrieval.probes)


@pytest.mark.parametrize("name", QUICK)
class TestContract:
    def test_same_seed_same_numbers_and_an_untouched_encoder(self, name, encoder):
        before = copy.deepcopy(encoder.state_dict())
        data = open_dataset(DATA)
        first = list(QUICK[name].evaluate(encoder, data))
        torch.rand(5)
        second = list(QUICK[name].evaluate(encoder, data))
        assert [s.value for s in first] == [s.value for s in second]
        assert sum(s.headline for s in first) == 1
        assert all(torch.equal(v, before[n]) for n, v in encoder.state_dict().items())
        assert [s.metric for s in first if s.items is None] == [CLASS_MEAN] * sum(s.metric == "top1" for s in first)
        for score in (s for s in first if s.items is not None):
            assert score.value == pytest.approx(score.items.mean())
            assert len(score.items) == score.n == 40

    def test_separable_classes_are_separated(self, name, encoder):
        probe = {"linear": Linear(), "knn": Knn(), "fine_tune": FineTune(steps=60, crop=1.0)}[name]
        data = splits(Colours(80), Colours(40, seed=1))
        (headline,) = [s for s in probe.evaluate(encoder, data) if s.headline]
        assert headline.value > 95
        assert headline.chance == 25

    def test_shuffled_labels_score_chance(self, name, encoder):
        rng = np.random.default_rng(0)
        train = Colours(80, labels=torch.from_numpy(rng.integers(0, 4, 80)))
        test = Colours(200, labels=torch.from_numpy(rng.integers(0, 4, 200)), seed=1)
        for part in (train, test):  # the label is independent of the colour
            part.__class__ = type(
                "Grey", (Colours,), {"__getitem__": lambda self, i: (grey(i), {"label": self.label[i].clone()})}
            )
        probe = {"linear": Linear(), "knn": Knn(), "fine_tune": FineTune(steps=20)}[name]
        (headline,) = [s for s in probe.evaluate(encoder, splits(train, test)) if s.headline]
        assert abs(headline.value - 25) < 4 * 100 * math.sqrt(0.25 * 0.75 / 200)

    def test_test_labels_choose_nothing(self, name, encoder):
        data = open_dataset(DATA)
        chosen = [s.stage for s in QUICK[name].evaluate(encoder, data) if s.headline]
        other = open_dataset(DATA)
        sized = at_size(other, 32, bad_images="skip")
        sized.splits["test"].label = sized.splits["test"].label.flip(0)
        assert [s.stage for s in QUICK[name].evaluate(encoder, sized) if s.headline] == chosen

    def test_a_class_missing_in_train_is_handled(self, name, encoder):
        data = splits(Colours(30, labels=torch.arange(30) % 3), Colours(40, seed=1))
        assert all(np.isfinite(s.value) for s in QUICK[name].evaluate(encoder, data))

    def test_one_class_is_refused(self, name, encoder):
        data = splits(Colours(30, labels=torch.zeros(30, dtype=torch.int64)), Colours(40, seed=1))
        with pytest.raises(UserError, match="fewer than two classes"):
            list(QUICK[name].evaluate(encoder, data))

    def test_no_labels_is_refused(self, name, encoder):
        data = splits(Colours(30), Colours(40, seed=1))
        for part in data.splits.values():
            part.annotations = frozenset()
        with pytest.raises(UserError, match="needs label"):
            list(QUICK[name].evaluate(encoder, data))


def grey(index):
    rng = np.random.default_rng((9, index))
    return torch.from_numpy(rng.integers(100, 140, (3, 32, 32)).astype(np.uint8))


# Oracles


def test_the_linear_probe_finds_scikit_learns_minimum():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(120, 6))
    labels = (inputs @ rng.normal(size=(6, 3)) + rng.normal(size=(120, 3))).argmax(1)
    penalty = 0.05
    parts = torch.from_numpy(inputs), torch.from_numpy(labels), 3
    weight, bias = next(minimise(*parts, penalties=[penalty], iterations=500, tolerance=1e-10))
    theirs = LogisticRegression(C=1 / (penalty * 120), tol=1e-10, max_iter=5000).fit(inputs, labels)
    np.testing.assert_allclose(weight.numpy(), theirs.coef_, atol=2e-3)
    np.testing.assert_allclose((bias - bias.mean()).numpy(), theirs.intercept_ - theirs.intercept_.mean(), atol=2e-3)


def test_the_multi_label_objective_is_the_formula():
    rng = np.random.default_rng(0)
    logits, weight = rng.normal(size=(5, 3)), rng.normal(size=(3, 4))
    targets = rng.integers(-1, 2, (5, 3))
    loss = 0.0
    for i, k in np.ndindex(5, 3):
        p = 1 / (1 + math.exp(-logits[i, k]))
        loss += {1: -math.log(p), 0: -math.log(1 - p), -1: 0.0}[int(targets[i, k])]
    expected = loss / 5 + 0.5 * 0.1 * (weight**2).sum()
    found = objective(torch.from_numpy(logits), torch.from_numpy(targets), torch.from_numpy(weight), 0.1)
    assert found.item() == pytest.approx(expected)


def test_votes_equal_a_loop():
    rng = np.random.default_rng(0)
    database, queries = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in rng.normal(size=(2, 12, 4)))
    labels = rng.integers(0, 3, 12)
    found = vote(
        *(torch.from_numpy(a).float() if a.dtype == np.float64 else torch.from_numpy(a) for a in (database, labels)),
        torch.from_numpy(queries).float(),
        classes=3,
        ks=[1, 5],
        temperature=0.07,
    )
    for k, votes in found.items():
        for q in range(12):
            near = sorted(range(12), key=lambda i: -float(queries[q] @ database[i]))[:k]
            expected = np.zeros(3)
            for i in near:
                expected[labels[i]] += math.exp(float(queries[q] @ database[i]) / 0.07)
            np.testing.assert_allclose(votes[q].exp().numpy() - 1e-6, expected / expected.sum(), atol=1e-4)


def test_map_equals_scikit_learns_and_unknown_counts_neither_way():
    rng = np.random.default_rng(0)
    scores, targets = rng.normal(size=(50, 3)), rng.integers(0, 2, (50, 3))
    expected = 100 * np.mean([average_precision_score(targets[:, k], scores[:, k]) for k in range(3)])
    assert mean_average_precision(torch.from_numpy(scores), torch.from_numpy(targets)) == pytest.approx(expected)
    some = targets.copy()
    some[:10, 0] = -1
    expected = average_precision_score(some[10:, 0], scores[10:, 0])
    assert mean_average_precision(torch.from_numpy(scores[:, :1]), torch.from_numpy(some[:, :1])) == pytest.approx(
        100 * expected
    )


def test_quality_breaks_ties_of_top1_by_likelihood():
    targets = torch.tensor([0, 1, 1])
    sure, unsure = 2 * torch.eye(2)[targets], torch.eye(2)[targets]
    worse = 20 * torch.eye(2)[torch.tensor([0, 1, 0])]
    assert quality(sure, targets) > quality(unsure, targets) > quality(worse, targets)


def test_features_are_the_pooled_maps_in_any_order_and_from_the_cache(encoder):
    data = open_dataset(DATA)
    indices = np.array([5, 1, 7])
    found = split_features(encoder, data, "test", most=64, indices=indices)
    again = split_features(encoder, data, "test", most=64, indices=indices)
    sized = at_size(data.split("test"), 32, bad_images="skip")
    with torch.inference_mode():
        maps = encoder.eval()(sized.images[torch.from_numpy(indices)])
    for stage, values in zip(encoder.stages, maps, strict=True):
        torch.testing.assert_close(found.stages[stage.name], pooled(values, 64), atol=1e-5, rtol=1e-5)
        assert torch.equal(found.stages[stage.name], again.stages[stage.name])
        assert found.stages[stage.name].shape[1] <= max(64, stage.channels)
    assert torch.equal(found.targets, class_targets(sized)[torch.from_numpy(indices)])


def test_few_labels_take_classes_in_turn():
    targets = torch.tensor([0] * 50 + [1] * 5 + [2] * 5 + [-1] * 5)
    few = draw_labelled(targets, 9, seed=0)
    assert np.bincount(targets[torch.from_numpy(few)].numpy()).tolist() == [3, 3, 3]
    assert set(few) < set(draw_labelled(targets, 20, seed=0))
    assert len(draw_labelled(targets, 0, seed=0)) == 60


def test_ten_crops_are_corners_centre_and_mirrors():
    images = torch.arange(2 * 3 * 16 * 16).reshape(2, 3, 16, 16)
    views = ten_crops(images)
    assert len(views) == 10
    assert torch.equal(views[3], images[..., 2:, 2:])
    assert torch.equal(views[5], images[..., :14, :14].flip(-1))


# The command


def test_the_command_prints_a_table_and_writes_scores(tmp_path, encoder, capsys):
    save_encoder(encoder, tmp_path / "e.safetensors", {})
    words = f"knn --encoder {tmp_path / 'e.safetensors'} --data {DATA} --train-images 40 --out {tmp_path}"
    assert main(words.split()) == 0
    assert "→" in capsys.readouterr().out
    assert (tmp_path / "scores.json").is_file()


def test_what_was_judged_lies_beside_the_scores(tmp_path, encoder):
    tensors = {f"backbone.{name}": value for name, value in encoder.state_dict().items() if "convs.4" not in name}
    save_file(tensors | {"fc.weight": torch.ones(2, 2)}, tmp_path / "w.safetensors")
    source = f"{encoder.spec}&weights={tmp_path / 'w.safetensors'}"
    words = f"knn --allow-partial --image-size 32 --data {DATA} --ks 3 --seed 4 --out {tmp_path / 'out'}"
    main([*words.split(), "--encoder", source])
    judged = json.loads((tmp_path / "out" / "judged.json").read_text())
    weights = judged["encoder"]["record"]["weights"]
    assert weights["prefix"] == "backbone." and weights["skipped"] == {"fc": 1}
    assert weights["left_random"] and all("convs.4" in name for name in weights["left_random"])
    assert judged["encoder"]["source"] == source and judged["encoder"]["architecture"] == encoder.spec
    assert judged["probe"] == "knn" and judged["settings"]["ks"] == [3] and judged["settings"]["seed"] == 4
    data = open_dataset(DATA)
    assert judged["data"]["fingerprints"] == {name: part.fingerprint for name, part in data.splits.items()}


def test_scores_are_written_although_the_output_is_closed(tmp_path, monkeypatch):
    written = print

    def closed(*words, file=None):
        if file is None:
            raise BrokenPipeError
        written(*words, file=file)

    monkeypatch.setattr("builtins.print", closed)
    words = f"knn --encoder random:alexnet?width=0.1&stem_stride=2 --image-size 32 --data {DATA} --train-images 40"
    with pytest.raises(BrokenPipeError):
        main([*words.split(), "--out", str(tmp_path)])
    assert json.loads((tmp_path / "scores.json").read_text())
    assert json.loads((tmp_path / "judged.json").read_text())


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_judged(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(Knn, "evaluate", lambda *_: pytest.fail("judged"))
    words = f"knn --encoder random:alexnet?width=0.1&stem_stride=2 --image-size 32 --data {DATA}"
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="file"):
            main([*words.split(), "--out", str(out)])


def test_random_weights_are_those_of_the_seed(tmp_path):
    scores = []
    for seed in (0, 1, 1):
        words = f"knn --encoder random:alexnet?width=0.1&stem_stride=2 --image-size 32 --data {DATA} --seed {seed}"
        main([*words.split(), "--out", str(tmp_path)])
        scores.append(json.loads((tmp_path / "scores.json").read_text()))
    assert scores[0] != scores[1] == scores[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("liner --encoder x --data scenes", "did you mean 'linear'"),
        ("linear --encoder nowhere.safetensors --data scenes", "does not exist"),
        ("linear --encoder random:alexnet --data scenes --penaltys 1", "did you mean --penalties"),
        ("linear --encoder random:alexnet --data scens", "did you mean 'scenes'"),
        ("linear --encoder random:alexnet --data scenes --train-images -1", "train_images is -1"),
    ],
)
def test_what_cannot_be_used_is_one_line(words, message):
    with pytest.raises(UserError, match=message) as caught:
        main(words.split())
    assert "\n" not in str(caught.value)
