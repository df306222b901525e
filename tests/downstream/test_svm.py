from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from probe_samples import HUES, SIZE, colours, small_encoder
from sklearn.metrics import average_precision_score
from sklearn.svm import LinearSVC

from downstream.classification import CLASS_MEAN, average_precisions, quality
from downstream.features import split_features
from downstream.label_sampling import few_of_each
from downstream.probes import svm
from downstream.probes.svm import Svm, best_of, signs_of, solve, unit
from downstream.sample_files import read_sample
from pretext.datasets import at_size, open_dataset
from pretext.datasets.classification import class_targets
from pretext.system.cache import cache_folder
from pretext.system.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")

QUICK = Svm(train_images=40, val_images=20, features=64, costs=(0.1, 10.0), shots=(1, 4), samples=3)


@pytest.fixture
def encoder():
    return small_encoder()


def problem(seed, *, n=150, d=40, classes=4):
    """Unit features, correlated and far from centred, and noisy classes."""
    rng = np.random.default_rng(seed)
    features = np.maximum(rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + 2, 0)
    labels = (features @ rng.normal(size=(d, classes)) + 8 * rng.gumbel(size=(n, classes))).argmax(1)
    return torch.from_numpy(features).float(), torch.from_numpy(labels)


def objective(weights, inputs, signs, cost, positive_weight):
    """The objective, as a sum over images in double precision."""
    value = 0.5 * sum(w * w for w in weights)
    for x, sign in zip(inputs, signs, strict=True):
        if sign:
            value += cost * (positive_weight if sign > 0 else 1) * max(0.0, 1 - sign * float(x @ weights)) ** 2
    return value


@pytest.mark.parametrize("positive_weight", [1.0, 2.0])
@pytest.mark.parametrize("n", [25, 150])
def test_the_solver_finds_liblinears_minimum(n, positive_weight):
    features, labels = problem(0, n=n)
    labels[-8:] = torch.arange(8) % 4  # every class occurs
    inputs, costs = unit(features), (0.01, 1.0, 100.0)
    signs = signs_of(labels, 4)
    signs[:5, 2] = 0  # unknown
    found = solve(
        inputs,
        signs.repeat(1, 3),
        torch.tensor(costs).repeat_interleave(4),
        positive_weight=positive_weight,
    )
    for i, (cost, k) in enumerate((cost, k) for cost in costs for k in range(4)):
        known = signs[:, k] != 0
        theirs = LinearSVC(C=cost, class_weight={1: positive_weight, -1: 1.0}, tol=1e-8, max_iter=200_000)
        theirs.fit(inputs[known, :-1].double().numpy(), signs[known, k].numpy())
        best = np.append(theirs.coef_[0], theirs.intercept_)
        rows, sign = inputs.double().numpy(), signs[:, k].tolist()
        least = objective(best, rows, sign, cost, positive_weight)
        ours = objective(found[:, i].double().numpy(), rows, sign, cost, positive_weight)
        assert least * (1 - 1e-6) <= ours <= least * (1 + 1e-5)
        np.testing.assert_allclose(rows @ found[:, i].double().numpy(), rows @ best, atol=0.02)


