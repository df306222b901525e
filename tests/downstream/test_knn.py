from __future__ import annotations

import numpy as np
import pytest
import torch
from probe_samples import colours, small_encoder

from downstream.features import labelled_features
from downstream.probes.knn import Knn, nearest, vote
from pretext.voting import vote_shares

pytestmark = pytest.mark.usefixtures("own_cache")


def unit(rng, n, d):
    vectors = rng.normal(size=(n, d))
    return torch.from_numpy(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).float()


def test_one_neighbour_is_the_nearest_pictures_class():
    rng = np.random.default_rng(0)
    database, labels = unit(rng, 30, 6), torch.from_numpy(rng.integers(0, 4, 30))
    votes = vote(database, labels, database, classes=4, ks=[1], temperature=0.07)[1]
    assert torch.equal(votes.argmax(1), labels)


def test_all_neighbours_at_a_high_temperature_are_a_majority():
    rng = np.random.default_rng(1)
    labels = torch.tensor([2] * 12 + [0] * 5 + [1] * 4)
    votes = vote(unit(rng, 21, 6), labels, unit(rng, 9, 6), classes=3, ks=[21], temperature=1e4)[21]
    np.testing.assert_allclose(votes.exp().numpy(), np.tile([5 / 21, 4 / 21, 12 / 21], (9, 1)), atol=1e-3)


def test_a_low_temperature_overflows_nothing():
    rng = np.random.default_rng(2)
    votes = vote(unit(rng, 20, 4), torch.arange(20) % 3, unit(rng, 5, 4), classes=3, ks=[1, 20], temperature=1e-4)
    assert all(each.isfinite().all() for each in votes.values())
    assert torch.equal(votes[1].argmax(1), votes[20].argmax(1))


def test_votes_of_several_classes_equal_a_loop():
    rng = np.random.default_rng(3)
    database, queries = unit(rng, 25, 5), unit(rng, 7, 5)
    targets = rng.integers(0, 2, (25, 3))
    votes = vote(database, torch.from_numpy(targets), queries, classes=3, ks=[4], temperature=0.1)[4]
    for query, found in zip(queries.numpy(), votes.exp().numpy(), strict=True):
        cosines = database.numpy() @ query
        near = np.argsort(-cosines)[:4]
        weights = np.exp(cosines[near] / 0.1)
        np.testing.assert_allclose(found, weights @ targets[near] / weights.sum(), atol=1e-4)


def test_a_neighbour_whose_class_is_unknown_does_not_vote():
    database = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    targets = torch.tensor([[1, 0], [-1, 0]])
    share = vote(database, targets, database[:1], classes=2, ks=[2], temperature=0.07)[2].exp()
    assert share[0, 0].item() == pytest.approx(1, abs=1e-3)


def test_more_neighbours_than_pictures_are_all_pictures():
    data = colours(train=9)
    few = [s.value for s in Knn(ks=(9,), features=64).evaluate(small_encoder(), data)]
    assert [s.value for s in Knn(ks=(100, 9), features=64).evaluate(small_encoder(), data)] == few


def test_the_number_of_neighbours_is_chosen_on_val():
    data = colours(train=60)  # all 60 neighbours at a high temperature: every query gets the same class
    one, every, both = (
        [s.value for s in Knn(ks=ks, features=64, temperature=100.0).evaluate(small_encoder(), data)]
        for ks in ((1,), (60,), (1, 60))
    )
    assert both == one and one != every


def test_the_pooling_of_each_stage_is_chosen_on_val():
    encoder, data = small_encoder(), colours(train=45, learnable=False)
    values = {}
    for name, settings in {
        "averaged": {"features": 1},
        "cells": {"features": 64, "averaged": False},
        "both": {"features": 64},
    }.items():
        scores = Knn(ks=(7,), **settings).evaluate(encoder, data)
        values[name] = {score.stage: score.value for score in scores if score.metric == "top1"}
    assert all(value in (values["averaged"][stage], values["cells"][stage]) for stage, value in values["both"].items())
    _, val, _ = labelled_features(encoder, data, train_images=0, most=1, seed=0)
    assert all(part.shape[1] == stage.channels for part, stage in zip(val.stages.values(), encoder.stages, strict=True))
    assert len({*values["averaged"].values()} | {*values["cells"].values()}) > 1


