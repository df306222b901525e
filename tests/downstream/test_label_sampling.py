"""Which images are drawn, and the statistics over several draws."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from probe_samples import colours

from downstream.label_sampling import (
    few_of_each,
    fixed_order,
    over_samples,
    reached_by_all,
    share_of_each,
    strata,
)
from pretext.judging import Score

pytestmark = pytest.mark.usefixtures("own_cache")

SINGLE = torch.tensor([0] * 200 + [1] * 40 + [2] * 7 + [-1] * 5)


def several(seed=0, count=300):
    """Targets of four classes, the last one rare; some labels unknown, some images without classes or not decodable."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((count, 4)) < [0.5, 0.2, 0.1, 0.03]).astype(np.int64)
    targets[rng.random((count, 4)) < 0.05] = -1
    targets[:10] = -1
    return torch.from_numpy(targets)


def splitmix(state):
    """SplitMix64's next output, in Python integers."""
    mask = 2**64 - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


@pytest.mark.parametrize("sample", [0, 4])
def test_the_order_is_that_of_a_hash_in_whole_numbers(sample):
    assert splitmix(0) == 0xE220A8397B1DCDAF  # the published first output of seed 0
    keys = [splitmix((splitmix(sample) + i) % 2**64) for i in range(500)]
    assert fixed_order(500, sample=sample).tolist() == sorted(range(500), key=keys.__getitem__)


def test_the_order_is_fixed():
    assert fixed_order(8, sample=0).tolist() == [5, 7, 1, 4, 2, 0, 6, 3]
    assert fixed_order(8, sample=1).tolist() == [6, 7, 0, 5, 1, 3, 2, 4]


def test_more_pictures_at_the_end_leave_the_order_of_the_others():
    longer = fixed_order(100, sample=2)
    assert longer[longer < 60].tolist() == fixed_order(60, sample=2).tolist()


@pytest.mark.parametrize("count", [1, 2, 8, 20])
def test_each_class_has_as_many_as_were_asked_for(count):
    indices, targets = few_of_each(SINGLE, count, sample=0)
    assert torch.equal(targets, SINGLE[torch.from_numpy(indices)])
    assert targets.bincount().tolist() == [count, count, min(count, 7)]
    half = few_of_each(SINGLE, max(1, count // 2), sample=0)[0]
    assert set(half) <= set(indices) and len(set(indices)) == len(indices)
    assert set(indices) != set(few_of_each(SINGLE, count, sample=1)[0])


@pytest.mark.parametrize("count", [1, 2, 8])
def test_of_several_classes_a_picture_each_has_exactly_as_many_and_no_more(count):
    all_targets = several()
    indices, targets = few_of_each(all_targets, count, sample=3)
    shown = (all_targets == 1).sum(0)
    assert (targets == 1).sum(0).tolist() == shown.clamp(max=count).tolist()
    assert ((targets == 0).sum(0) <= count * 3).all()
    truth = all_targets[torch.from_numpy(indices)]
    assert torch.equal(targets[targets >= 0], truth[targets >= 0])  # known labels are true
    assert ((truth == 1) & (targets == -1)).any() == (len(indices) < shown.clamp(max=count).sum() or count > 1)
    assert set(few_of_each(all_targets, max(1, count // 2), sample=3)[0]) <= set(indices)


@pytest.mark.parametrize("share", [0.001, 0.05, 0.1, 0.5, 1.0])
def test_every_class_keeps_its_share_and_one_picture_at_least(share):
    found = SINGLE[torch.from_numpy(share_of_each(SINGLE, share, sample=0))].bincount(minlength=3).tolist()
    assert found == [max(1, int(share * size + 0.5)) for size in (200, 40, 7)]


@pytest.mark.parametrize("targets", [SINGLE, several()])
def test_a_smaller_share_is_a_part_of_a_larger_one(targets):
    found = [set(share_of_each(targets, share, sample=1).tolist()) for share in (0.01, 0.05, 0.1, 0.5, 1.0)]
    assert all(a <= b for a, b in itertools.pairwise(found))
    known = (targets >= 0) if targets.ndim == 1 else (targets >= 0).any(1)
    assert found[-1] == set(known.nonzero()[:, 0].tolist())


@pytest.mark.parametrize("sample", range(5))
def test_a_share_of_several_classes_a_picture_is_near_the_share_and_shows_all(sample):
    targets = several(count=1000)
    for share in (0.01, 0.1, 0.3):
        found = targets[torch.from_numpy(share_of_each(targets, share, sample=sample))]
        assert (found == 1).any(0).all() and (found >= 0).any(1).all()
        assert share * 990 - 3 <= len(found) <= share * 990 + 4 + 3
    of_each = (found == 1).sum(0) / (targets == 1).sum(0)
    np.testing.assert_allclose(of_each.numpy(), 0.3, atol=0.12)


def test_a_picture_counts_as_its_rarest_class():
    targets = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 0, -1], [0, 0, 0], [-1, -1, -1], [-1, 0, -1]])
    assert strata(targets).tolist() == [1, 0, 0, 3, -1, 3]


def test_a_k_above_a_class_s_images_is_left_out_with_a_message(capsys):
    data = colours()
    assert reached_by_all(data, SINGLE, (1, 7, 8, 96)) == [1, 7]
    assert capsys.readouterr().err == "colours: left out k=8, 96: only 7 training image(s) show c\n"
    absent = torch.tensor([0, 0, 2, 2])  # a class without images is ignored
    assert reached_by_all(data, absent, (1, 2)) == [1, 2]
    many = several()
    assert reached_by_all(colours(classes=4, multi=True), many, (1, 10**6)) == [1]
    assert "show d" in capsys.readouterr().err


def test_means_and_deviations_are_the_formulas():
    items = np.random.default_rng(0).integers(0, 2, (3, 6)) * 100.0
    scores = [Score("top1", float(row.mean()), "%", True, 10.0, 6, stage="s", items=row) for row in items]
    mean, spread = over_samples(scores, "top1@k=4")
    values = [sum(row) / 6 for row in items.tolist()]
    middle = sum(values) / 3
    assert (mean.metric, mean.value, mean.n, mean.stage, mean.chance) == ("top1@k=4", pytest.approx(middle), 6, "s", 10)
    assert mean.items.tolist() == pytest.approx([sum(column) / 3 for column in items.T.tolist()])
    assert spread.metric == "top1@k=4 sd" and not spread.higher_is_better and spread.chance is None
    assert spread.value == pytest.approx((sum((v - middle) ** 2 for v in values) / 2) ** 0.5)
    assert len(over_samples(scores[:1], "x")) == 1 and spread.items is None
