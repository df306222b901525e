from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from probe_samples import SIZE, Altered, colours, small_encoder

from downstream.classification import CLASS_MEAN
from downstream.features import split_features
from downstream.label_sampling import few_of_each, share_of_each
from downstream.probes.fine_tune import FineTune
from downstream.probes.linear import Linear
from downstream.probes.low_shot import LowShot
from pretext.datasets import at_size
from pretext.datasets.classification import class_targets
from pretext.datasets.fingerprints import digest
from pretext.datasets.splitting import Subset
from pretext.datasets.view import View
from pretext.system.cache import cache_folder
from pretext.system.errors import UserError

pytestmark = pytest.mark.usefixtures("own_cache")

LINEAR = LowShot(
    percents=(10.0, 50.0), shots=(3,), samples=2, penalties=(1.0, 0.1), iterations=20, features=64, fine_tuned=False
)


@pytest.fixture
def encoder():
    return small_encoder()


def test_linear_is_the_linear_probe_on_those_pictures(encoder):
    data = colours(train=90, learnable=False)
    scores = list(LINEAR.evaluate(encoder, data))
    targets = class_targets(at_size(data, SIZE, bad_images="stop"))
    drawn = {
        "10%": [share_of_each(targets, 0.1, sample=i) for i in range(2)],
        "50%": [share_of_each(targets, 0.5, sample=i) for i in range(2)],
        "k=3": [few_of_each(targets, 3, sample=i)[0] for i in range(2)],
    }
    val, test = (split_features(encoder, data, split, most=64) for split in ("val", "test"))
    for stage in ("conv2", "pool5"):
        for name, samples in drawn.items():
            values = []
            for indices in samples:
                some = split_features(encoder, data, "train", most=64, indices=indices)
                classifier, _ = Linear(penalties=(1.0, 0.1), iterations=20).fit(
                    some.stages[stage], some.targets, val.stages[stage], val.targets, 3
                )
                right = classifier(test.stages[stage]).argmax(1) == test.targets
                values.append(100 * right.double().mean().item())
            (mean,) = [s for s in scores if (s.stage, s.metric) == (stage, f"top1@{name}")]
            (spread,) = [s for s in scores if (s.stage, s.metric) == (stage, f"top1@{name} sd")]
            assert mean.value == pytest.approx(np.mean(values)) and mean.items.shape == (40,)
            assert spread.value == pytest.approx(np.std(values, ddof=1))


