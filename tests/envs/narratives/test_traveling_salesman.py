"""The story is told as the module says."""

from __future__ import annotations

import itertools

import pytest
import torch

from envs.narratives.traveling_salesman import ABSENT, ACTOR, TravelingSalesman, best_tour


def run(story, ids, actions):
    """States after 0, 1, .. steps and rewards (B, T)."""
    states, rewards = [story.begin(ids)], []
    for action in actions.T:
        state, reward, _ = story.step(states[-1], action)
        states.append(state)
        rewards.append(reward)
    return states, torch.stack(rewards, 1)


def test_nature_visits_all_in_twenty_steps_of_equal_legs():
    story = TravelingSalesman(controlled=False)
    ids = torch.arange(50)
    states, rewards = run(story, ids, torch.zeros(50, 20, dtype=torch.int64))
    rows = torch.arange(50)
    for leg in range(4):
        city = states[0].order[:, leg]
        assert torch.equal(
            states[5 * (leg + 1)].positions[:, ACTOR], states[0].positions[rows, city]
        )
        steps = [
            states[5 * leg + i + 1].positions[:, ACTOR] - states[5 * leg + i].positions[:, ACTOR]
            for i in range(5)
        ]
        for step in steps[1:]:
            torch.testing.assert_close(step, steps[0], atol=1e-6, rtol=0)
    assert [int(s.ended.sum()) for s in states] == [0] * 20 + [50]
    path = sum(
        (b.positions - a.positions)[:, ACTOR].norm(dim=-1) for a, b in itertools.pairwise(states)
    )
    torch.testing.assert_close(rewards.sum(1), 4 - path)


def test_nature_draws_every_order_equally_often():
    orders = TravelingSalesman(controlled=False).begin(torch.arange(9600)).order
    codes = (orders * torch.tensor([64, 16, 4, 1])).sum(1)
    _, counts = codes.unique(return_counts=True)
    assert len(counts) == 24
    assert ((counts - 400).square() / 400).sum() < 49.7  # chi-square, 23 dof: p = 0.001


def test_attributes_are_uniform():
    state = TravelingSalesman(controlled=False).begin(torch.arange(6000))
    for values, n in ((state.colours, 12), (state.kinds, 4), (state.sizes, 4)):
        counts = torch.stack([(values == v).sum(0) for v in range(n)]).float()  # (n, 5)
        expected = 6000 / n
        assert ((counts - expected).square() / expected).sum(0).max() < 34  # 11 dof: p = 0.0004


def test_an_agent_tells_cities_by_colour():
    colours = TravelingSalesman().begin(torch.arange(4000)).colours
    assert (colours[:, :4] == torch.arange(4)).all()
    counts = torch.bincount(colours[:, ACTOR], minlength=12)
    assert counts[:4].sum() == 0
    assert ((counts[4:] - 500.0).square() / 500).sum() < 26  # 7 dof: p = 0.0005


def test_a_new_city_begins_a_new_leg_from_here():
    story = TravelingSalesman()
    states, rewards = run(story, torch.tensor([9]), torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1, 1]]))
    cities, path = states[0].positions[0, :4], [s.positions[0, ACTOR] for s in states]
    torch.testing.assert_close(path[2], path[0] + (cities[0] - path[0]) * 0.4)
    torch.testing.assert_close(path[3], path[2] + (cities[1] - path[2]) * 0.2)
    assert torch.equal(path[7], cities[1])
    assert not states[6].visited.any() and states[7].visited[0].tolist() == [0, 1, 0, 0]
    assert torch.equal(path[9], path[7])  # already there: no movement, no second reward
    assert rewards[0, 7:].tolist() == [0, 0]
    assert rewards[0, 6] > 0.5 and (rewards[0, :6] < 0).all()


def test_going_back_earns_no_second_visit():
    actions = torch.tensor([[0] * 5 + [1] * 5 + [0] * 5])
    _, rewards = run(TravelingSalesman(), torch.tensor([4]), actions)
    assert (rewards > 0).nonzero()[:, 1].tolist() == [4, 9]


def test_after_the_end_nothing_changes():
    actions = torch.arange(4).repeat_interleave(5).repeat(2)[None]
    story = TravelingSalesman()
    states, rewards = run(story, torch.tensor([4]), actions)
    assert states[20].ended.item() and not states[19].ended.item()
    assert (rewards[0, 20:] == 0).all()
    assert torch.equal(states[40].positions, states[20].positions)
    assert states[40].steps.item() == 20
    assert not story.step(states[30], actions[:, 0])[2].item()


@pytest.mark.parametrize(
    ("kwargs", "error"),
    [
        ({"max_steps": 0}, ValueError),
        ({"max_steps": 2.5}, TypeError),
        ({"controlled": 1}, TypeError),
    ],
)
def test_bad_arguments(kwargs, error):
    with pytest.raises(error, match=next(iter(kwargs))):
        TravelingSalesman(**kwargs)


def test_continuations_after_the_first_visit_are_uniform():
    """The paper shows six frames: what is left are 3! orders, each as likely."""
    order = TravelingSalesman(controlled=False).begin(torch.arange(12_000)).order
    for first in range(4):
        rest = order[order[:, 0] == first][:, 1:]
        _, counts = rest.unique(dim=0, return_counts=True)
        expected = len(rest) / 6
        assert len(counts) == 6
        assert ((counts - expected).square() / expected).sum() < 20.5  # 5 dof: p = 0.001


@pytest.mark.parametrize("max_steps", [40, 12])
def test_best_tour_reaches_its_return(max_steps):
    story, ids = TravelingSalesman(max_steps=max_steps), torch.arange(50)
    value, tour = best_tour(story.begin(ids), max_steps)
    state, total = story.begin(ids), torch.zeros(50)
    for step in range(max_steps):
        leg = min(step // 5, 3)
        earlier = tour[:, 0]
        for k in range(1, leg + 1):  # after the last city: stay
            earlier = torch.where(tour[:, k] == ABSENT, earlier, tour[:, k])
        state, reward, _ = story.step(state, earlier.clamp_min(0))
        total += reward
    torch.testing.assert_close(total, value)


def test_best_return_from_the_middle_of_a_story():
    story, ids = TravelingSalesman(), torch.arange(100)
    value, tour = best_tour(story.begin(ids))
    state, total = story.begin(ids), torch.zeros(100)
    for _ in range(5):
        state, reward, _ = story.step(state, tour[:, 0])
        total += reward
    torch.testing.assert_close(total + story.best_return(state), value)


def test_natures_return_is_what_it_will_get():
    story = TravelingSalesman(controlled=False)
    states, rewards = run(story, torch.arange(20), torch.zeros(20, 20, dtype=torch.int64))
    for step in (0, 7):
        torch.testing.assert_close(story.best_return(states[step]), rewards[:, step:].sum(1))
