"""What environments bring: kept as it is, or refused."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from worldmodel import Spec
from worldmodel.data.env_checks import checked_observation, checked_reward

IMAGES = Spec.from_spaces(spaces.Box(0, 255, (16, 16, 3), np.uint8), spaces.Discrete(2), window=1)
VECTORS = Spec.from_spaces(spaces.Box(-9, 9, (2,), np.float64), spaces.Discrete(2), window=1)
GREYS = np.arange(768).reshape(16, 16, 3) % 256


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16, np.float32, np.float64, ">i4"])
def test_what_uint8_can_hold_is_kept(dtype: Any) -> None:
    shown = np.asfortranarray(GREYS.astype(dtype))
    kept = checked_observation(shown, IMAGES, "env")
    assert kept.dtype == np.uint8 and kept.flags.c_contiguous and np.array_equal(kept, GREYS)
    shown[:] = 0  # environments reuse their buffer
    assert np.array_equal(kept, GREYS)
    assert np.array_equal(checked_observation(GREYS.tolist(), IMAGES, "env"), GREYS)


@pytest.mark.parametrize("bad", [0.5, -1, 256, 1e30, np.nan, -np.inf])
def test_one_number_that_it_cannot_hold_is_named(bad: float) -> None:
    shown = GREYS.astype(np.float64)
    shown[3, 2, 1] = bad
    with pytest.raises(
        ValueError, match=f"^env: .* float64 that holds {re.escape(str(float(bad)))}"
    ):
        checked_observation(shown, IMAGES, "env")


def test_vectors_are_rounded() -> None:
    for shown in (np.array([1 / 3, 2]), [1 / 3, 2], torch.tensor([1 / 3, 2], dtype=torch.float64)):
        kept = checked_observation(shown, VECTORS, "env")
        assert kept.dtype == np.float32 and kept.tolist() == [np.float32(1 / 3), 2]


def test_rewards() -> None:
    for reward in (2, 2.0, np.float32(2), np.array(2), torch.tensor(2), Decimal(2), np.int8(2)):
        assert checked_reward(reward, "env") == 2.0
    assert checked_reward(True, "env") == 1.0
    for bad in (None, "2", b"2", 2j, [2], [[1], [1, 2]], np.ones(1), 10**5000, {}):
        with pytest.raises(ValueError, match="^env: returned a reward of type .*, expected one"):
            checked_reward(bad, "env")
