"""Peak memory can be reset, so that a cell does not report the peak of an earlier one in the same process."""

from __future__ import annotations

import resource

import numpy as np
import pytest
from comparison_samples import computed, plan

from pretext.system.memory import CLEAR, peak_memory, reset_peak_memory

MIB = 2**20
pytestmark = pytest.mark.skipif(not CLEAR.exists(), reason="only Linux can reset the peak of a process")


def hold(mebibytes):
    """Write to that much memory, and free it."""
    np.full(mebibytes * MIB, 1, dtype=np.uint8)


@pytest.mark.slow
def test_the_peak_includes_freed_memory_until_it_is_reset():
    reset_peak_memory()
    before = peak_memory()
    hold(400)
    high = peak_memory()
    assert high - before == pytest.approx(400 * MIB, abs=40 * MIB)
    reset_peak_memory()
    assert peak_memory() < before + 40 * MIB


def test_freed_memory_that_the_allocator_keeps_does_not_count():
    reset_peak_memory()
    before = peak_memory()
    blocks = [np.full(200_000, 1, dtype=np.uint8) for _ in range(3_000)]
    above = [np.full(100_000, 1, dtype=np.uint8) for _ in range(2)]
    del blocks
    assert peak_memory() > before + 500 * MIB
    reset_peak_memory()
    assert peak_memory() < before + 100 * MIB
    del above


def test_without_the_status_file_the_peak_is_that_of_getrusage(monkeypatch, tmp_path):
    monkeypatch.setattr("pretext.system.memory.STATUS", tmp_path / "none")
    assert peak_memory() == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.usefixtures("own_cache")
def test_a_cell_does_not_report_memory_that_was_freed_before_it(tmp_path):
    hold(900)
    high = peak_memory()
    *_, stored = computed(plan(), tmp_path / "out", "random")
    assert 50 * MIB < stored.peak_mem_bytes < high - 400 * MIB
