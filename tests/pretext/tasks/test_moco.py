"""MoCo: the two losses against loops and lightly, the queue against a deque, and the trained weights."""

from __future__ import annotations

import collections
import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from process_samples import in_two_processes
from task_samples import COARSE, SMALL, batch, built, generator, lightly, noise, step, trained

from pretext.modules.memory_bank import Queue
from pretext.modules.momentum_encoder import rising_momentum
from pretext.system.errors import UserError
from pretext.tasks.moco import batch_loss, queue_logits
from pretext.transforms.augmentation import augment

UNCHANGED = "jitter=0&greyscale=0&crop_min=1&flip=0&aspect=1&blur=0"
"""Settings whose views equal the images."""


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=generator(seed)), dim=1)


def moco(spec, encoder=SMALL):
    return built(f"{spec}{'&' if '?' in spec else '?'}hidden=32&projection=16", encoder)


def whole_step(model, given, progress=0.0):
    loss = step(model, given, torch.optim.SGD(model.players()["task"], 0.1))
    model.after_step(progress)
    return loss


def queue_loop(q, k, queue, temperature):
    """Return equation 1 in float64, one similarity at a time."""
    q, k, queue = (x.double().tolist() for x in (q, k, queue))
    total = 0.0
    for i in range(len(q)):
        positive = math.exp(sum(a * b for a, b in zip(q[i], k[i], strict=True)) / temperature)
        negatives = [math.exp(sum(a * b for a, b in zip(q[i], other, strict=True)) / temperature) for other in queue]
        total -= math.log(positive / (positive + sum(negatives)))
    return total / len(q)


def batch_loop(q, k, temperature):
    """Return `ctr` of arXiv 2104.02057, algorithm 1."""
    q, k = q.double().numpy(), k.double().numpy()
    total = 0.0
    for i in range(len(q)):
        weights = [math.exp(float(q[i] @ k[j]) / temperature) for j in range(len(k))]
        total -= math.log(weights[i] / sum(weights))
    return 2 * temperature * total / len(q)


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
@pytest.mark.parametrize(("count", "waiting"), [(1, 1), (5, 3), (4, 11)])
def test_the_queues_loss_is_equation_1(count, waiting, temperature):
    q, k, queue = unit(count, 6), unit(count, 6, seed=1), unit(waiting, 6, seed=2)
    logits = queue_logits(q, k, queue, temperature=temperature)
    assert logits.shape == (count, 1 + waiting)
    found = F.cross_entropy(logits, torch.zeros(count, dtype=torch.int64)).item()
    assert found == pytest.approx(queue_loop(q, k, queue, temperature), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.2, 1.0])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_batchs_loss_is_v3s(count, temperature):
    q, k = unit(count, 6), unit(count, 6, seed=1)
    found = batch_loss(q, k, temperature=temperature).item()
    assert found == pytest.approx(batch_loop(q, k, temperature), rel=1e-5, abs=1e-6)


def test_loss_and_queue_are_lightlys(monkeypatch):
    theirs = lightly(monkeypatch).NTXentLoss(temperature=0.2, memory_bank_size=(12, 6))
    mine = Queue(12, 6)
    theirs.memory_bank.bank.copy_(mine.rows)
    for seed in range(5):  # 4 divides 12; otherwise lightly drops the keys beyond the end
        q, k = unit(4, 6, seed=seed).requires_grad_(), unit(4, 6, seed=9 + seed)
        logits = queue_logits(q, k, mine.rows, temperature=0.2)
        mine.put(k)
        found = F.cross_entropy(logits, torch.zeros(4, dtype=torch.int64)).item()
        assert found == pytest.approx(theirs(q, k).item(), rel=1e-5)
        torch.testing.assert_close(mine.rows, theirs.memory_bank.bank)


@pytest.mark.parametrize(("size", "counts"), [(7, [3, 3, 3, 3]), (8, [8, 8]), (5, [1, 4, 2, 5, 3]), (6, [6, 1, 6])])
def test_a_queue_is_a_deque_of_its_last_rows(size, counts):
    queue, deque = Queue(size, 3), collections.deque(maxlen=size)
    deque.extend(queue.rows.clone())
    storage = queue.rows.data_ptr()
    for seed, count in enumerate(counts):
        rows = unit(count, 3, seed=seed)
        queue.put(rows)
        deque.extend(rows)
        oldest_first = queue.rows.roll(-int(queue.place), 0)
        assert torch.equal(oldest_first, torch.stack(list(deque)))
    assert queue.rows.data_ptr() == storage and set(queue.state_dict()) == {"rows", "place"}


def test_a_queue_begins_with_random_rows_of_length_1():
    rows = Queue(50, 8).rows
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(50))
    assert len(rows.unique(dim=0)) == 50


def test_a_queue_shorter_than_a_step_is_refused():
    with pytest.raises(UserError, match=r"queue is 4.*the 8 "):
        list(moco("moco?queue=4").losses(batch(noise(8))))
    list(moco("moco?queue=8").losses(batch(noise(8))))


