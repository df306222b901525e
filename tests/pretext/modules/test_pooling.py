from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pretext.modules.pooling import averaged


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("cells", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("sides", [(1, 1), (2, 2), (4, 4), (6, 6), (8, 4), (7, 13), (16, 16)])
def test_averages_are_those_of_adaptive_pooling(sides, cells, layout):
    maps = torch.randn(5, 24, *sides, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)
    found, expected = averaged(maps, cells), F.adaptive_avg_pool2d(maps.contiguous(), cells)
    assert found.shape == (5, 24, cells, cells)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    if layout == torch.contiguous_format:  # as encoders return them: results are the same bits as before
        assert torch.equal(found, expected)
