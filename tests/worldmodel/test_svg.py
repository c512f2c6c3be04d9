"""SVG-LP against the layer table, and the rollout loop that all frame-by-frame models share."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from scenes import DISCRETE, PASSIVE, WINDOW, context, generator, moving_square, random_actions
from torch import Tensor, nn

from worldmodel import Context, Queries, Spec, UnsupportedQuery, Worlds
from worldmodel.base import Losses
from worldmodel.frame_by_frame import PRESETS, FrameByFrame, Svg, SvgConfig
from worldmodel.frame_by_frame.base import State
from worldmodel.frame_by_frame.clip import draw_last

TINY = SvgConfig(channels=(8, 16, 32), features=32, latent=4, hidden=32, past=3, frames=9)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@dataclass
class Scenes:
    """A batch that is all there."""

    frames: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    lengths: Tensor

    def observations(self, times: Tensor) -> Tensor:
        return self.frames[torch.arange(len(times))[:, None], times]


def scenes(spec: Spec, batch: int = 4) -> Scenes:
    """The moving square, two of the scenes shorter than the window."""
    episodes = moving_square(batch, WINDOW).episodes
    lengths = torch.tensor([WINDOW, 3] * (batch // 2))
    behind = torch.arange(WINDOW) >= lengths[:, None]
    rewards = torch.stack([torch.from_numpy(e.rewards) for e in episodes])
    actions = random_actions(spec, batch, WINDOW)
    return Scenes(
        torch.stack([torch.from_numpy(e.observations) for e in episodes]),
        torch.zeros(batch, WINDOW) if actions is None else actions,
        rewards.masked_fill(behind, 0),
        torch.arange(1, WINDOW + 1) == lengths[:, None],
        lengths,
    )


def lively(spec: Spec, config: SvgConfig = TINY) -> Svg:
    """An untrained model whose frames depend on everything: its batch norms know their input."""
    torch.manual_seed(0)
    model = Svg(spec, config)
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None  # a plain mean
    with torch.no_grad():
        model.decoder.get_parameter(f"stages.{len(config.channels) - 1}.0.weight").mul_(20)
        for part in (model.prior, model.posterior, model.predictor):
            part.enter.weight.mul_(20)
            part.out.weight.mul_(20)
        for _ in range(3):
            model.loss(scenes(spec, 8), 0.0, generator())
    return model.eval()


@pytest.fixture(scope="module")
def model() -> Svg:
    return lively(DISCRETE)


def plans(*lead: int) -> Tensor:
    actions = random_actions(DISCRETE, *lead, seed=3)
    assert actions is not None
    return actions


@torch.no_grad()
def imagine(model: Svg, given: Context | None = None, n: int = 3, seed: int = 0) -> Worlds:
    given = context(model.spec) if given is None else given
    return model.sample(model.observe(given), n, generator(seed))


@torch.no_grad()
def look(model: Svg, worlds: Worlds, times: list[int], actions: Tensor | None) -> Tensor:
    queries = Queries(torch.tensor(times).expand(worlds.shape[0], -1), actions)
    seen = model.predict(worlds, queries).observations
    assert seen is not None
    return seen


# -- the layer table ------------------------------------------------------------------------------


def conv(inputs: int, outputs: int, kernel: int, norm: bool = True) -> int:
    return inputs * outputs * kernel**2 + outputs + (2 * outputs if norm else 0)


def recurrence(inputs: int, layers: int, outputs: int, hidden: int = 256) -> int:
    lstm = layers * (4 * hidden * (2 * hidden) + 8 * hidden)
    return inputs * hidden + hidden + lstm + hidden * outputs + outputs


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_paper_preset_has_the_tables_parameters() -> None:
    model = Svg(replace(PASSIVE, observation=(3, 64, 64)), PRESETS["paper"])
    widths = (3, 64, 128, 256, 512)
    down = sum(conv(a, b, 4) for a, b in pairwise(widths))
    assert parameters(model.encoder) == down + conv(512, 128, 4)
    up = conv(128, 512, 4) + conv(1024, 256, 4) + conv(512, 128, 4) + conv(256, 64, 4)
    assert parameters(model.decoder) == up + conv(128, 3, 4, norm=False)
    assert parameters(model.predictor) == recurrence(128 + 10, 2, 128)
    assert parameters(model.posterior) == parameters(model.prior) == recurrence(128, 1, 2 * 10)
    assert model.beta == 1e-4


@pytest.mark.parametrize(("size", "last"), [(64, 512), (32, 256)])
def test_the_last_convolution_sees_4x4(size: int, last: int) -> None:
    model = Svg(replace(PASSIVE, observation=(3, size, size)), PRESETS["paper"]).eval()
    with torch.no_grad():
        h, skips = model.encoder(torch.rand(2, 3, size, size))
        assert h.shape == (2, 128) and skips[-1].shape == (2, last, 4, 4)
        frames = model.decoder(h, skips)
    assert frames.shape == (2, 3, size, size)
    assert ((frames >= 0) & (frames <= 1)).all()
    # the equivalent Gaussian variance beta C H W / 2 (reference notes: 0.614 for BAIR)
    assert model.beta * 3 * size * size / 2 == pytest.approx(0.6144)


def test_actions_join_the_inputs() -> None:
    one, other = Svg(DISCRETE, TINY), Svg(PASSIVE, TINY)
    for name in ("prior", "posterior", "predictor"):
        assert getattr(one, name).enter.in_features == getattr(other, name).enter.in_features + 3


@pytest.mark.parametrize("size", [(48, 48), (64, 32), (128, 128)])
def test_sizes_that_do_not_fit(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"takes square frames of \[16, 32, 64\] pixels"):
        Svg(replace(PASSIVE, observation=(3, *size)), PRESETS["paper"])


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"channels": ()}, "channels"),
        ({"channels": (8, 0)}, "channels"),
        ({"latent": 0}, "latent"),
        ({"prior_layers": 0}, "prior_layers"),
        ({"past": 9, "frames": 9}, "past, frames"),
        ({"past": 0, "frames": 1}, "past, frames"),
        ({"beta": 0.0}, "beta"),
        ({"reward_variance": -1.0}, "reward_variance"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ],
)
def test_bad_config(change: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        replace(TINY, **change)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_config_survives_json(preset: str) -> None:
    config = PRESETS[preset]
    assert SvgConfig(**json.loads(json.dumps(asdict(config)))) == config


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
    model = lively(PASSIVE)
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
    """A state-space model in small: adds up what it is told, decodes only when asked."""

    name = "counter"
    feeds_back = False
    noise_shape = ()

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec, None)
        self.unused = nn.Parameter(torch.zeros(()))
        self.looked = 0

    def _start(self, frames: Tensor, actions: Tensor, present: Tensor) -> State:
        return {"sum": actions.argmax(-1).sum(1) if actions.shape[1] else present * 0.0}

    def _step(self, state: State, actions: Tensor, noise: Tensor) -> tuple[State, Tensor, Tensor]:
        total = state["sum"] + actions.argmax(-1)
        return {"sum": total}, torch.zeros_like(noise), torch.full_like(noise, 50.0)

    def _look(self, state: State) -> Tensor:
        self.looked += 1
        return state["sum"].float()[:, None, None, None].expand(-1, *self.spec.observation)

    def loss(self, scenes: Any, progress: float, generator: Any) -> Losses:
        raise NotImplementedError


def test_a_model_that_feeds_nothing_back_decodes_what_is_asked() -> None:
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
    assert now is not None and torch.equal(now[:, 0, 0, 0, 0, 0], sums[:, 0, 2])


# -- training -------------------------------------------------------------------------------------


@torch.no_grad()
def test_sequences_equal_steps(model: Svg) -> None:
    x = torch.rand(2, 5, model.predictor.enter.in_features, generator=generator())
    whole, state = model.predictor(x), model.predictor.start(x[:, 0])
    for t in range(5):
        y, state = model.predictor.step(x[:, t], state)
        torch.testing.assert_close(y, whole[:, t], **CLOSE)


@pytest.mark.parametrize("spec", [PASSIVE, DISCRETE], ids=["passive", "discrete"])
def test_loss_reaches_every_parameter(spec: Spec) -> None:
    torch.manual_seed(0)
    model = Svg(spec, replace(TINY, past=0))
    losses = model(scenes(spec), 0.0, generator())
    losses.total.backward()
    assert all(torch.isfinite(part) for part in losses.parts.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_loss_sums_steps_and_masks_the_end() -> None:
    model = lively(DISCRETE)
    batch = scenes(DISCRETE)
    with torch.no_grad():
        losses = model.loss(batch, 0.0, generator())
        parts = losses.parts
        per_scene = parts["mse"] * batch.lengths.sum() / len(batch.lengths)
        nats = parts["kl"] + parts["reward"] + parts["continue"]
        torch.testing.assert_close(losses.total, per_scene + model.beta * nats)
        for row, length in enumerate(batch.lengths.tolist()):  # nothing behind the end is read
            batch.frames[row, length + 1 :] = 255
            batch.actions[row, length:] = -1
            batch.rewards[row, length:] = 1e6
        assert torch.equal(model.loss(batch, 0.0, generator()).total, losses.total)
        model.config = replace(TINY, frames=4)
        shorter = replace(batch, lengths=batch.lengths.clamp_max(3))
        expected = model.loss(batch, 0.0, generator()).total
        assert torch.equal(model.loss(shorter, 0.0, generator()).total, expected)


def test_draw_last() -> None:
    lengths = torch.tensor([8, 1, 0]).repeat(400)
    fixed = draw_last(lengths, 3, None)
    assert torch.equal(fixed, torch.tensor([2, 1, 0]).repeat(400))
    drawn = draw_last(lengths, 0, generator())
    assert (drawn >= 0).all() and (drawn <= lengths).all()
    assert drawn[::3].unique().tolist() == list(range(8))
    assert 0.5 < (drawn[::3] == 0).float().mean() < 0.65


def test_overfits_a_batch() -> None:
    torch.manual_seed(0)
    model = Svg(DISCRETE, TINY)
    batch = scenes(DISCRETE)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    history = []
    for step in range(60):
        losses = model.loss(batch, step / 60, generator(step))
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        history.append({name: float(value) for name, value in losses.parts.items()})
    assert history[-1]["mse"] < 0.1 * history[0]["mse"]
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert history[-1]["reward"] < 0.5 * history[0]["reward"]
