"""A cell's peak memory is its own, not that of what the same process computed before."""

from __future__ import annotations

import resource

import numpy as np
import pytest
from comparison_samples import computed, plan

from pretext.system.memory import CLEAR, peak_memory, reset_peak_memory

MIB = 2**20
pytestmark = pytest.mark.skipif(not CLEAR.exists(), reason="the system cannot start a process's peak anew: no Linux")


def hold(mebibytes):
    """Write to so much memory, and give it back."""
    np.full(mebibytes * MIB, 1, dtype=np.uint8)


def test_the_peak_holds_what_was_given_back_until_it_is_begun_anew():
    reset_peak_memory()
    before = peak_memory()
    hold(400)
    high = peak_memory()
    assert high - before == pytest.approx(400 * MIB, abs=40 * MIB)
    reset_peak_memory()
    assert peak_memory() < before + 40 * MIB


def test_without_that_file_the_peak_is_the_system_s_own(monkeypatch, tmp_path):
    monkeypatch.setattr("pretext.system.memory.STATUS", tmp_path / "none")
    assert peak_memory() == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.usefixtures("own_cache")
def test_a_cell_does_not_answer_for_what_was_held_before_it(tmp_path):
    hold(900)
    high = peak_memory()
    *_, stored = computed(plan(), tmp_path / "out", "random")
    assert 50 * MIB < stored.peak_mem_bytes < high - 400 * MIB