def test_a_steps_keys_are_the_momentum_encoders_and_enter_the_queue():
    model = moco(f"moco?queue=20&norm_groups=1&{UNCHANGED}")
    before = model.queue.rows.clone()
    given = batch(noise(8))
    slow = F.normalize(model.slow(given.images), dim=1)
    loss = next(model.losses(given))[1]
    torch.testing.assert_close(model.queue.rows[:8], slow, atol=1e-4, rtol=0)  # in the images' order
    assert torch.equal(model.queue.rows[8:], before[8:]) and int(model.queue.place) == 8
    # Both encoders are still equal: a query equals its key, and this step's keys are no negatives.
    assert loss.item() == pytest.approx(queue_loop(slow, slow, before, 0.2), rel=1e-3)
    assert model.metrics() == {"accuracy": 1.0}


def test_accuracy_is_the_share_of_queries_whose_key_is_nearest():
    model = moco(f"moco?queue=16&norm_groups=1&{UNCHANGED}").eval()
    images = noise(8)
    own = F.normalize(model.slow(images), dim=1)  # queries equal their keys, the highest similarity
    with torch.no_grad():
        model.queue.rows.copy_(-own.repeat(2, 1))
        model.projector[-1].weight[:8].neg_()
        model.projector[-1].bias[:8].neg_()
        queries = F.normalize(model.projector(model.encoder.embed(images)), dim=1)
        nearest = [float(q @ k) > float((q @ -own.T).max()) for q, k in zip(queries, own, strict=True)]
    list(model.losses(batch(noise(8))))
    assert model.metrics()["accuracy"] == sum(nearest) / 8 and 0 < sum(nearest) < 8


