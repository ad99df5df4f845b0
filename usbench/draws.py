"""Randomness without state: every draw comes from a generator named by what it is for."""

from __future__ import annotations

import hashlib
import random

import numpy as np


def seed_of(*labels: int | str) -> int:
    """A 63-bit seed that depends on the labels alone, the same on every machine."""
    text = "\0".join(f"{type(label).__name__}:{label}" for label in labels)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(*labels: int | str) -> np.random.Generator:
    """A numpy generator for these labels, for example (seed, "pretrain", step, rank)."""
    return np.random.Generator(np.random.Philox(key=seed_of(*labels)))


def seed_globals(*labels: int | str) -> None:
    """Seed torch's, numpy's and Python's global generators: third-party losses and layers draw from them."""
    import torch

    seed = seed_of(*labels)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
