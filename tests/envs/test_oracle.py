"""The oracle: best returns are reached and not exceeded, and frames are read back."""

from __future__ import annotations

import gymnasium as gym
import pytest
import torch
from torch.nn.functional import avg_pool2d

import envs
from envs import sample_scenes
from envs.narratives.oracle import (
    ABSENT,
    best_return,
    best_tour,
    coherent_story,
    random_return,
    read_frame,
    visited_city,
)
from envs.narratives.traveling_salesman import ACTOR, TravelingSalesman

AGENT, NATURE = envs.ENV_IDS


@pytest.mark.parametrize("max_steps", [40, 12])
def test_best_tour_reaches_its_return_in_the_environment(max_steps):
    env = gym.make(AGENT, size=8, split="test", max_steps=max_steps)
    for seed in range(5):
        env.reset(seed=seed)
        value, tour = best_tour(env.unwrapped.state, max_steps)
        cities = [c for c in tour[0].tolist() if c != ABSENT]
        total, over = 0.0, False
        for t in range(max_steps):
            if over:
                break
            _, reward, terminated, truncated, _ = env.step(cities[min(t // 5, len(cities) - 1)])
            total, over = total + reward, terminated or truncated
        assert total == pytest.approx(value.item(), abs=1e-5)


@pytest.mark.parametrize("hold", [1, 5])
def test_nobody_beats_the_oracle(hold):
    batch = sample_scenes(AGENT, 500, hold=hold, seed=2)
    best = best_return(batch.start())
    assert (batch.rewards.sum(1) <= best + 1e-5).all()
    nature = sample_scenes(NATURE, 500)
    assert (nature.rewards.sum(1) <= best_return(nature.start(), 20) + 1e-5).all()


def test_best_return_from_the_middle_of_a_story():
    story, ids = TravelingSalesman(), torch.arange(100)
    value, tour = best_tour(story.begin(ids))
    state, total = story.begin(ids), torch.zeros(100)
    for _ in range(5):
        state, reward, _ = story.step(state, tour[:, 0])
        total += reward
    torch.testing.assert_close(total + best_return(state), value)


def test_random_return():
    mean, error = random_return(AGENT, hold=5, scenes=512)
    other, _ = random_return(AGENT, hold=5, scenes=512, seed=1)
    assert abs(mean - other) < 5 * error and 0 < error < 0.1
    assert random_return(AGENT, hold=1, scenes=512)[0] < mean
    assert abs(random_return(AGENT, hold=5, scenes=512, gamma=0.5)[0]) < abs(mean)
    with pytest.raises(ValueError, match="scenes"):
        random_return(AGENT, scenes=1)


def accuracy(size, scenes=200):
    """Shares of shapes with right colour and place (1 px), kind, and size; all frames at t = 0."""
    batch = sample_scenes(NATURE, scenes, size=size, split="test")
    read = read_frame(batch.observations(torch.zeros(scenes, 1, dtype=torch.int64))[:, 0])
    located = kind = grade = 0
    for i, shapes in enumerate(read):
        for j in range(5):
            x, y = batch.positions[i, 0, j].tolist()
            near = [
                s
                for s in shapes
                if max(abs(s.x - x), abs(s.y - y)) * size < 1 and s.colour == batch.colours[i, 0, j]
            ]
            if near:
                located += 1
                kind += near[0].kind == batch.kinds[i, j].item()
                grade += near[0].size == batch.sizes[i, j].item()
    spurious = sum(len(shapes) > 5 for shapes in read)
    return located / (5 * scenes), kind / (5 * scenes), grade / (5 * scenes), spurious


@pytest.mark.parametrize(
    ("size", "located", "kind", "grade"), [(64, 0.99, 0.99, 0.99), (32, 0.99, 0.98, 0.98)]
)
def test_reading_frames(size, located, kind, grade):
    measured = accuracy(size)
    assert measured[0] >= located and measured[1] >= kind and measured[2] >= grade
    assert measured[3] == 0


def test_reading_an_empty_frame():
    assert read_frame(torch.zeros(2, 16, 16, 3, dtype=torch.uint8)) == [[], []]


def blurred(frames, radius):
    flat = frames.float().flatten(0, 1).permute(0, 3, 1, 2) / 255
    flat = avg_pool2d(flat, 2 * radius + 1, 1, radius)
    return flat.permute(0, 2, 3, 1).reshape(frames.shape)


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize(("radius", "least"), [(0, 1.0), (1, 0.98), (2, 0.98)])
def test_visits_are_read_from_sharp_and_blurred_frames(size, radius, least):
    batch = sample_scenes(NATURE, 100, size=size, split="test")
    facts = batch.start()
    frames = batch.observations(torch.tensor([[0, 5, 10, 15, 20]]).expand(100, -1))
    visits = visited_city(frames if radius == 0 else blurred(frames, radius), facts)
    right = (visits[:, 1:] == facts.order).float().mean().item()
    apart = (visits[:, 0] == ABSENT).float().mean().item()
    assert right >= least
    assert apart >= 0.9
    assert coherent_story(visits[:, 1:]).float().mean() >= least - 0.05


def test_coherent_story():
    visits = torch.tensor([[2, 0, 1, 3], [2, 0, 1, 1], [ABSENT, 0, 1, 2]])
    assert coherent_story(visits).tolist() == [True, False, False]
    with pytest.raises(ValueError, match="visits"):
        coherent_story(visits[:, :3])


def test_bad_input():
    facts = TravelingSalesman().begin(torch.arange(2))
    with pytest.raises(ValueError, match="frames"):
        visited_city(torch.zeros(3, 1, 16, 16, 3), facts)
    with pytest.raises(TypeError, match="uint8"):
        read_frame(torch.zeros(1, 16, 16, 3))
    with pytest.raises(ValueError, match="frames"):
        read_frame(torch.zeros(1, 16, 8, 3, dtype=torch.uint8))
    assert facts.positions.shape[1] == ACTOR + 1
