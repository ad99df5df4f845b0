"""Whether features have collapsed into few directions, or one."""

import numpy as np
from scipy.special import xlogy


def feature_spread_and_rankme(features: np.ndarray) -> dict[str, float]:
    """Two signs of collapse: the spread of the features' directions, and how many directions they use.

    - ``spread``: the standard deviation of the L2-normalised features, averaged over dimensions, times √d.
      About 1 where directions are isotropic, 0 where all are the same.
    - ``rankme``: exp of the entropy of the singular values, normalised to sum 1 (Garrido et al., RankMe, ICML 2023).
      From 1 to min(N, d). As in the paper the features are neither centred nor normalised, so a large common offset
      lowers it: read it beside ``spread``. The paper's ε only keeps log 0 away, and is not needed here.

    Features that are all zero have spread 0 and rank 0; features with NaN or infinity have NaN for both.

    Args:
        features: (N, d), one row an image.
    """
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or features.size == 0:
        raise ValueError(f"features must be (N, d) and not empty, got {features.shape}")
    if not np.isfinite(features).all():
        return {"spread": float("nan"), "rankme": float("nan")}
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    directions = features / np.where(lengths > 0, lengths, 1.0)
    spread = directions.std(axis=0).mean() * np.sqrt(features.shape[1])
    singular = np.linalg.svd(features, compute_uv=False)
    if singular[0] == 0:
        return {"spread": 0.0, "rankme": 0.0}
    shares = singular / singular.sum()
    return {"spread": float(spread), "rankme": float(np.exp(-xlogy(shares, shares).sum()))}