@pytest.mark.parametrize("count", [2, 3, 5, 8, 9])
def test_keys_are_shuffled_between_groups(count, monkeypatch):
    model = moco(f"moco?queue=16&norm_groups=4&{UNCHANGED}")
    asked, answered = [], []
    query, key = model._query, model._key
    monkeypatch.setattr(model, "_query", lambda images: (asked.append(images), query(images))[1])
    monkeypatch.setattr(model, "_key", lambda images: (answered.append(images), key(images))[1])
    list(model.losses(batch(noise(count))))
    sizes = [len(images) for images in asked]
    assert sizes == [len(images) for images in answered] and len(sizes) == max(1, min(4, count // 2))
    assert sum(sizes) == count and min(sizes) >= 2  # batch normalisation needs 2 images
    pictures = noise(count).float() / 255
    torch.testing.assert_close(torch.cat(asked), pictures)
    order = torch.cdist(torch.cat(answered).flatten(1), pictures.flatten(1)).argmin(dim=1)
    assert sorted(order.tolist()) == list(range(count))
    if count > 5:
        groups = [{int(k) for k in part} for part in order.tensor_split(4)]
        assert groups != [{int(k) for k in part} for part in torch.arange(count).tensor_split(4)]


def test_without_batch_statistics_groups_make_no_difference():
    """In evaluation mode images are independent, so that shuffling and restoring the order changes nothing."""
    images = noise(8)
    losses, queues = [], []
    for groups in (1, 3, 4):
        model = moco(f"moco?queue=16&norm_groups={groups}").eval()
        losses.append(next(model.losses(batch(images, 3)))[1].item())
        queues.append(model.queue.rows.clone())
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    for queue in queues[1:]:
        torch.testing.assert_close(queue, queues[0])
    training = [moco(f"moco?queue=16&norm_groups={groups}") for groups in (1, 4)]
    apart = [next(model.losses(batch(noise(8))))[1].item() for model in training]
    assert apart[0] != pytest.approx(apart[1], rel=1e-4)


@pytest.mark.parametrize(("spec", "momentum"), [("moco?queue=8&momentum=0.9", 0.9), ("moco:v3?momentum=0.9", None)])
def test_the_momentum_encoder_is_the_moving_average_and_gets_no_gradient(spec, momentum):
    model = moco(spec)
    pairs = [
        *zip(model.slow.network.encoder.parameters(), model.encoder.parameters(), strict=True),
        *zip(model.slow.network.projector.parameters(), model.projector.parameters(), strict=True),
    ]
    assert all(torch.equal(slow, fast) and slow is not fast for slow, fast in pairs)
    whole_step(model, batch(noise(8)), progress=0.3)
    first = [fast.detach().double().clone() for _, fast in pairs]
    expected = [slow.double().clone() for slow, _ in pairs]
    whole_step(model, batch(noise(8), 1), progress=0.6)
    share = momentum or rising_momentum(0.9, 0.6)
    for old, fast, (slow, now) in zip(expected, first, pairs, strict=True):
        torch.testing.assert_close(slow.double(), share * old + (1 - share) * now.double(), atol=1e-6, rtol=1e-5)
        assert slow.grad is None and not torch.equal(fast, now.double())


def test_queries_get_the_gradient_of_fixed_keys():
    """The gradient is that of the formula with the keys and the queue as constants."""
    model, twin = moco("moco?queue=16&norm_groups=1"), moco("moco?queue=16&norm_groups=1")
    queue = twin.queue.rows.clone()
    next(model.losses(batch(noise(8))))[1].backward()
    keys = model.queue.rows[:8].clone()
    given = batch(noise(8))
    q = F.normalize(twin.projector(twin.encoder.embed(augment(given.images, twin.config, given.generator))), dim=1)
    positive = (q * keys).sum(dim=1) / 0.2
    total = positive.exp() + (q @ queue.T / 0.2).exp().sum(dim=1)
    (total.log() - positive).mean().backward()
    for mine, theirs in zip(model.encoder.parameters(), twin.encoder.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-3)


def test_v3_is_symmetric_and_has_no_queue():
    model = moco("moco:v3?blur_from=1")
    assert not hasattr(model, "queue") and model.metrics() == {}
    assert (model.second.blur, model.second.solarize) == (0.1, 0.2) and (model.config.blur, model.config.solarize) == (
        1,
        0,
    )
    views = [torch.rand(6, 3, 32, 32, generator=generator(s)) for s in range(2)]
    with torch.no_grad():
        halves = []
        for asking, asked in (views, views[::-1]):
            q = F.normalize(model.predictor(model.projector(model.encoder.embed(asking))), dim=1)
            halves.append(batch_loop(q, F.normalize(model.slow(asked), dim=1), 0.2))
            assert model._half_loss(asking, asked).item() == pytest.approx(halves[-1], rel=1e-4)


def test_v2s_second_view_is_drawn_as_the_first():
    assert moco("moco?blur=0.3&solarize=0.1").second == moco("moco?blur=0.3&solarize=0.1").config


@pytest.mark.parametrize("frozen", [True, False])
def test_v3_freezes_a_vision_transformers_patch_embedding(frozen):
    pytest.importorskip("timm", reason="timm is not installed")
    model = moco(f"moco:v3?frozen_patches={frozen}", "timm:vit_tiny_patch16_224")
    patches = {name: p for name, p in model.encoder.named_parameters() if ".patch_embed." in name}
    before = {name: p.detach().clone() for name, p in model.encoder.named_parameters()}
    whole_step(model, batch(noise(4)))
    after = dict(model.encoder.named_parameters())
    assert len(patches) == 2
    assert all(torch.equal(before[name], after[name]) == frozen for name in patches)
    assert any(not torch.equal(before[name], after[name]) for name in before if name not in patches)
    assert any(p is q for p in model.players()["task"] for q in patches.values()) != frozen


@pytest.mark.parametrize("spec", ["moco?queue=8", "moco:v3"])
@pytest.mark.parametrize("other", ["timm:resnet18", "timm:vit_tiny_patch16_224"])
def test_other_architectures_take_a_step(spec, other):
    pytest.importorskip("timm", reason="timm is not installed")
    assert math.isfinite(whole_step(moco(spec, other), batch(noise(4))))


def one_of_two(number, folder):
    """Run one process on its half of the batch."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    loss = batch_loss(unit(8, 6).chunk(2)[number], unit(8, 6, seed=1).chunk(2)[number], temperature=0.2)
    model = moco("moco?queue=12")
    half = noise(8).chunk(2)[number]
    next(model.losses(batch(half, number)))
    np.savez(
        f"{folder}/{number}.npz", loss=loss.numpy(), queue=model.queue.rows.numpy(), place=model.queue.place.numpy()
    )
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_share_keys_and_queue(tmp_path):
    in_two_processes(one_of_two, str(tmp_path))
    found = [np.load(tmp_path / f"{number}.npz") for number in range(2)]
    expected = batch_loop(unit(8, 6), unit(8, 6, seed=1), 0.2)
    assert np.mean([one["loss"] for one in found]) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_array_equal(found[0]["queue"], found[1]["queue"])
    for number in range(2):  # each process's keys, in the order of their ranks
        alone = moco("moco?queue=12")
        half = noise(8).chunk(2)[number]
        next(alone.losses(batch(half, number)))
        expected_keys = alone.queue.rows[:4].numpy()
        np.testing.assert_allclose(found[0]["queue"][4 * number : 4 * number + 4], expected_keys, atol=1e-5)
    assert int(found[0]["place"]) == 8


@pytest.mark.slow
def test_v2_learns():
    """Chance is 1 in 513; the queue is full after 8 steps."""
    run = trained("moco?queue=512", COARSE, steps=60)
    losses, spread = run.losses, run.spread()
    assert sum(losses[-8:]) / 8 < math.log(513) - 0.6, losses
    assert run.metrics[-1]["accuracy"] > 15 / 513 and spread > 0.3


@pytest.mark.slow
def test_v3_learns():
    chance = 2 * 2 * 0.2 * math.log(64)  # two directions, each times twice the temperature
    run = trained("moco:v3", COARSE, steps=60)
    losses, spread = run.losses, run.spread()
    assert losses[0] == pytest.approx(chance, abs=0.2)  # random similarities cost a little more
    assert sum(losses[-8:]) / 8 < chance - 0.2 and spread > 0.3, losses
