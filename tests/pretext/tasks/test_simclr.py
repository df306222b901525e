"""SimCLR: NT-Xent against a double loop and lightly, its invariances, and over two processes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.distributed as dist
from process_samples import in_two_processes
from task_samples import generator, joined_batch, lightly, projector
from torch import nn

from pretext.system.distributed import average_gradients, gather, rank, world
from pretext.tasks.simclr import nt_xent


def projections(count=6, length=5, seed=0):
    draws = generator(seed)
    return tuple(torch.randn(count, length, generator=draws) for _ in range(2))


def double_loop(z1, z2, temperature):
    """Return equation 1 and algorithm 1 in float64, one pair at a time."""
    interleaved = [row.double().numpy() for pair in zip(z1, z2, strict=True) for row in pair]
    n = len(interleaved)

    def similarity(i, j):
        u, v = interleaved[i], interleaved[j]
        return float(u @ v / (math.sqrt(u @ u) * math.sqrt(v @ v)))

    def pair_loss(i, j):
        below = sum(math.exp(similarity(i, k) / temperature) for k in range(n) if k != i)
        return -math.log(math.exp(similarity(i, j) / temperature) / below)

    return sum(pair_loss(k, k + 1) + pair_loss(k + 1, k) for k in range(0, n, 2)) / n


@pytest.mark.parametrize("temperature", [0.1, 0.5, 3.0])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_loss_is_equation_1(count, temperature):
    z1, z2 = projections(count)
    expected = double_loop(z1, z2, temperature)
    assert nt_xent(z1, z2, temperature=temperature).item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_the_loss_is_lightlys(monkeypatch):
    z1, z2 = projections(9, 16)
    expected = lightly(monkeypatch).NTXentLoss(temperature=0.2)(z1, z2).item()
    assert nt_xent(z1, z2, temperature=0.2).item() == pytest.approx(expected, rel=1e-5)


def test_neither_order_nor_length_nor_rotation_matters():
    z1, z2 = projections()
    loss = nt_xent(z1, z2, temperature=0.5)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator(4)))[0]
    stretch = torch.linspace(0.1, 9, 6)[:, None]
    for a, b in ((z1[order], z2[order]), (z2, z1), (z1 @ turn, z2 @ turn), (stretch * z1, z2 / stretch)):
        torch.testing.assert_close(nt_xent(a, b, temperature=0.5), loss)


def test_a_lower_temperature_is_better_for_agreement_and_worse_for_disagreement():
    z1 = torch.eye(6)
    agreeing = [nt_xent(z1, z1, temperature=t).item() for t in (0.1, 0.3, 1.0, 3.0)]
    assert agreeing == sorted(agreeing) and agreeing[0] < 1e-3
    apart = [nt_xent(z1, z1.roll(1, 0), temperature=t).item() for t in (0.1, 0.3, 1.0, 3.0)]
    assert apart == sorted(apart, reverse=True)


def test_collapsed_projections_cost_log_of_the_number_of_candidates():
    z = torch.ones(6, 4)
    assert nt_xent(z, z, temperature=0.5).item() == pytest.approx(math.log(11), rel=1e-6)


def test_gradients_are_the_finite_differences_of_the_double_loop():
    z1, z2 = (z.requires_grad_() for z in projections(3, 4))
    nt_xent(z1, z2, temperature=0.5).backward()
    for which, z in enumerate((z1, z2)):
        for i, j in ((0, 0), (1, 3), (2, 2)):
            values = []
            for step in (1e-5, -1e-5):
                moved = [z1.detach().double().clone(), z2.detach().double().clone()]
                moved[which][i, j] += step
                values.append(double_loop(*moved, 0.5))
            assert z.grad[i, j].item() == pytest.approx((values[0] - values[1]) / 2e-5, abs=1e-5)


def test_mixed_precision_does_not_round_similarities():
    z1, z2 = projections(16, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = nt_xent(z1, z2, temperature=0.05)
    assert mixed.item() == nt_xent(z1, z2, temperature=0.05).item()


def test_a_single_process_gathers_nothing():
    rows = torch.ones(2, 3, requires_grad=True)
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.tensor([1.0, 2.0])
    average_gradients([parameter])
    assert gather(rows) is rows and (world(), rank()) == (1, 0)
    assert parameter.grad.tolist() == [1, 2]


def one_of_two(number, folder):
    """Run one process on its half of the batch, and write its results."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=number, world_size=2)
    views = [half.chunk(2)[number] for half in joined_batch()]
    model = projector()
    idle = nn.Parameter(torch.ones(1))  # without a gradient on either process
    loss = nt_xent(model(views[0]), model(views[1]), temperature=0.5)
    loss.backward()
    average_gradients([*model.parameters(), idle])
    rows = torch.full((2, 1), float(number), requires_grad=True)
    everyone = gather(rows)
    ((number + 1) * everyone * torch.tensor([[1.0], [2.0], [3.0], [4.0]])).sum().backward()
    np.savez(
        f"{folder}/{number}.npz",
        loss=loss.detach().numpy(),
        everyone=everyone.detach().numpy(),
        rows=rows.grad.numpy(),
        idle=np.array(idle.grad is None),
        who=np.array([rank(), world()]),
        **{name: parameter.grad.numpy() for name, parameter in model.named_parameters()},
    )
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one_with_the_joined_batch(tmp_path):
    in_two_processes(one_of_two, str(tmp_path))
    model = projector()
    loss = nt_xent(*(model(view) for view in joined_batch()), temperature=0.5)
    loss.backward()
    found = [np.load(tmp_path / f"{number}.npz") for number in range(2)]
    assert np.mean([one["loss"] for one in found]) == pytest.approx(loss.item(), rel=1e-6)
    for number, one in enumerate(found):
        assert one["who"].tolist() == [number, 2] and one["idle"]
        assert one["everyone"].ravel().tolist() == [0, 0, 1, 1]
        # A row's gradient is the sum over both processes' losses: (1 + 2) times its weight.
        assert one["rows"].ravel().tolist() == [[3, 6], [9, 12]][number]
        for name, parameter in model.named_parameters():
            np.testing.assert_allclose(one[name], parameter.grad.numpy(), rtol=1e-4, atol=1e-7)
