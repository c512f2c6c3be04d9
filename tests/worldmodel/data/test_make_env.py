"""An environment by its id, by a function, or as it is."""

from __future__ import annotations

import functools
from typing import Any

import gymnasium as gym
import pytest

from worldmodel import make_env
from worldmodel.data.make_env import open_env

CART = "CartPole-v1"


@pytest.mark.parametrize("env", [CART, functools.partial(gym.make, CART), gym.make(CART)])
def test_any_environment_will_do(env: Any) -> None:
    made = make_env(env)
    assert isinstance(made, gym.Env) and made.spec.id == CART
    assert (made is env) == isinstance(env, gym.Env)


def test_only_an_id_takes_settings() -> None:
    assert make_env(CART, render_mode="rgb_array").render_mode == "rgb_array"
    with pytest.raises(ValueError, match=r"make_kwargs: \['size'\] are for gymnasium.make"):
        make_env(gym.make(CART), size=32)


@pytest.mark.parametrize("env", [3, lambda: 3])
def test_what_is_no_environment(env: Any) -> None:
    with pytest.raises(TypeError, match="env: expected a Gymnasium id, .* got int"):
        make_env(env)


def test_only_what_was_made_here_is_closed() -> None:
    class Closing(gym.Env):
        closed = False

        def close(self) -> None:
            self.closed = True

    given = Closing()
    with open_env(given) as env:
        assert env is given
    assert not given.closed
    with pytest.raises(KeyError), open_env(Closing) as env:
        raise KeyError
    assert env.closed  # type: ignore[attr-defined]
