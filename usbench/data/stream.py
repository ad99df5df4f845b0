"""A plane that is too large for memory: rows are gathered from mapped files, those that come next by a thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

AHEAD = 2  # gathers under way or waiting to be taken

Read = Callable[[np.ndarray], np.ndarray]  # indices of a pack → (n, side, side) uint8


class Streamed:
    """(count, 1, side, side) uint8 of several packs behind each other, of which only batches are ever in memory."""

    def __init__(
        self, parts: Sequence[tuple[Read, np.ndarray]], side: int, device: torch.device, thread: ThreadPoolExecutor
    ) -> None:
        self.parts, self.side, self.device = parts, side, device
        self.starts = np.cumsum([0, *(len(indices) for _, indices in parts)])
        self._thread = thread
        self._coming: dict[bytes, Future[Tensor]] = {}

    def take(self, rows: np.ndarray) -> Tensor:
        """The rows, on the device: those that were asked for ahead, or gathered now."""
        coming = self._coming.pop(rows.tobytes(), None)
        host = self._gather(rows) if coming is None else coming.result()
        return host.to(self.device, non_blocking=True)

    def ahead(self, rows: np.ndarray) -> None:
        """Begin to gather rows that will be taken soon. Nobody has to take them, and the same bytes come anyway."""
        if (key := rows.tobytes()) not in self._coming:
            while len(self._coming) >= AHEAD:
                self._coming.pop(next(iter(self._coming))).cancel()
            self._coming[key] = self._thread.submit(self._gather, rows.copy())

    def _gather(self, rows: np.ndarray) -> Tensor:
        # Pinned memory comes from a pool that waits for copies under way, so a new tensor is a free buffer.
        pinned = self.device.type == "cuda"
        out = torch.empty((len(rows), 1, self.side, self.side), dtype=torch.uint8, pin_memory=pinned)
        filled = out.numpy()[:, 0]
        of = np.searchsorted(self.starts, rows, side="right") - 1
        for number, (read, indices) in enumerate(self.parts):
            here = np.flatnonzero(of == number)
            if len(here):
                filled[here] = read(indices[rows[here] - self.starts[number]])
        return out