class Wide(View):
    """Pictures twice as wide as high: the picture of the base in the middle, and noise on both sides."""

    def __init__(self, base):
        super().__init__(base)
        self.label = None

    def __len__(self):
        return len(self.base)

    def origin(self, index):
        return self, index

    @property
    def fingerprint(self):
        return digest("wide", self.base.fingerprint)

    def __getitem__(self, index):
        image, target = self.base[index]
        side = torch.from_numpy(np.random.default_rng(index).integers(0, 256, (3, SIZE, SIZE // 2), dtype=np.uint8))
        return torch.cat([side, image, side], dim=2), target


def splits_of(data, make):
    splits = {name: make(part) for name, part in data.splits.items()}
    for part in splits.values():
        part.splits = splits
    return splits["train"]


def with_train(data, indices):
    """The data set with some images alone in its training split."""
    train = Subset(data, indices)
    train.splits = {**data.splits, "train": train}
    return train


def as_it_is(part):
    return part


def with_a_torn_picture(part):
    return Altered(Wide(part), unreadable=[3])


TUNED = replace(LINEAR, percents=(20.0,), shots=(), fine_tuned=True, steps=4, epochs=0, batch_size=8, seed=2)


@pytest.mark.parametrize(
    ("make", "pack_gb"),
    [(as_it_is, "8"), (Wide, "8"), (with_a_torn_picture, "8"), (with_a_torn_picture, str(90 * 3 * SIZE**2 / 1e9))],
    ids=["square", "wide", "torn", "torn, without a pack of whole pictures"],
)
def test_fine_tuned_is_the_fine_tuning_of_those_pictures(encoder, tmp_path, monkeypatch, make, pack_gb):
    """Its training crops are cut from whole pictures, as those of the probe `fine_tune`."""
    monkeypatch.setenv("PRETEXT_PACK_GB", pack_gb)
    data = splits_of(colours(train=90), make)
    scores = list(TUNED.evaluate(encoder, data, tmp_path))
    (mean,) = [s for s in scores if s.metric == "tuned top1@20%"]
    targets = class_targets(at_size(data, SIZE, bad_images="skip"))
    values = []
    for i in range(2):
        rows = share_of_each(targets, 0.2, sample=i)
        rows = rows + (rows >= 3) if make is with_a_torn_picture else rows
        probe = FineTune(seed=2, train_images=0, steps=4, batch_size=8)
        tuned = probe.evaluate(encoder, with_train(data, rows), tmp_path / str(i))
        values += [score.value for score in tuned if score.headline]
        theirs, ours = (tmp_path / folder / "curve.json" for folder in (str(i), f"20% sample {i}"))
        assert ours.read_text() == theirs.read_text()
    assert mean.value == pytest.approx(np.mean(values)) and mean.stage == "" and not mean.headline


def test_a_sample_is_not_decoded_and_packed_once_more(encoder):
    data = splits_of(colours(train=90), Wide)
    list(TUNED.evaluate(encoder, data))
    packs = [folder for folder in cache_folder("packs").iterdir() if not folder.name.startswith(".")]
    assert len(packs) == 4  # squares of three splits, and whole pictures of train


def test_many_labels_are_passed_over_more_often_than_few(encoder, tmp_path):
    probe = replace(TUNED, percents=(10.0, 100.0), epochs=1.5)
    list(probe.evaluate(encoder, colours(train=90), tmp_path))
    taken = {
        share: {len(json.loads(file.read_text())["loss"]) for file in tmp_path.glob(f"{share} sample */curve.json")}
        for share in ("10%", "100%")
    }
    assert taken == {"10%": {4}, "100%": {17}}  # the minimum; 90 images one and a half times, 8 a step


@pytest.mark.parametrize("multi", [False, True])
def test_colours_are_classified_from_few_labels(encoder, multi):
    probe = replace(LINEAR, percents=(10.0,), shots=(), fine_tuned=True, steps=40, epochs=0, batch_size=16)
    scores = list(probe.evaluate(encoder, colours(train=120, multi=multi)))
    name = "mAP" if multi else "top1"
    (headline,) = [score for score in scores if score.headline]
    assert headline.metric == f"{name}@10%" and headline.value > 80 and headline.n == 40
    tuned = {score.metric: score for score in scores if score.metric.startswith("tuned")}
    names = [name] if multi else [name, CLASS_MEAN]
    assert list(tuned) == [f"tuned {metric}@10%{kind}" for metric in names for kind in ("", " sd")]
    assert tuned[f"tuned {name}@10%"].value > headline.chance + 30


def test_without_shares_the_smallest_k_is_the_headline_and_out_of_reach_is_refused(encoder):
    data = colours(train=60)
    (headline,) = [s for s in replace(LINEAR, percents=(), shots=(2, 4)).evaluate(encoder, data) if s.headline]
    assert headline.metric == "top1@k=2"
    with pytest.raises(UserError, match=r"colours: .*lower shots"):
        list(replace(LINEAR, percents=(), shots=(1000,)).evaluate(encoder, data))


def test_the_headlines_stage_is_chosen_at_the_smallest_share_alone(encoder, monkeypatch):
    """A larger share that does better on val at another stage must not choose the stage."""
    stages = [stage.name for stage in encoder.stages]
    reached = iter(
        [value for stage in stages for value in ([50.0, 50, 0, 0] if stage == "conv2" else [10, 10, 90, 90])]
    )
    fit = Linear.fit
    monkeypatch.setattr(Linear, "fit", lambda self, *given: (fit(self, *given)[0], next(reached)))
    probe = replace(LINEAR, percents=(10.0, 50.0), shots=(), samples=2)
    (headline,) = [s for s in probe.evaluate(encoder, colours(train=90)) if s.headline]
    assert (headline.stage, headline.metric) == ("conv2", "top1@10%")


@pytest.mark.parametrize(
    ("settings", "metric"),
    [
        ({"percents": (50.0, 10.0)}, "top1@10%"),
        ({"percents": (), "shots": (4, 2)}, "top1@k=2"),
        ({"percents": (50.0, 10.0), "shots": (4, 2)}, "top1@10%"),
    ],
)
def test_the_headline_is_the_smallest_in_whichever_order_they_are_given(encoder, settings, metric):
    probe, data = replace(LINEAR, shots=()), colours(train=90, learnable=False)
    ordered = {name: tuple(sorted(values)) for name, values in settings.items()}
    given, expected = ([*replace(probe, **each).evaluate(encoder, data)] for each in (settings, ordered))
    (headline,) = [s for s in given if s.headline]
    assert headline.metric == metric
    assert [(s.metric, s.stage, s.value, s.headline) for s in given] == [
        (s.metric, s.stage, s.value, s.headline) for s in expected
    ]


def test_one_class_is_refused(encoder):
    with pytest.raises(UserError, match="fewer than two classes"):
        list(LINEAR.evaluate(encoder, colours(without=[1, 2])))


@pytest.mark.parametrize(
    "settings",
    [
        {"percents": (0.0,)},
        {"percents": (101.0,)},
        {"percents": (float("nan"),)},
        {"percents": ()},
        {"shots": (0,)},
        {"samples": 0},
        {"steps": 0},
        {"epochs": -1},
        {"epochs": float("inf")},
        {"batch_size": 0},
        {"batch_size": 1},
        {"penalties": ()},
    ],
)
def test_settings_out_of_range_are_named(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        LowShot(**settings)


def test_all_labels_are_one_sample():
    probe = replace(LINEAR, percents=(50.0, 100.0), shots=(), samples=2)
    names = {score.metric for score in probe.evaluate(small_encoder(), colours())}
    assert {"top1@50%", "top1@50% sd", "top1@100%"} <= names and "top1@100% sd" not in names
