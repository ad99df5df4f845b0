import numpy as np
import pytest

from usbench.evaluate.collapse import feature_spread_and_rankme


def test_isotropic_features_spread_and_use_every_direction():
    found = feature_spread_and_rankme(np.random.default_rng(0).normal(size=(4000, 32)))
    assert found["spread"] == pytest.approx(1, abs=0.02)
    assert found["rankme"] == pytest.approx(32, rel=0.01)


def test_collapsed_features_neither_spread_nor_use_directions():
    rng = np.random.default_rng(0)
    same = np.tile(rng.normal(size=(1, 32)), (100, 1))
    found = feature_spread_and_rankme(same * rng.uniform(1, 2, size=(100, 1)))
    assert found["spread"] == pytest.approx(0, abs=1e-6)
    assert found["rankme"] == pytest.approx(1, abs=1e-6)
    assert feature_spread_and_rankme(np.zeros((10, 4))) == {"spread": 0.0, "rankme": 0.0}


def test_rankme_counts_orthogonal_directions_and_is_not_centred():
    features = np.concatenate([np.eye(6)[:3]] * 4)
    assert feature_spread_and_rankme(features)["rankme"] == pytest.approx(3)
    assert feature_spread_and_rankme(features + 100)["rankme"] < 1.5


def test_features_that_are_not_numbers_give_nan_instead_of_an_error():
    found = feature_spread_and_rankme(np.array([[1.0, np.nan], [0.0, 1.0]]))
    assert np.isnan(found["spread"])
    assert np.isnan(found["rankme"])
    with pytest.raises(ValueError, match="not empty"):
        feature_spread_and_rankme(np.empty((0, 4)))
