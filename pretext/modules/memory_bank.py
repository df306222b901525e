"""A first-in, first-out store of vectors: what earlier steps leave to later ones to compare with.

Source: He et al. 2020, arXiv 1911.05722, section 3.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pretext.system.errors import UserError


class Queue(nn.Module):
    """The last `size` vectors that were put in, of length 1; random ones until as many have come.

    Attributes: `rows`, size × length, in no order of age; `place`, where the next one goes. Both are saved.
    """

    rows: Tensor
    place: Tensor

    def __init__(self, size: int, length: int) -> None:
        super().__init__()
        self.register_buffer("rows", F.normalize(torch.randn(size, length), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def put(self, rows: Float[Tensor, "N D"]) -> None:
        """Replace the oldest vectors by these.

        Raises:
            UserError: If they are more than the queue holds.
        """
        size = len(self.rows)
        if len(rows) > size:
            raise UserError(
                f"queue is {size}, shorter than the {len(rows)} vectors of a step; "
                f"give {len(rows)} or more, or a smaller batch"
            )
        at = (self.place + torch.arange(len(rows), device=rows.device)) % size
        self.rows.index_copy_(0, at, rows.to(self.rows.dtype))
        self.place.add_(len(rows)).remainder_(size)
