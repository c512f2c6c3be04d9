"""The state-space models: layers, bound, cost, strides, and the bugs of public implementations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from frame_fixtures import imagine, learn, look, plans, squares
from scenes import DISCRETE, PASSIVE, WINDOW, context, generator
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, Normal, kl_divergence

from worldmodel import Queries, Spec, UnsupportedQuery, to_float
from worldmodel.models.frame_by_frame.sssm import PRESETS, DssmDet, DssmVae, Sssm, SssmConfig
from worldmodel.models.frame_by_frame.teacher_forcing import take_segment

TINY = SssmConfig(channels=8, readout=4, frames=WINDOW)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
ALL = pytest.mark.parametrize("kind", [Sssm, DssmVae, DssmDet])


def made(kind: type[Sssm] = Sssm, config: SssmConfig = TINY, spec: Spec = DISCRETE) -> Sssm:
    """An untrained model whose quiet layers are louder: everything leaves a trace."""
    torch.manual_seed(0)
    model = kind(spec, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("last.weight", "mean.third.weight", "spread.third.weight")):
                parameter.mul_(3)
        model.decoder.fine.third.weight.mul_(3)
        model.readout.get_parameter("out.3.weight").mul_(0.1)
    return model.eval()


# -- the layer table ------------------------------------------------------------------------------


def stack(inputs: int, *layers: tuple[int, int]) -> int:
    total = 0
    for kernel, outputs in layers:
        total += inputs * outputs * kernel**2 + outputs
        inputs = outputs
    return total


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


@pytest.mark.parametrize(
    ("kind", "z", "moved", "total"),
    [(Sssm, 64, 64, 627_184), (DssmVae, 64, 0, 608_752), (DssmDet, 0, 0, 475_120)],
)
def test_paper_preset_has_the_tables_parameters(
    kind: type[Sssm], z: int, moved: int, total: int
) -> None:
    """The reference notes count 0.61 M at 64 px, without actions and the reward head."""
    model = kind(replace(PASSIVE, observation=(3, 64, 64)), PRESETS["paper"])
    fine = stack(48, (3, 16), (5, 16), (3, 64))
    assert parameters(model.encoder) == fine + stack(256, (3, 32), (5, 32), (3, 64))
    assert parameters(model.initial) == stack(192, (1, 64), (3, 64), (3, 64))
    widths = ((3, 32), (5, 32), (3, 64))
    moving = stack(64 + moved, *widths) + stack(64, (3, 32)) + stack(96, *widths)
    assert parameters(model.transition) == moving
    coarse = stack(64 + z, (1, 32), (5, 32), (3, 64))
    assert parameters(model.decoder) == coarse + stack(16, (3, 64), (3, 64), (1, 48))
    if model.stochastic:
        layers = ((1, 32), (3, 32), (3, 64))
        assert parameters(model.prior) == 2 * stack(64, *layers)
        assert parameters(model.posterior) == 2 * stack(4 * 64, *layers)
    assert parameters(model) - parameters(model.readout) == total
    assert parameters(model.readout) == stack(64, (3, 24)) + 24 * 64 * 2 + 2


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 32), (48, 32)])
def test_shapes(height: int, width: int) -> None:
    spec = replace(DISCRETE, observation=(1, height, width))
    model = made(config=replace(TINY, jump=2), spec=spec)
    grid = (height // 8, width // 8)
    assert model.noise_shape == (8, *grid)
    worlds = imagine(model)
    assert worlds.state["s"].shape == (2, 3, 8, *grid)
    assert worlds.state["noise"].shape == (2, 3, WINDOW, 8, *grid)
    seen = look(model, worlds, [4, 8], plans(2, 2, 6))
    assert seen.shape == (2, 3, 2, 2, 1, height, width)
    assert ((seen >= 0) & (seen <= 1)).all()


def test_actions_are_tiled_and_concatenated() -> None:
    one, passive = made(config=replace(TINY, jump=2)), made(spec=PASSIVE)
    for part in ("prior.mean.first", "posterior.spread.first", "transition.enter.first"):
        wide, narrow = (m.get_submodule(part) for m in (one, passive))
        assert isinstance(wide, nn.Conv2d) and isinstance(narrow, nn.Conv2d)
        assert wide.in_channels == narrow.in_channels + 2 * 3
    given = one._with_actions(torch.zeros(1, 8, 4, 4), torch.arange(6.0)[None])
    assert torch.equal(given[0, 8:, 1, 2], torch.arange(6.0))


@ALL
def test_initial_states_keep_long_rollouts_finite(kind: type[Sssm]) -> None:
    spec = replace(DISCRETE, window=100)
    model = kind(spec, TINY).eval()
    with torch.no_grad():
        far = model.advance(imagine(model), plans(2, 98)).state["s"]
    assert torch.isfinite(far).all() and far.abs().max() < 1e3


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"channels": 6}, "channels"),
        ({"channels": 0}, "channels"),
        ({"readout": 0}, "readout"),
        ({"jump": 0}, "jump"),
        ({"frames": 0}, "frames"),
        ({"beta": 0.0}, "beta"),
        ({"reward_variance": -1.0}, "reward_variance"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate_end": -1.0}, "learning_rate_end"),
    ],
)
def test_bad_config(change: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: .*, got {next(iter(change.values()))}$"):
        replace(TINY, **change)


# -- the bound ------------------------------------------------------------------------------------


@torch.no_grad()
@ALL
def test_the_bound_is_the_one_of_torch_distributions(kind: type[Sssm]) -> None:
    """Walked step by step, with the posterior of frame t seeing the encoding of frame t."""
    model, batch = made(kind, replace(TINY, beta=0.5)), squares()
    model.draw_first = lambda lengths, _: (  # type: ignore[method-assign]
        torch.zeros_like(lengths), torch.ones(len(lengths)),
    )  # fmt: skip
    losses = model.loss(batch, 0.0, generator(4))
    segment = take_segment(batch, DISCRETE, WINDOW)
    noise = torch.randn(4, WINDOW, *model.noise_shape, generator=generator(4))
    e = model.encoder(segment.observations.flatten(0, 1)).unflatten(0, (4, WINDOW + 1))
    s = model.initial(torch.cat([e[:, 0]] * 3, 1))
    frames, kls, rewards, logits = torch.zeros(4), torch.zeros(4), [], []
    for t in range(WINDOW):
        tiled = segment.actions[:, t, :, None, None].expand(-1, -1, 4, 4)
        z: list[Tensor] = []
        if model.stochastic:
            p = model.prior(torch.cat([s, tiled], 1))
            q = model.posterior(torch.cat([s, tiled, e[:, t + 1], *p], 1))
            assert (p[1] > 0.1).all() and (q[1] > 0.1).all()
            kl = kl_divergence(Normal(*q), Normal(*p)).flatten(1).sum(1)
            kls += kl * segment.valid[:, t]
            z = [q[0] + q[1] * noise[:, t]]
        s = model.transition(torch.cat([s, tiled, *(z if model.moves else [])], 1), s)
        pixels = Bernoulli(logits=model.decoder(torch.cat([s, *z], 1)), validate_args=False)
        frames -= (
            Independent(pixels, 3).log_prob(segment.observations[:, t + 1]) * segment.valid[:, t]
        )
        reward, logit = model.readout(s).unbind(-1)
        rewards.append(reward)
        logits.append(logit)
    readouts = torch.stack(rewards, 1), torch.stack(logits, 1)
    truth = (segment.rewards, segment.ended, segment.valid)
    reward, ending = model.reward_scale.nll(*truth, *readouts, 0.02)
    parts = {"nll": frames, "kl": kls, "reward": reward, "continue": ending}
    for name, value in parts.items():
        torch.testing.assert_close(losses.parts[name], value.mean(), **CLOSE)
    total = (frames + 0.5 * kls + reward + ending).mean()
    torch.testing.assert_close(losses.total, total, **CLOSE)
    assert losses.curves["kl"].shape == losses.curves["mse"].shape == (WINDOW,)


@torch.no_grad()
def test_what_lies_behind_the_end_does_not_count() -> None:
    model, batch = made(), squares()
    expected = model.loss(batch, 0.0, generator()).total
    batch.actions[1, 3:] = -1
    batch.rewards[1, 3:] = 1e6
    batch.terminated[1, 3:] = True
    assert torch.equal(model.loss(batch, 0.0, generator()).total, expected)


@pytest.mark.parametrize("jump", [1, 3])
@pytest.mark.parametrize("spec", [PASSIVE, DISCRETE], ids=["passive", "discrete"])
@ALL
def test_loss_reaches_every_parameter(kind: type[Sssm], spec: Spec, jump: int) -> None:
    model = made(kind, replace(TINY, jump=jump), spec)
    losses = model(squares(), 0.0, generator())
    losses.total.backward()
    assert all(torch.isfinite(part) for part in losses.parts.values())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


@ALL
def test_where_z_goes(kind: type[Sssm]) -> None:
    """A public implementation built a model whose z reached nothing."""
    model = made(kind)
    s, actions = torch.rand(2, 8, 4, 4, generator=generator()), torch.zeros(2, 3)
    noise = torch.randn(2, *model.noise_shape, generator=generator()).requires_grad_()
    state, reward, _ = model._step({"s": s}, actions, noise)
    assert model.stochastic == (model.noise_shape[0] > 0)
    for output, reaches in [
        (state["s"].sum() + reward.sum(), kind is Sssm),
        (model._decode(state).sum(), kind is not DssmDet),
        (model._decode({**state, "s": s}).sum(), kind is not DssmDet),
    ]:
        gradient = None
        if output.requires_grad:
            (gradient,) = torch.autograd.grad(output, noise, retain_graph=True, allow_unused=True)
        assert (gradient is not None and bool(gradient.abs().sum() > 0)) == reaches


def test_posterior_is_drawn_from_and_sees_its_own_frame() -> None:
    """Not the prior, not the frame before; and by reparameterisation."""
    model = made()
    s, frames = torch.rand(1, 8, 4, 4), torch.rand(1, 3, 3, 32, 32)
    actions = torch.zeros(1, 3, 3)
    _, z, kl = model._infer(s, frames, actions, generator())
    changed = frames.clone()
    changed[:, 1] = 0
    _, other, kl_other = model._infer(s, changed, actions, generator())
    assert z is not None and other is not None
    assert torch.equal(z[:, 0], other[:, 0]) and torch.equal(kl[:, 0], kl_other[:, 0])
    assert not torch.equal(z[:, 1], other[:, 1]) and kl[0, 1] != kl_other[0, 1]
    z[:, 1].sum().backward()
    spread, prior = (m.spread.third.weight.grad for m in (model.posterior, model.prior))
    assert spread is not None and spread.abs().sum() > 0
    assert prior is not None and prior.abs().sum() > 0  # the prior's sigma is an input


# -- what training draws --------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [1, 3])
def test_draw_first(jump: int) -> None:
    lengths = torch.tensor([8, 1, 0]).repeat(400)
    drawn = made(config=replace(TINY, jump=jump)).draw_first(lengths, generator())[0]
    assert drawn[::3].unique().tolist() == list(range(8 - jump + 1))  # a whole step is left
    assert 0.5 < (drawn[::3] == 0).float().mean() < 0.7
    assert (drawn[1::3] == 0).all() and (drawn[2::3] == 0).all()


def test_training_starts_from_the_frames_of_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = made(config=replace(TINY, jump=2)), squares(lengths=(WINDOW,) * 4)
    first = torch.tensor([0, 3, 5, 6])
    asked: list[Tensor] = []
    start = model._start

    def watched(frames: Tensor, *rest: Tensor) -> dict[str, Tensor]:
        asked.append(frames)
        return start(frames, *rest)

    monkeypatch.setattr(model, "draw_first", lambda *_: (first, torch.ones(4)))
    monkeypatch.setattr(model, "_start", watched)
    model.loss(batch, 0.0, generator())
    times = torch.tensor([[0, 0, 0], [0, 1, 3], [1, 3, 5], [2, 4, 6]])
    assert torch.equal(asked[0], to_float(batch.observations(times)))


# -- worlds ---------------------------------------------------------------------------------------


@ALL
def test_worlds_differ_where_there_is_chance(kind: type[Sssm]) -> None:
    model = made(kind)
    seen = look(model, imagine(model), [3, 8], plans(2, 1, 6))
    apart = (seen[:, 0] - seen[:, 1]).abs().amax((-1, -2, -3))
    assert (apart > 1e-2).all() if model.stochastic else (apart == 0).all()


@torch.no_grad()
def test_a_belief_needs_the_last_three_frames_only() -> None:
    model = made(config=replace(TINY, jump=2))
    full = context(DISCRETE, frames=8)
    some = replace(
        full,
        observations=full.observations[:, [5, 7, 3]],
        times=full.times[:, [5, 7, 3]],
    )
    one, other = model.observe(full), model.observe(some)
    for name, value in one.state.items():
        torch.testing.assert_close(other.state[name], value, **CLOSE)
    encoded = [model.encoder(full.observations[:, t]) for t in (3, 5, 7)]
    torch.testing.assert_close(one.state["s"], model.initial(torch.cat(encoded, 1)), **CLOSE)
    early = context(DISCRETE, frames=2)  # 1 - 2 and 1 - 4 lie before time 0
    encoded = [model.encoder(early.observations[:, t]) for t in (0, 0, 1)]
    began = model.observe(early).state["s"]
    torch.testing.assert_close(began, model.initial(torch.cat(encoded, 1)), **CLOSE)
    lacking = replace(some, observations=some.observations[:, 1:], times=some.times[:, 1:])
    with pytest.raises(UnsupportedQuery, match=r"needs the frames of the times \[3, 5, 7\], each"):
        model.observe(lacking)


@ALL
def test_only_frames_that_are_asked_for_are_decoded(kind: type[Sssm]) -> None:
    model, decoded = made(kind), []
    worlds, actions = imagine(model), plans(2, 2, 6)
    handle = model.decoder.register_forward_hook(lambda _, given, __: decoded.append(len(given[0])))
    with torch.no_grad():
        queries = Queries(torch.tensor([[8], [8]]), actions)
        seen = model.predict(worlds, queries)
        assert decoded == [2 * 3 * 2]
        blind = model.predict(worlds, queries, frames=False)
        assert decoded == [2 * 3 * 2] and blind.observations is None
        assert torch.equal(blind.rewards, seen.rewards)
        moved = model.advance(worlds, actions[:, 0])
        assert decoded == [2 * 3 * 2, 2 * 3]
        model.predict(moved, Queries(torch.tensor([[8], [8]])))
    handle.remove()
    assert decoded == [2 * 3 * 2, 2 * 3]  # the present's frame is kept
    assert set(moved.state) == set(worlds.state)


@pytest.mark.parametrize(("kind", "drawn"), [(Sssm, [5, 5]), (DssmVae, [1, 0]), (DssmDet, [0, 0])])
def test_z_is_drawn_where_it_is_read(kind: type[Sssm], drawn: list[int]) -> None:
    """By sSSM in every step, by dSSM-VAE for a frame alone; of 5 steps, with frames and without."""
    model, count = made(kind), [0]

    def note(*_: object) -> None:
        count[0] += 1

    if model.stochastic:
        model.prior.register_forward_hook(note)
    worlds, found = imagine(model), []
    for frames in (True, False):
        with torch.no_grad():
            model.predict(worlds, Queries(torch.tensor([[7], [7]]), plans(2, 2, 5)), frames)
        found.append(count[0])
        count[0] = 0
    assert found == drawn


@ALL
@pytest.mark.parametrize("jump", [1, 2, 3])
def test_stepping_is_looking_ahead(kind: type[Sssm], jump: int) -> None:
    model = made(kind, replace(TINY, jump=jump))
    worlds, actions = imagine(model), plans(2, 1, 6)
    times = torch.tensor([[2 + jump, 8]] * 2)
    with torch.no_grad():
        ahead = model.predict(worlds, Queries(times, actions))
        moved = model.advance(worlds, actions[:, 0, :jump])
        there = model.predict(moved, Queries(times, actions[:, :, jump:]))
        end = moved
        for start in range(jump, 6, jump):
            end = model.advance(end, actions[:, 0, start : start + jump])
    assert ahead.observations is not None and there.observations is not None
    torch.testing.assert_close(there.observations, ahead.observations, **CLOSE)
    torch.testing.assert_close(there.rewards[..., 1], ahead.rewards[..., 1], **CLOSE)
    assert end.present.tolist() == [8, 8]
    last = look(model, end, [8], None)[:, :, 0]
    torch.testing.assert_close(last, ahead.observations[:, :, 0, 1], **CLOSE)


# -- jumpy ----------------------------------------------------------------------------------------


def test_jumps_take_whole_strides_only() -> None:
    model = made(config=replace(PRESETS["jumpy"], channels=8))
    assert model.stride == 5 and not model.jumpy
    worlds, actions = imagine(model), plans(2, 2, 6)
    assert look(model, worlds, [7, 2], actions).shape == (2, 3, 2, 2, 3, 32, 32)
    for time in (3, 8):
        with pytest.raises(UnsupportedQuery, match="multiples of 5 after the present"):
            look(model, worlds, [7, time], actions)
    for length in (1, 6):
        with pytest.raises(UnsupportedQuery, match=f"takes 5 steps at once, got {length}"):
            model.advance(worlds, actions[:, 0, :length])
    assert model.advance(worlds, actions[:, 0, :5]).present.tolist() == [7, 7]


def test_every_action_of_a_stride_counts() -> None:
    model = made(config=replace(TINY, jump=3))
    worlds, zero = imagine(model), torch.zeros(2, 3).long()
    plain = look(model, worlds, [5], zero[:, None])
    for place in range(3):
        other = zero.clone()
        other[:, place] = 1
        assert (look(model, worlds, [5], other[:, None]) - plain).abs().max() > 1e-4


def test_jumps_cost_a_step_each() -> None:
    counts = {}
    for jump in (1, 3):
        model, steps = made(config=replace(TINY, jump=jump)), []
        worlds = imagine(model)
        model.transition.register_forward_hook(lambda *_, steps=steps: steps.append(1))
        look(model, worlds, [8], plans(2, 1, 6))
        counts[jump] = len(steps)
    assert counts == {1: 6, 3: 2}


# -- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [1, 4])
def test_learns_a_batch(jump: int) -> None:
    torch.manual_seed(0)
    model = Sssm(DISCRETE, replace(TINY, channels=16, frames=4, jump=jump))
    history = learn(model, squares(lengths=(WINDOW, WINDOW)), steps=20, rate=3e-3)
    assert history[-1]["nll"] < 0.2 * history[0]["nll"]
    assert history[-1]["mse"] < 0.2 * history[0]["mse"]
