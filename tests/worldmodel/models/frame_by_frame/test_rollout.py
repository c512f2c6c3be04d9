"""The rollout loop that all frame-by-frame models share, and what they are trained on."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from frame_fixtures import CLOSE, imagine, look, plans, scenes, sensitive_svg, squares
from scenes import DISCRETE, PASSIVE, WINDOW, context, generator
from torch import Tensor, nn

from worldmodel import Context, Queries, Spec, UnsupportedQuery, to_float
from worldmodel.base import Losses
from worldmodel.models.frame_by_frame import FrameByFrame
from worldmodel.models.frame_by_frame.base import State
from worldmodel.models.frame_by_frame.svg import Svg
from worldmodel.models.frame_by_frame.teacher_forcing import take_segment
from worldmodel.training.validation import Validation, free_running


@pytest.fixture(scope="module")
def model() -> Svg:
    return sensitive_svg(DISCRETE)


# -- one world ------------------------------------------------------------------------------------


def test_worlds_pin_their_noise(model: Svg) -> None:
    worlds, actions = imagine(model), plans(2, 2, WINDOW)
    together = look(model, worlds, [3, 5, 8], actions)
    assert (together[:, 0] - together[:, 1]).abs().max() > 1e-2  # worlds differ
    assert (together[:, :, 0] - together[:, :, 1]).abs().max() > 1e-2  # and plans matter
    mixed = look(model, worlds, [8, 5, 3, 5], actions)
    torch.testing.assert_close(mixed, together[:, :, :, [2, 1, 0, 1]], **CLOSE)
    for place, time in enumerate([3, 5, 8]):
        for n in range(2):
            alone = look(model, worlds, [time], actions[:, n : n + 1])
            torch.testing.assert_close(alone[:, :, 0, 0], together[:, :, n, place], **CLOSE)


def test_advance_then_predict_is_predict(model: Svg) -> None:
    worlds, actions = imagine(model), plans(2, 1, 6)
    times = torch.tensor([[4, 6, 8]] * 2)
    with torch.no_grad():
        ahead = model.predict(worlds, Queries(times, actions))
        moved = model.advance(model.advance(worlds, actions[:, 0, :1]), actions[:, 0, 1:2])
        there = model.predict(moved, Queries(times, actions[:, :, 2:]))
        end = model.advance(moved, actions[:, 0, 2:])
    assert ahead.observations is not None and there.observations is not None
    torch.testing.assert_close(there.observations, ahead.observations, **CLOSE)
    torch.testing.assert_close(there.rewards[..., 1:], ahead.rewards[..., 1:], **CLOSE)
    assert (there.rewards[..., 0] == 0).all() and (there.alive[..., 0] == 1).all()
    assert end.present.tolist() == [WINDOW] * 2
    last = look(model, end, [WINDOW], None)
    torch.testing.assert_close(last[:, :, 0], ahead.observations[:, :, 0, 2], **CLOSE)
    assert model.advance(worlds, actions[:, 0, :0]).present.equal(worlds.present)


def test_the_present_shows_what_was_seen(model: Svg) -> None:
    given = context(DISCRETE)
    worlds = imagine(model, given)
    seen = look(model, worlds, [2, 2], None)
    assert seen.shape == (2, 3, 2, 3, 32, 32)
    assert torch.equal(seen, given.observations[:, None, 2:].expand_as(seen))
    with_plans = look(model, worlds, [2, 3], plans(2, 4, 1))
    assert torch.equal(with_plans[:, :, 3, 0], seen[:, :, 0])


@torch.no_grad()
def test_skips_are_those_of_the_last_context_frame(model: Svg) -> None:
    given = context(DISCRETE, frames=4)
    state = model.observe(given).state
    h, skips = model.encoder(given.observations[:, 3])
    torch.testing.assert_close(state["h"], h, **CLOSE)
    for i, skip in enumerate(skips):
        torch.testing.assert_close(state[f"skip{i}"], skip, **CLOSE)
    after = model.advance(imagine(model, given), plans(2, 2)).state
    torch.testing.assert_close(after["skip0"][:, 1], skips[0], **CLOSE)
    assert set(after) == set(imagine(model).state)


def test_ragged_presents_equal_single_rows(model: Svg) -> None:
    """Also with the frames out of order, and padding that must not be read."""
    frames = context(DISCRETE, batch=3, frames=5)
    assert frames.actions is not None
    present = torch.tensor([0, 4, 2])
    order = torch.tensor([3, 0, 4, 2, 1])
    times = frames.times[:, order]
    mask = times <= present[:, None]
    pictures = frames.observations[:, order].masked_fill(~mask[..., None, None, None], torch.nan)
    taken = frames.actions.masked_fill(torch.arange(4) >= present[:, None], -1)
    worlds = imagine(model, Context(pictures, times, taken, mask, present))
    asked = torch.tensor([[8, 1], [4, 5], [7, 2]])
    actions = plans(3, 2, 8)
    with torch.no_grad():
        both = model.predict(worlds, Queries(asked, actions))
        for row, now in enumerate(present.tolist()):
            short = Context(
                frames.observations[row : row + 1, : now + 1],
                frames.times[row : row + 1, : now + 1],
                frames.actions[row : row + 1, :now],
            )
            own = model.sample(model.observe(short), 3, generator())
            own.state["noise"].copy_(worlds.state["noise"][row : row + 1])
            part = slice(row, row + 1)
            alone = model.predict(own, Queries(asked[part], actions[part]))
            for name in ("observations", "rewards", "alive"):
                torch.testing.assert_close(
                    getattr(alone, name)[0], getattr(both, name)[row], **CLOSE
                )


def test_plans_are_rolled_as_if_alone(model: Svg) -> None:
    worlds, actions = imagine(model), plans(2, 5, 6)
    times = torch.tensor([[5, 8]] * 2)
    with torch.no_grad():
        all_of_them = model.predict(worlds, Queries(times, actions))
        assert all_of_them.rewards.shape == all_of_them.alive.shape == (2, 3, 5, 2)
        for n in range(5):
            alone = model.predict(worlds, Queries(times, actions[:, n : n + 1]), frames=False)
            torch.testing.assert_close(
                alone.rewards[:, :, 0], all_of_them.rewards[:, :, n], **CLOSE
            )
            torch.testing.assert_close(alone.alive[:, :, 0], all_of_them.alive[:, :, n], **CLOSE)


def test_passive_scenes_read_no_plans() -> None:
    model = sensitive_svg(PASSIVE)
    worlds = imagine(model)
    plain = look(model, worlds, [4, 8], None)
    assert plain.shape == (2, 3, 2, 3, 32, 32)
    answered = look(model, worlds, [4, 8], torch.full((2, 4, 1), -7))
    assert torch.equal(answered, plain.unsqueeze(2).expand(-1, -1, 4, -1, -1, -1, -1))
    with torch.no_grad():
        moved = model.advance(worlds, torch.zeros(2, 2))
    torch.testing.assert_close(look(model, moved, [4, 8], None), plain, **CLOSE)


def test_verbs_use_running_statistics(model: Svg) -> None:
    """Training mode changes nothing, and the statistics stay as they are."""
    worlds, actions = imagine(model), plans(2, 1, 6)
    expected = look(model, worlds, [8], actions)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    again = look(model, imagine(model), [8], actions)
    assert all(m.training for m in model.modules())
    model.eval()
    assert torch.equal(again, expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# -- what it cannot do ----------------------------------------------------------------------------


def test_the_past_is_refused(model: Svg) -> None:
    worlds = imagine(model)
    times = torch.tensor([[2, 3], [5, 1]])
    with pytest.raises(UnsupportedQuery, match="scene 1 is asked for time 1, before its present"):
        model.predict(worlds, Queries(times, plans(2, 1, 6)))


@pytest.mark.parametrize(
    ("times", "present", "message"),
    [
        ([0, 1, 3], None, r"scene 1, whose present is 3, lacks the times \[2\]"),
        ([1, 2, 3], None, r"lacks the times \[0\]"),
        ([0, 1, 2], 5, r"present is 5, lacks the times \[3, 4, 5\]"),
        ([0, 1, 1], None, "shows a time more than once"),
    ],
)
def test_gaps_are_refused(model: Svg, times: list[int], present: int | None, message: str) -> None:
    given = replace(
        context(DISCRETE),
        times=torch.tensor([[0, 1, 2], times]),
        present=None if present is None else torch.tensor([2, present]),
        actions=plans(2, WINDOW),
    )
    with pytest.raises(UnsupportedQuery, match=message):
        model.observe(given)


# -- cost -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frames", "decoded"), [(True, 5), (False, 4)])
def test_every_frame_between_is_decoded(model: Svg, frames: bool, decoded: int) -> None:
    worlds, calls = imagine(model), {"encoder": 0, "decoder": 0}

    def count(name: str) -> Any:
        def hook(*_: object) -> None:
            calls[name] += 1

        return hook

    handles = [getattr(model, name).register_forward_hook(count(name)) for name in calls]
    with torch.no_grad():
        model.predict(worlds, Queries(torch.tensor([[7], [7]]), plans(2, 2, 5)), frames)
    for handle in handles:
        handle.remove()
    assert calls == {"encoder": 4, "decoder": decoded}


class Counter(FrameByFrame):
    """A state-space model in small: adds up its actions, decodes only what is queried."""

    name = "counter"
    feeds_back = False
    noise_shape = ()

    def __init__(self, spec: Spec, stride: int = 1) -> None:
        super().__init__(spec, None)
        self.stride = stride
        self.unused = nn.Parameter(torch.zeros(()))
        self.looked = 0

    def _start(self, observations: Tensor, actions: Tensor, present: Tensor) -> State:
        return {"sum": actions.argmax(-1).sum(1) if actions.shape[1] else present * 0.0}

    def _step(self, state: State, actions: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        total = state["sum"] + actions.unflatten(-1, (self.stride, -1)).argmax(-1).sum(-1)
        return {"sum": total}, torch.zeros_like(noise), torch.full_like(noise, 50.0)

    def _decode(self, state: State) -> Tensor:
        self.looked += 1
        return state["sum"].float()[:, None, None, None].expand(-1, *self.spec.observation)

    def loss(self, scenes: Any, progress: float, generator: Any) -> Losses:
        raise NotImplementedError


def test_a_model_that_feeds_nothing_back_decodes_what_is_queried() -> None:
    model = Counter(DISCRETE)
    worlds = model.sample(model.observe(context(DISCRETE, frames=1)), 2, generator())
    actions = plans(2, 3, 8)
    answer = model.predict(worlds, Queries(torch.tensor([[2, 7], [7, 5]]), actions))
    assert model.looked == 3  # at 2, 5 and 7
    assert answer.observations is not None and (answer.alive == 1).all()
    seen = answer.observations[:, 0, :, :, 0, 0, 0]
    sums = actions.cumsum(-1).float()
    assert torch.equal(seen[0], sums[0][:, [1, 6]]) and torch.equal(seen[1], sums[1][:, [6, 4]])
    assert model.predict(worlds, Queries(torch.tensor([[7], [7]]), actions), False).alive.min() == 1
    assert model.looked == 3
    moved = model.advance(worlds, actions[:, 0, :3])
    now = model.predict(moved, Queries(torch.tensor([[3], [3]]))).observations
    assert now is not None and torch.equal(now[:, 0, 0, 0, 0, 0, 0], sums[:, 0, 2])


# -- strides --------------------------------------------------------------------------------------


def test_a_stride_takes_several_actions_at_once() -> None:
    one, three = Counter(DISCRETE), Counter(DISCRETE, stride=3)
    actions, times = plans(2, 4, 7), torch.tensor([[7, 4], [4, 7]])
    answers = []
    for model in (one, three):
        worlds = model.sample(model.observe(context(DISCRETE, frames=2)), 2, generator())
        answers.append(model.predict(worlds, Queries(times, actions)).observations)
        moved = model.advance(worlds, actions[:, 0, :3])
        there = model.predict(moved, Queries(times, actions[:, :1, 3:])).observations
        assert there is not None and torch.equal(there[:, :, 0], answers[-1][:, :, 0])
    assert torch.equal(*answers)
    assert (one.looked, three.looked) == (4, 4)


def test_what_a_stride_cannot_reach_is_refused() -> None:
    model = Counter(DISCRETE, stride=3)
    worlds = model.sample(model.observe(context(DISCRETE, frames=2)), 2, generator())
    with pytest.raises(UnsupportedQuery, match="multiples of 3 after the present"):
        model.predict(worlds, Queries(torch.tensor([[4], [5]]), plans(2, 1, 6)))
    with pytest.raises(UnsupportedQuery, match="takes 3 steps at once, got 2"):
        model.advance(worlds, plans(2, 2))


# -- what they are trained on ---------------------------------------------------------------------


def test_actions_need_not_start_at_0() -> None:
    """Where a scene or a context is shorter than others, nothing is taken for an action."""
    moved = replace(DISCRETE, action=replace(DISCRETE.action, start=(2,)))
    zero, two = take_segment(scenes(), DISCRETE, 8), take_segment(scenes(moved), moved, 8)
    assert torch.equal(two.actions, zero.actions) and not zero.actions[1, 3:].any()
    given = replace(context(moved, frames=3), present=torch.tensor([2, 2]))
    assert given.actions is not None
    beliefs = []
    for behind in (0, 4):
        actions = torch.cat([given.actions, torch.full((2, 1), behind)], 1)
        past = Counter(moved)._past_actions(actions, torch.tensor([2, 3 if behind else 2]))
        beliefs.append(past[0, :2])
    assert torch.equal(*beliefs) and beliefs[0].sum() == 2


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_segment_takes_steps_of_any_length_from_anywhere(stride: int) -> None:
    batch, first = scenes(DISCRETE), torch.tensor([0, 1, 4, 2])  # lengths 8, 3, 8, 3
    segment = take_segment(batch, DISCRETE, 3, first, stride)
    for row, (start, length) in enumerate(zip(first.tolist(), [8, 3, 8, 3], strict=True)):
        for step in range(3):
            times = [start + stride * step + i for i in range(stride)]
            inside = [time for time in times if time < length]
            known = times[0] < length and times[-1] < 8  # the window
            assert segment.valid[row, step] == float(known)
            assert segment.rewards[row, step] == batch.rewards[row, inside].sum()
            assert segment.ended[row, step] == (length - 1 in inside)
            after = to_float(batch.frames[row, min(times[-1] + 1, length)])
            assert torch.equal(segment.observations[row, step + 1], after)
            taken = segment.actions[row, step].view(stride, 3)
            for time, features in zip(times, taken, strict=True):
                begun = times[0] < length  # behind an end within a step, actions come round again
                expected = torch.eye(3)[batch.actions[row, time % length]] if begun else 0.0
                assert (features == expected).all()


def test_segments_of_long_steps() -> None:
    batch = squares(lengths=(8, 3, 4, 6))  # the first and the third terminate
    batch.terminated[:] = False
    batch.terminated[0, 7] = batch.terminated[2, 3] = True
    segment = take_segment(batch, DISCRETE, 3, torch.tensor([0, 0, 1, 0]), stride=3)
    rows = torch.arange(4)[:, None]
    edges = torch.tensor([[0, 3, 6, 8], [0, 3, 3, 3], [1, 4, 4, 4], [0, 3, 6, 6]])
    assert torch.equal(segment.observations, to_float(batch.observations(edges)))
    sums = [batch.rewards[0, 3:6].sum(), batch.rewards[2, 1:4].sum(), batch.rewards[0, 6:].sum()]
    torch.testing.assert_close(segment.rewards[[0, 2, 0], [1, 0, 2]], torch.stack(sums))
    assert segment.ended.tolist() == [
        [False, False, True], [False] * 3, [True, False, False], [False] * 3,
    ]  # fmt: skip
    # the window is over within the last step of the first: it would count only if the episode ends
    assert segment.valid.tolist() == [[1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0]]
    # a plan knows nothing of the end: where it falls within a step, actions go on
    taken = segment.actions.unflatten(2, (3, 3)).argmax(-1)
    index = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7, 0]])
    assert torch.equal(taken[:1].flatten(1), batch.actions[rows[:1], index])
    assert (segment.actions[0].unflatten(1, (3, 3)).sum(-1) == 1).all()
    assert (segment.actions[1, 1:] == 0).all()
    stopped = take_segment(batch, DISCRETE, 3, torch.tensor([1, 1, 0, 1]), stride=3)
    assert stopped.valid.tolist() == [[1, 1, 0], [0, 0, 0], [1, 1, 0], [1, 0, 0]]


def test_segments_reach_the_end_of_the_longest_scene() -> None:
    batch = scenes(DISCRETE)

    def steps(scenes: Any, longest: int, stride: int = 1) -> int:
        return take_segment(scenes, DISCRETE, longest, stride=stride).steps

    assert [steps(batch, 20, stride) for stride in (1, 2, 3)] == [8, 4, 3]
    assert steps(batch, 5) == 5
    assert steps(replace(batch, lengths=torch.zeros(4).long()), 5) == 1


class Frozen(Counter):
    """Says that nothing changes: what it shows is the present's frame."""

    def _start(self, observations: Tensor, actions: Tensor, present: Tensor) -> State:
        return {"now": observations[torch.arange(len(observations)), present]}

    def _step(self, state: State, actions: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        return state, torch.zeros_like(noise), torch.zeros_like(noise)

    def _decode(self, state: State) -> Tensor:
        return state["now"]


@pytest.mark.parametrize("spec", [PASSIVE, DISCRETE], ids=["passive", "discrete"])
@pytest.mark.parametrize("stride", [1, 3])
def test_free_running_error(spec: Spec, stride: int) -> None:
    """Of a model that repeats the present, computed by hand; shown are the times 0, 1 and 2."""
    batch = scenes(spec)
    truth = to_float(batch.frames)
    expected, count = 0.0, 0
    for row, length in enumerate([8, 3, 8, 3]):
        for time in range(2 + stride, length + 1, stride):
            expected += float((truth[row, time] - truth[row, 2]).square().mean())
            count += 1
    found = free_running(Frozen(spec, stride), batch)
    assert found is not None and found.difference == 0
    assert found.mse == pytest.approx(expected / count)
    short = replace(batch, lengths=torch.full((4,), 2))
    assert free_running(Frozen(spec, stride), short) is None


def test_validation_leaves_scenes_out_that_end_within_a_stride() -> None:
    model = Frozen(DISCRETE, stride=5)  # a quarter of the window is shown: times 0 to 2
    with torch.no_grad():
        assert free_running(model, squares(lengths=(6, 3)), generator()) is None
        long = free_running(model, squares(lengths=(WINDOW,)), generator())
        both = free_running(model, squares(lengths=(WINDOW, 6)), generator())
    assert long is not None and both is not None and both.mse == pytest.approx(long.mse)


def test_validation_counts_what_there_is() -> None:
    """Only one of the batches has scenes of eight steps: it alone says how they are."""
    long, model = scenes(DISCRETE), sensitive_svg(DISCRETE)
    short = replace(long, lengths=long.lengths.clamp_max(2))

    class Ragged:
        action_space = DISCRETE.action.to_space()

        def batch(self, index: int) -> Any:
            return long if index == 3 else short

    found = Validation(Ragged(), 1, 0).measure(model)
    with torch.no_grad():
        alone = model.loss(long, 1.0, generator())
        parts = [model.loss(batch, 1.0, generator()).curves["mse"][0] for batch in (long, short)]
    assert found["mse_step/08"] == pytest.approx(float(alone.curves["mse"][7]), rel=0.2)
    expected = float(parts[0] + 7 * parts[1]) / 8
    assert found["mse_step/01"] == pytest.approx(expected, rel=0.2)
    alone = free_running(model, long, generator())
    assert alone is not None and found["free_mse"] == pytest.approx(alone.mse, rel=0.2)
    assert all(math.isfinite(value) for value in found.values())
