"""A first-in, first-out queue of vectors from earlier steps, used as negatives.

Source: He et al. 2020, arXiv 1911.05722, section 3.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pretext.system.errors import UserError


class Queue(nn.Module):
    """The last `size` vectors that were put in; random unit vectors until it is full.

    Both attributes are saved in checkpoints.

    Attributes:
        rows: The vectors, size × length; not ordered by age.
        place: Index of the next vector to replace.
    """

    rows: Tensor
    place: Tensor

    def __init__(self, size: int, length: int) -> None:
        super().__init__()
        self.register_buffer("rows", F.normalize(torch.randn(size, length), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def put(self, rows: Float[Tensor, "N D"]) -> None:
        """Replace the oldest vectors.

        Args:
            rows: The new vectors, of length 1.

        Raises:
            UserError: If there are more vectors than the queue holds.
        """
        size = len(self.rows)
        if len(rows) > size:
            raise UserError(
                f"queue is {size}, smaller than the {len(rows)} vectors of a step; "
                f"give {len(rows)} or more, or a smaller batch"
            )
        index = (self.place + torch.arange(len(rows), device=rows.device)) % size
        self.rows.index_copy_(0, index, rows.to(self.rows.dtype))
        self.place.add_(len(rows)).remainder_(size)