def test_several_classes_a_picture_end_to_end():
    scores = list(Knn(features=64).evaluate(small_encoder(), colours(multi=True)))
    headline = next(score for score in scores if score.headline)
    assert [score.metric for score in scores] == ["mAP"] * 6
    assert headline.value > headline.chance + 20


def test_the_search_is_exact():
    rng = np.random.default_rng(4)
    database, queries = unit(rng, 300, 7), unit(rng, 40, 7)
    cosines, rows = nearest(queries, database, 12)
    exact = queries.double().numpy() @ database.double().numpy().T
    order = np.argsort(-exact, axis=1)[:, :12]
    np.testing.assert_array_equal(rows.numpy(), order)
    np.testing.assert_allclose(cosines.numpy(), np.take_along_axis(exact, order, axis=1), atol=1e-6)


def test_stages_votes_are_those_of_centred_features_of_length_one():
    """The whole probe equals a loop, for the chosen stage and k."""
    encoder, data = small_encoder(), colours(train=45, learnable=False)  # any error shows
    probe = Knn(ks=(7,), features=64, train_images=0, averaged=False)
    scores = list(probe.evaluate(encoder, data))
    train, _, test = labelled_features(encoder, data, train_images=0, most=64, seed=0)
    for stage in (encoder.stages[0].name, encoder.stages[-1].name):
        database, queries = (part.stages[stage].double().numpy() for part in (train, test))
        mean = database.mean(0)
        database, queries = (
            (each - mean) / np.linalg.norm(each - mean, axis=1, keepdims=True) for each in (database, queries)
        )
        right = []
        for query, label in zip(queries, test.targets.numpy(), strict=True):
            votes = np.zeros(3)
            for row in np.argsort(-(database @ query))[:7]:
                votes[train.targets[row]] += np.exp(database[row] @ query / 0.07)
            right.append(votes.argmax() == label)
        (found,) = [score.value for score in scores if score.stage == stage and score.metric == "top1"]
        assert found == pytest.approx(100 * np.mean(right))


def test_a_picture_is_encoded_once_for_all_poolings():
    encoder, seen = small_encoder(), []
    encoder.register_forward_hook(lambda module, given, maps: seen.append(len(given[0])))
    list(Knn(features=64).evaluate(encoder, colours(train=45, test=40)))
    assert sum(seen) <= 45 + 30 + 40


def test_defaults_hold_for_fewer_pictures_than_any_k():
    scores = list(Knn(features=64).evaluate(small_encoder(), colours(train=4, test=10)))
    assert all(np.isfinite(score.value) for score in scores)


@pytest.mark.parametrize("settings", [{"ks": ()}, {"ks": (0,)}, {"temperature": 0.0}, {"temperature": float("nan")}])
def test_settings_out_of_range_are_named(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Knn(**settings)


def test_faiss_takes_pytorchs_number_of_threads_for_every_search(monkeypatch):
    import faiss

    given = []
    monkeypatch.setattr(faiss, "omp_set_num_threads", given.append)
    nearest(unit(np.random.default_rng(0), 2, 4), unit(np.random.default_rng(1), 5, 4), 3)
    assert given == [torch.get_num_threads()]


def test_votes_of_unknown_classes_are_those_of_fewer_neighbours():
    cosines, rows = torch.tensor([[0.9, 0.8, 0.7]]), torch.tensor([[0, 1, 2]])
    found = vote_shares(cosines, rows, torch.tensor([1, -1, 0]), classes=2, ks=[3], temperature=0.1)[3]
    weights = np.exp(np.array([0.9, 0.7]) / 0.1)
    np.testing.assert_allclose(found.exp()[0].numpy(), weights[::-1] / weights.sum(), rtol=1e-4)
