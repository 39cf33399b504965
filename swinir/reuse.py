"""Video repeats itself: the tiles of the frame before, and what became of them, so that equal ones are not computed again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Run = Callable[[list[Tensor]], list[Tensor]]
Row = list[tuple[Tensor, Tensor]]  # tiles of one row from the left: input, output


class TileMemory:
    """Remembers one frame of one stream of frames; not for several threads at once.

    A tile's output is a function of its input, margins included, so with ``tolerance`` 0 what comes out is the same bit for bit
    as without. A tolerance in 8-bit codes takes tiles for equal that differ by no more than that anywhere; they are compared
    with the one last computed, so that differences do not add up. ``num_reused`` and ``num_computed`` count tiles.
    """

    def __init__(self, tolerance: float = 0.0) -> None:
        if tolerance < 0:
            raise ValueError(f"tolerance must be 0 or more 8-bit codes, got {tolerance}")
        self._tolerance = (tolerance + 1e-3) / 255 if tolerance else 0.0  # whole codes as floats are a little off
        self._rows: list[Row] = []
        self.num_reused = self.num_computed = 0

    def frame(self, run: Run) -> Run:
        """``run`` for the rows of tiles of the next frame, from the top; see ``blended_bands``."""
        before, self._rows = self._rows, []

        def run_row(tiles: list[Tensor]) -> list[Tensor]:
            index = len(self._rows)
            known: list[tuple[Tensor, Tensor] | None] = list(before[index]) if index < len(before) else []
            known += [None] * (len(tiles) - len(known))
            equal = self._equal(tiles, known)
            # Copies go in: what comes out may be a part of them.
            new = [tile.clone() for tile, same in zip(tiles, equal, strict=True) if not same]
            computed = zip(new, run(new) if new else [], strict=True)
            row: Row = []
            for old, same in zip(known, equal, strict=False):
                row.append(old if same and old is not None else next(computed))
            self._rows.append(row)
            self.num_computed += len(new)
            self.num_reused += len(tiles) - len(new)
            return [output for _, output in row]

        return run_row

    def _equal(self, tiles: list[Tensor], known: list[tuple[Tensor, Tensor] | None]) -> list[bool]:
        """Whether each tile is the one before; asks the device once."""
        can = [old is not None and old[0].shape == tile.shape for tile, old in zip(tiles, known, strict=False)]
        answers = iter(
            torch.stack([
                ((tile - old[0]).abs() <= self._tolerance).all()
                for tile, old, possible in zip(tiles, known, can, strict=False) if possible and old is not None
            ]).tolist()
            if any(can) else []
        )  # fmt: skip
        return [possible and next(answers) for possible in can]
