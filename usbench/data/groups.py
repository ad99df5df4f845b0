"""Which groups a label fraction, its inner validation and the test folds are made of. No group is ever cut."""

from __future__ import annotations

import numpy as np
import pandas as pd

from usbench.draws import generator

INNER_SHARE = 0.2
MOST = 1.5  # times as many images as wanted, where groups are large


def take_fraction(table: pd.DataFrame, indices: np.ndarray, percent: float, seed: int) -> np.ndarray:
    """Whole groups until `percent` of the images are reached; a smaller fraction is part of every larger one.

    The last group is left out where it would bring in many more than wanted and fewer are nearer to it.
    """
    if percent >= 100 or not len(indices):
        return indices
    part = table.iloc[indices]
    wanted = max(1, round(len(indices) * percent / 100))
    counts = part.group.value_counts()
    ordered = _ordered_groups(part, seed, "fraction")
    reached = counts[ordered].cumsum().to_numpy()
    last = int((reached < wanted).sum())
    before = int(reached[last - 1]) if last else 0
    if last and reached[last] > MOST * wanted and reached[last] - wanted > wanted - before:
        last -= 1
    return indices[part.group.isin(ordered[: last + 1]).to_numpy()]


def take_inner(table: pd.DataFrame, indices: np.ndarray, seed: int) -> np.ndarray:
    """Whole groups until a fifth of the images is reached, without those that would bring in many more; where all
    would, the smallest."""
    if not len(indices):
        return indices
    part = table.iloc[indices]
    wanted = max(1, round(len(indices) * INNER_SHARE))
    counts = part.group.value_counts().to_dict()
    ordered = _ordered_groups(part, seed, "inner")
    chosen: list[int] = []
    images = 0
    for group in ordered:
        if images < wanted and images + counts[group] <= MOST * wanted:
            chosen.append(group)
            images += counts[group]
    chosen = chosen or sorted(ordered, key=lambda group: counts[group])[:1]
    return indices[part.group.isin(chosen).to_numpy()]


def _ordered_groups(part: pd.DataFrame, seed: int, purpose: str) -> list[int]:
    """Groups in a seeded order of which every prefix is stratified by label."""
    labels = group_labels(part)
    keys = pd.Series(0.0, index=labels.index)
    for label in sorted(set(labels)):
        members = labels.index[labels == label].to_numpy()
        rng = generator(seed, purpose, int(label))
        keys[rng.permutation(members)] = (np.arange(len(members)) + rng.random()) / len(members)
    return [int(g) for g in keys.sort_values(kind="stable").index]


def group_labels(part: pd.DataFrame) -> pd.Series:
    """The most frequent label of each group (the lowest of several), by group."""
    groups, group = np.unique(part.group, return_inverse=True)
    labels, label = np.unique(part.label, return_inverse=True)
    counts = np.bincount(group * len(labels) + label, minlength=len(groups) * len(labels))
    return pd.Series(labels[counts.reshape(len(groups), len(labels)).argmax(1)], index=groups)


def deal(table: pd.DataFrame, indices: np.ndarray, folds: int, purpose: str) -> np.ndarray:
    """The fold of every image: groups of each label, large ones first, dealt to the fold that has fewest images."""
    part = table.iloc[indices]
    labels = group_labels(part)
    sizes = part.group.value_counts().to_dict()
    fold_of: dict[int, int] = {}
    filled = np.zeros(folds)
    for label in sorted(set(labels)):
        members = generator("fixed", purpose, int(label)).permutation(labels.index[labels == label].to_numpy())
        here = np.zeros(folds)
        for group in sorted(members.tolist(), key=lambda g: -sizes[g]):
            target = min(range(folds), key=lambda f: (here[f], filled[f], f))
            fold_of[int(group)] = target
            here[target] += sizes[group]
            filled[target] += sizes[group]
    return part.group.map(fold_of).to_numpy()