def test_problems_solved_side_by_side_in_parts_are_the_same(monkeypatch):
    features, labels = problem(1)
    inputs, signs, costs = unit(features), signs_of(labels, 4), torch.tensor([0.1, 1.0, 10.0, 1.0])
    together = solve(inputs, signs, costs, positive_weight=2.0)
    monkeypatch.setattr(svm, "AT_ONCE", 300)
    torch.testing.assert_close(solve(inputs, signs, costs, positive_weight=2.0), together, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("multi", [False, True])
def test_the_cost_is_the_one_that_does_best_on_held_out_folds(multi):
    features, labels = problem(2, n=90)
    targets = torch.stack([labels == 0, labels >= 2, labels % 2 == 0], dim=1).long() if multi else labels
    classes = 3 if multi else 4
    probe = Svm(costs=(1e-3, 1e-1, 10.0))
    inputs = unit(features)
    # the folds: by class (for several, by the rarest shown), then in turn
    if multi:
        counts = (targets == 1).sum(0).tolist()
        kinds = [min((counts[k], k) for k in range(3) if row[k] == 1)[1] if row.any() else 3 for row in targets]
    else:
        kinds = labels.tolist()
    order = sorted(range(90), key=kinds.__getitem__)
    fold = np.empty(90, dtype=int)
    fold[order] = np.arange(90) % 3
    signs = signs_of(targets, classes).numpy()
    values = np.zeros((3, 3, classes))  # cost, fold, class
    for i, cost in enumerate(probe.costs):
        outputs = np.zeros((90, classes))
        for f in range(3):
            for k in range(classes):
                theirs = LinearSVC(C=cost, class_weight={1: 2.0, -1: 1.0}, tol=1e-7, max_iter=100_000)
                theirs.fit(features_of(inputs, fold != f), signs[fold != f, k])
                outputs[fold == f, k] = theirs.decision_function(features_of(inputs, fold == f))
        for f in range(3):
            for k in range(classes):
                if multi:
                    values[i, f, k] = average_precision_score(signs[fold == f, k] > 0, outputs[fold == f, k])
                else:
                    values[i, f, k] = (outputs[fold == f].argmax(1) == labels.numpy()[fold == f]).mean()
    expected = values.mean(1).argmax(0)
    assert probe._chosen_costs(inputs, targets, classes).tolist() == expected.tolist()
    costs = torch.tensor(probe.costs)[torch.from_numpy(expected)]
    refit = solve(inputs, signs_of(targets, classes), costs, positive_weight=2.0)
    assert torch.equal(probe.fit(inputs, targets, classes), refit)


def features_of(inputs, rows):
    return inputs[torch.from_numpy(rows), :-1].double().numpy()


def test_average_precision_is_scikit_learns_with_ties_and_unknowns():
    rng = np.random.default_rng(3)
    scores, targets = rng.integers(0, 6, (80, 5)).astype(float), rng.integers(-1, 2, (80, 5))
    targets[:, 3] = np.minimum(targets[:, 3], 0)  # never shown
    targets[:, 4] = np.abs(targets[:, 4])
    found = average_precisions(torch.from_numpy(scores), torch.from_numpy(targets))
    for k in range(5):
        known = targets[:, k] >= 0
        if k == 3:
            assert found[k].isnan()
        else:
            expected = average_precision_score(targets[known, k], scores[known, k])
            assert found[k].item() == pytest.approx(100 * expected, abs=1e-9)


def test_the_first_of_equals_and_never_nan_is_best():
    assert best_of([float("nan"), 1.0, 3.0, 3.0]) == 2


@pytest.mark.parametrize("multi", [False, True])
def test_colours_are_classified_full_and_low_shot(encoder, multi):
    probe = replace(QUICK, train_images=0)
    scores = list(probe.evaluate(encoder, colours(multi=multi)))
    (headline,) = [score for score in scores if score.headline]
    at = {score.metric: score for score in scores if score.stage == headline.stage}
    name = "mAP" if multi else "top1"
    names = [name] if multi else [name, CLASS_MEAN]
    assert list(at) == names + [f"{each}@k={k}{kind}" for k in (1, 4) for each in names for kind in ("", " sd")]
    assert headline.metric == name and headline.n == 40
    # multi-label: the last class has no negatives and no average precision
    assert at[name].value > 95 and at[f"{name}@k=4"].value > 80
    assert len({score.stage for score in scores}) == len(encoder.stages)


def test_the_seed_draws_the_full_shot_pictures_and_not_the_samples(encoder):
    data = colours(learnable=False, train=200, test=200)
    first, other = (
        {(s.stage, s.metric): s.value for s in replace(QUICK, seed=seed).evaluate(encoder, data)} for seed in (0, 1)
    )
    few = [key for key in first if "@" in key[1]]
    assert few and all(first[key] == pytest.approx(other[key], abs=1.5) for key in few)
    assert any(first[key] != other[key] for key in first if "@" not in key[1])


def test_one_sample_has_no_deviation_and_a_class_too_rare_is_named(encoder, capsys):
    data = colours(train=20)
    scores = list(replace(QUICK, samples=1, shots=(1, 90)).evaluate(encoder, data))
    assert {score.metric for score in scores} == {"top1", "top1@k=1", CLASS_MEAN, f"{CLASS_MEAN}@k=1"}
    assert "colours: left out k=90" in capsys.readouterr().err


def test_a_class_missing_in_train_is_never_predicted(encoder):
    data = colours(without=[1], train=60)
    scores = list(QUICK.evaluate(encoder, data))
    assert all(np.isfinite(score.value) for score in scores)
    assert max(score.value for score in scores if score.metric == "top1") < 100


@pytest.mark.parametrize(
    ("on_val", "chosen"),
    [([10.0, 30, 20, 20, 20, 29], "conv2"), ([float("nan"), 1, 3, 2, 2, 2], "conv3"), ([float("nan")] * 6, "pool5")],
)
def test_the_stage_that_does_best_on_val_is_chosen_and_the_deepest_where_val_says_nothing(
    encoder, monkeypatch, on_val, chosen
):
    reached = iter(on_val)
    monkeypatch.setattr(svm, "quality", lambda *_: next(reached))
    scores = replace(QUICK, shots=(), costs=(1.0,)).evaluate(encoder, colours())
    assert [score.stage for score in scores if score.headline] == [chosen]


def test_features_are_computed_once_for_all_samples(encoder):
    list(QUICK.evaluate(encoder, colours()))
    assert len(list(cache_folder("features").glob("*.safetensors"))) == 3  # train, val, test


@pytest.mark.parametrize(
    "settings",
    [
        {"costs": ()},
        {"costs": (0.0,)},
        {"costs": (float("nan"),)},
        {"folds": 1},
        {"positive_weight": float("nan")},
        {"shots": (0,)},
        {"samples": 0},
    ],
)
def test_settings_out_of_range_are_named(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Svm(**settings)


# Samples as files

HEAD = "picture,class,said\n"


def folder_of_pictures(root, *, classes=("ant", "bee", "cow"), each=6):
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for k, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for i in range(each):
                pixels = np.zeros((SIZE, SIZE, 3), np.uint8) + HUES[k].numpy().astype(np.uint8)
                Image.fromarray(pixels ^ rng.integers(0, 30, pixels.shape, np.uint8)).save(
                    root / split / name / f"{i}.png"
                )
    return open_dataset(f"folder:{root}")


def values(scores):
    return {(score.stage, score.metric): score.value for score in scores}


@pytest.mark.parametrize("multi", [False, True])
def test_samples_are_written_and_read_again(encoder, tmp_path, multi):
    data = colours(multi=multi)
    first = values(QUICK.evaluate(encoder, data, tmp_path))
    files = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert files == sorted(f"sample{i}_k{k}.csv" for i in (1, 2, 3) for k in (1, 4))
    targets = class_targets(at_size(data, SIZE, bad_images="stop"))
    with (tmp_path / "samples" / "sample2_k4.csv").open() as file:
        lines = [(int(row["picture"]), "abc".index(row["class"]), int(row["said"])) for row in csv.DictReader(file)]
    indices, said = few_of_each(targets, 4, sample=1)
    if not multi:
        assert sorted(lines) == sorted((i, int(k), 1) for i, k in zip(indices.tolist(), said, strict=True))
    else:
        assert sorted(lines) == sorted(
            (int(indices[row]), k, int(said[row, k])) for row, k in np.ndindex(*said.shape) if said[row, k]
        )
    assert values(replace(QUICK, samples_from=str(tmp_path / "samples")).evaluate(encoder, data)) == first


def test_samples_of_pictures_in_files_go_by_their_paths_whatever_their_order(encoder, tmp_path):
    data = folder_of_pictures(tmp_path / "set")
    probe = replace(QUICK, samples=1)
    first = values(probe.evaluate(encoder, data, tmp_path))
    file = tmp_path / "samples" / "sample1_k4.csv"
    header, *lines = file.read_text().splitlines()
    names = [line.split(",") for line in lines]
    assert len(names) == 12 and all(name == f"train/{label}/{Path(name).name}" for name, label, _ in names)
    file.write_text("\n".join([header, *lines[::-1]]) + "\n")
    again = values(replace(probe, samples_from=str(tmp_path / "samples")).evaluate(encoder, data))
    assert again == pytest.approx(first)


def test_where_pictures_were_left_out_they_go_by_number(encoder, tmp_path):
    folder_of_pictures(tmp_path / "set")
    (tmp_path / "set" / "train" / "ant" / "0.png").write_bytes(b"")
    data = open_dataset(f"folder:{tmp_path / 'set'}")
    probe = replace(QUICK, shots=(1,), samples=1)
    first = values(probe.evaluate(encoder, data, tmp_path))
    _, *lines = (tmp_path / "samples" / "sample1_k1.csv").read_text().splitlines()
    assert len(lines) == 3 and all(line.split(",")[0].isdigit() for line in lines)
    again = replace(probe, samples_from=str(tmp_path / "samples"))
    assert values(again.evaluate(encoder, data)) == pytest.approx(first)


def test_a_sample_may_label_what_the_data_set_does_not(tmp_path):
    data = at_size(colours(multi=True), SIZE, bad_images="stop")
    known = class_targets(data)
    row = int((known[:, 2] == -1).nonzero()[0])
    shown = "ab"[int(known[row, 1] == 1)]
    (tmp_path / "sample1_k1.csv").write_text(f"{HEAD}{row},{shown},1\n{row},c,1\n")
    indices, said = read_sample(tmp_path, data, known, k=1, number=1)
    assert indices.tolist() == [row] and said[0, 2] == 1


def test_published_samples_are_read_from_their_matrices(encoder, tmp_path):
    """One matrix per sample and k, as published: 1 and 0 for the drawn images of each class, -1 otherwise."""
    data = colours(train=60)
    labels = class_targets(at_size(data, SIZE, bad_images="stop")).numpy()
    rng = np.random.default_rng(0)
    for k in (1, 4):
        said = np.full((60, 3), -1, dtype=np.int32)
        for label in range(3):
            for kind, count in ((1, k), (0, 2 * k)):
                drawn = rng.choice(np.flatnonzero((labels == label) == kind), count, replace=False)
                said[drawn, label] = kind
        np.save(tmp_path / f"train_targets_sample1_k{k}.npy", said)
    probe = replace(QUICK, samples=1, train_images=0, samples_from=str(tmp_path))
    found = values(probe.evaluate(encoder, data))
    train, val, test = (split_features(encoder, data, split, most=64) for split in ("train", "val", "test"))
    known = said.max(axis=1) >= 0
    inputs, signs = unit(train.stages["conv3"][known]), torch.from_numpy(np.array([0, -1, 1])[said[known] + 1]).float()
    # index 0 of the table is -1: not used
    right = {}
    for cost in probe.costs:
        weights = solve(inputs, signs, torch.full((3,), cost), positive_weight=2.0)
        right[quality(unit(val.stages["conv3"]) @ weights, val.targets)] = weights
    best = right[max(right)]
    reached = (unit(test.stages["conv3"]) @ best).argmax(1) == test.targets
    assert found["conv3", "top1@k=4"] == pytest.approx(100 * reached.double().mean().item(), abs=2.6)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"0 files are named \*sample1_k1.csv"),
        ("", "not a sample file"),
        ("a,b\n", "begins with a,b"),
        (HEAD, "names no image"),
        (HEAD + "0\n", "not a sample file"),
        (HEAD + "999,a,1\n", "has no training image 999"),
        (HEAD + "0,aa,1\n", "no class 'aa'; did you mean 'a'"),
        (HEAD + "0,a,2\n", "says 2 for 0; expected 1 or -1"),
        ("wrong", "which contradicts colours"),
        (np.zeros((3, 3), np.int32), "3×3 of int32; expected 60×3"),
        (np.full((60, 3), 7), "60×3 of int64; expected"),
        (np.full((60, 3), -1), "names no image"),
        (np.array([{"a": 1}]), "not a sample file"),
    ],
)
def test_a_samples_file_that_is_not_about_these_pictures_is_named_in_one_line(encoder, tmp_path, content, message):
    if isinstance(content, np.ndarray):
        np.save(tmp_path / "sample1_k1.npy", content)
    elif content == "wrong":
        label = int(colours()[0][1]["label"])
        (tmp_path / "sample1_k1.csv").write_text(f"{HEAD}0,{'abc'[(label + 1) % 3]},1\n")
    elif content is not None:
        (tmp_path / "sample1_k1.csv").write_text(content)
    probe = replace(QUICK, shots=(1,), samples=1, samples_from=str(tmp_path))
    with pytest.raises(UserError, match=message) as caught:
        list(probe.evaluate(encoder, colours()))
    assert "\n" not in str(caught.value)
