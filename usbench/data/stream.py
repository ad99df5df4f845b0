"""A plane that is too large for memory: rows are gathered from mapped files, those that come next by a thread.

On a GPU the thread also begins their copy, on a stream of its own beside the one that computes, which waits for the
copy's event where it first needs the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

AHEAD = 2  # gathers under way or waiting to be taken

Read = Callable[[np.ndarray], np.ndarray]  # indices of a pack → (n, side, side) uint8
Brought = tuple[Tensor, torch.cuda.Event | None]  # rows on the device, and what says that they have come


class Streamed:
    """(count, 1, side, side) uint8 of several packs behind each other, of which only batches are ever in memory."""

    def __init__(
        self, parts: Sequence[tuple[Read, np.ndarray]], side: int, device: torch.device, thread: ThreadPoolExecutor
    ) -> None:
        self.parts, self.side, self.device = parts, side, device
        self.starts = np.cumsum([0, *(len(indices) for _, indices in parts)])
        self._thread = thread
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._coming: dict[bytes, Future[Brought]] = {}

    def take(self, rows: np.ndarray) -> Tensor:
        """The rows, on the device: those that were asked for ahead, or gathered now."""
        coming = self._coming.pop(rows.tobytes(), None)
        there, copied = self._bring(rows) if coming is None else coming.result()
        if copied is not None:
            computing = torch.cuda.current_stream(there.device)
            computing.wait_event(copied)
            there.record_stream(computing)  # no later copy gets its memory before what is computed of it is done
        return there

    def ahead(self, rows: np.ndarray) -> None:
        """Begin to gather rows that will be taken soon. Nobody has to take them, and the same bytes come anyway."""
        if (key := rows.tobytes()) not in self._coming:
            while len(self._coming) >= AHEAD:
                self._coming.pop(next(iter(self._coming))).cancel()
            self._coming[key] = self._thread.submit(self._bring, rows.copy())

    def _bring(self, rows: np.ndarray) -> Brought:
        """Gather rows and begin to copy them."""
        if self._copies is None:
            return self._gather(rows), None
        with torch.cuda.stream(self._copies):  # a thread has a stream of its own, and a device
            there = self._gather(rows).to(self._copies.device, non_blocking=True)
            return there, self._copies.record_event()

    def _gather(self, rows: np.ndarray) -> Tensor:
        # Pinned memory comes from a pool that waits for copies under way, so a new tensor is a free buffer.
        pinned = self._copies is not None
        out = torch.empty((len(rows), 1, self.side, self.side), dtype=torch.uint8, pin_memory=pinned)
        filled = out.numpy()[:, 0]
        of = np.searchsorted(self.starts, rows, side="right") - 1
        for number, (read, indices) in enumerate(self.parts):
            here = np.flatnonzero(of == number)
            if len(here):
                filled[here] = read(indices[rows[here] - self.starts[number]])
        return out
