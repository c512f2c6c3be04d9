"""Walking around the cube, and saying what is in front."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from envs import play
from envs.dice import FindDigit, Views
from envs.dice.find_digit import DECLARE, LEFT, MOVE_COST, RIGHT
from envs.dice.raycast import render
from envs.dice.scene import facing, pool


def test_moves_and_their_cost():
    env, ids = FindDigit(), torch.arange(50)
    state = env.begin(ids)
    after, reward, over = env.step(state, torch.full((50,), RIGHT))
    torch.testing.assert_close(after.camera, state.camera + math.pi / 4)
    assert (reward == -torch.tensor(MOVE_COST)).all() and not over.any()
    back = env.step(after, torch.full((50,), LEFT))[0]
    torch.testing.assert_close(back.camera, state.camera)


def test_right_leads_to_the_side_on_the_right():
    """What is then in the middle was to the right of it before."""
    env = FindDigit()
    state = env.begin(torch.arange(40))
    faces = state.faces.clone()
    after = env.step(state, torch.full((40,), RIGHT))[0]
    ahead = facing(after, after.camera[:, None])[:, 0]
    faces[torch.arange(40), ahead] = (faces[torch.arange(40), ahead] + 37) % 100
    before = (render(state, 64) != render(replace(state, faces=faces), 64)).any(-1)
    columns = torch.arange(64.0)
    middle = (before.float().sum(1) * columns).sum(1) / before.flatten(1).sum(1).clamp_min(1)
    now = facing(state, state.camera[:, None])[:, 0]
    turned = (ahead != now) & before.flatten(1).any(1)
    assert turned.sum() > 5 and middle[turned].mean() > 38


def test_a_declaration_ends_the_scene_and_is_right_by_class():
    env, ids = FindDigit(), torch.arange(2000)
    batch = play(env, ids, torch.full((2000, 2), DECLARE))
    start = batch.start()
    labels = pool().labels
    ahead = start.faces.gather(1, facing(start, start.camera[:, None]))[:, 0]
    wanted = start.faces.gather(1, start.wanted[:, None])[:, 0]
    right = labels[ahead] == labels[wanted]
    assert torch.equal(batch.rewards[:, 0], right.float())
    assert (batch.lengths == 1).all() and (batch.rewards[:, 1] == 0).all()
    assert abs(right.float().mean() - (1 / 4 + 3 / 4 / 10)) < 0.03


@pytest.mark.parametrize("max_steps", [16, 2])
def test_best_return_is_reached_and_not_exceeded(max_steps):
    env, ids = FindDigit(max_steps=max_steps), torch.arange(200)
    best = env.best_return(env.begin(ids))
    reached = torch.full((200,), -1.0)
    for way in (LEFT, RIGHT):
        for moves in range(5):
            actions = torch.full((200, max_steps), DECLARE)
            actions[:, :moves] = way
            batch = play(env, ids, actions[:, :max_steps])
            reached = torch.maximum(reached, batch.rewards.sum(1))
    torch.testing.assert_close(reached, best)
    after = env.step(env.begin(ids), torch.full((200,), DECLARE))[0]
    assert (env.best_return(after) == 0).all()


def test_the_wanted_digit_is_shown_in_the_corner():
    env = FindDigit()
    state = env.begin(torch.arange(6))
    frames = env.render(state, 64)
    plain = Views().render(Views().begin(torch.arange(6)), 64)
    assert torch.equal(frames[:, 18:], plain[:, 18:]) and torch.equal(
        frames[:, :, 18:], plain[:, :, 18:]
    )
    assert (frames[:, 0, :18] == torch.tensor([200, 30, 30])).all()
    wanted = pool().images[state.faces.gather(1, state.wanted[:, None])[:, 0]]
    inset = 255 - frames[:, 1:17, 1:17, 0].float()
    large = torch.nn.functional.interpolate(inset[:, None], (28, 28), mode="bilinear")[:, 0]
    for i in range(6):
        assert torch.corrcoef(torch.stack([large[i].flatten(), wanted[i].flatten()]))[0, 1] > 0.9
