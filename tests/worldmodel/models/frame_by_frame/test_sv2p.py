"""SV2P and CDNA against the layer table; one latent for a whole video; how they are trained."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from frame_fixtures import imagine
from scenes import DISCRETE, PASSIVE, WINDOW, context, generator, moving_square, random_actions
from torch import Tensor, nn

from worldmodel import Context, Episode, Queries, Spec, Worlds
from worldmodel.data.windows import WindowBatch
from worldmodel.models.frame_by_frame.base import State
from worldmodel.models.frame_by_frame.sv2p import (
    PRESETS,
    Cdna,
    Sv2p,
    Sv2pConfig,
    phase,
    share_of_truth,
)
from worldmodel.models.frame_by_frame.sv2p_nets import Compositor, Inference, Tower, move
from worldmodel.models.frame_by_frame.teacher_forcing import Segment, take_segment

TINY = Sv2pConfig(channels=(4, 8, 8), kernels=3, inference=4, hidden=16, past=3, frames=9)
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
PAPER_SPEC = replace(PASSIVE, observation=(3, 64, 64), window=20)


def scenes(spec: Spec = DISCRETE, batch: int = 4, short: int = 3) -> WindowBatch:
    """The moving square; every second scene ends after ``short`` steps."""
    windows = []
    actions = random_actions(spec, batch, WINDOW)
    for row, e in enumerate(moving_square(batch, WINDOW).episodes):
        n = short if row % 2 else WINDOW
        taken = np.zeros(n, np.int64) if actions is None else actions[row, :n].numpy()
        windows.append((Episode(e.observations[: n + 1], taken, e.rewards[:n], bool(row % 2)), 0))
    return WindowBatch(windows, WINDOW, torch.device("cpu"))


def sensitive(model: type[Cdna], spec: Spec = DISCRETE, config: Sv2pConfig = TINY) -> Any:
    """An untrained model whose frames depend on everything."""
    torch.manual_seed(0)
    made = model(spec, config)
    with torch.no_grad():
        for part in (made.tower.merge[0], made.compositor.kernel, made.compositor.mask):
            part.get_parameter("weight").mul_(5)
    return made.eval()


@pytest.fixture(scope="module")
def sv2p() -> Sv2p:
    model: Sv2p = sensitive(Sv2p)
    return model


@torch.no_grad()
def look(model: Cdna, worlds: Worlds, times: list[int]) -> Tensor:
    actions = random_actions(model.spec, worlds.shape[0], 1, WINDOW, seed=3)
    queries = Queries(torch.tensor(times).expand(worlds.shape[0], -1), actions)
    seen = model.predict(worlds, queries).observations
    assert seen is not None
    return seen[:, :, 0]


# -- the layer table ------------------------------------------------------------------------------


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def conv(inputs: int, outputs: int, kernel: int, norm: bool = False) -> int:
    return inputs * outputs * kernel**2 + outputs + (2 * outputs if norm else 0)


def lstm(inputs: int, hidden: int) -> int:
    """A 5x5 ConvLSTM and the layer norm of its output."""
    return conv(inputs + hidden, 4 * hidden, 5) + 2 * hidden


def test_paper_preset_has_the_tables_parameters() -> None:
    model = Sv2p(replace(PAPER_SPEC, action=DISCRETE.action), PRESETS["paper"])
    down = conv(3, 32, 5, norm=True) + lstm(32, 32) + lstm(32, 32) + conv(32, 32, 3)
    down += lstm(32, 64) + lstm(64, 64) + conv(64, 64, 3)
    bottom = conv(64 + 3 + 1, 64, 1) + lstm(64, 128)  # three actions and z are tiled
    up = conv(128, 128, 3) + lstm(128, 64) + conv(64 + 32, 96, 3) + lstm(96, 32)
    assert parameters(model.tower) == down + bottom + up
    heads = conv(32 + 32, 64, 3, norm=True) + conv(64, 3, 1) + conv(64, 2 + 10, 1)
    kernels = (128 * 8 * 8 + 1) * 10 * 5 * 5
    assert parameters(model.compositor) == heads + kernels
    body = conv(21 * 3, 32, 3, norm=True) + conv(32, 64, 3, norm=True) + conv(64, 64, 3, norm=True)
    assert parameters(model.inference) == body + 2 * conv(64, 1, 3)
    assert parameters(model.readout) == (128 * 8 * 8 + 1) * 128 + (128 + 1) * 2
    cdna = Cdna(PAPER_SPEC, PRESETS["paper"])
    assert parameters(cdna.tower) == parameters(model.tower) - 64 * (3 + 1)
    assert not hasattr(cdna, "inference")


def test_forget_gates_begin_open() -> None:
    for cell in Tower(3, (4, 8, 16), 1).cells:
        bias = cell.get_parameter("gates.bias").unflatten(0, (4, -1))
        assert bias[1].min() > 0.5 and bias[[0, 2, 3]].max() < 0.5


@pytest.mark.parametrize("size", [64, 32])
@torch.no_grad()
def test_shapes_of_each_stage(size: int) -> None:
    a, b, c = channels = (4, 6, 8)
    tower = Tower(3, channels, 5)
    frame = torch.rand(2, 3, size, size)
    state = tower.start(frame)
    extra = [torch.rand(2, 4, 1, 1), torch.rand(2, 1, size // 8, size // 8)]
    new, bottom, top = tower(frame, extra, state)
    assert bottom.shape == (2, c, size // 8, size // 8)
    assert top.shape == (2, 2 * a, size // 2, size // 2)
    sizes = ((a, 2), (a, 2), (b, 4), (b, 4), (c, 8), (b, 4), (a, 2))
    for i, (hidden, scale) in enumerate(sizes):
        for name in (f"h{i}", f"c{i}"):
            shape = (2, hidden, size // scale, size // scale)
            assert new[name].shape == state[name].shape == shape
    compositor = Compositor(3, channels, (size // 8, size // 8), 10, 5)
    assert compositor.kernels(bottom).shape == (2, 10, 5, 5)
    after = compositor(frame, bottom, top)
    assert after.shape == frame.shape and ((after >= 0) & (after <= 1 + 1e-6)).all()
    masks = compositor.masks(compositor.up(top))
    assert masks.shape == (2, 12, size, size)
    torch.testing.assert_close(masks.sum(1), torch.ones(2, size, size))
    mean, logvar = Inference(9 * 3, 4)(torch.rand(2, 9, 3, size, size))
    assert mean.shape == logvar.shape == (2, 1, size // 8, size // 8)
    assert (logvar >= -5).all()


@torch.no_grad()
def test_kernels_are_normalised() -> None:
    compositor = Compositor(3, (4, 8, 8), (4, 4), 10, 5)
    kernels = compositor.kernels(torch.randn(6, 8, 4, 4, generator=generator()))
    assert (kernels >= 0).all()
    torch.testing.assert_close(kernels.sum((2, 3)), torch.ones(6, 10))
    compositor.kernel.bias.fill_(-1e3)  # every entry is cut off
    flat = compositor.kernels(torch.zeros(1, 8, 4, 4))
    torch.testing.assert_close(flat, torch.full_like(flat, 1 / 25))


def test_each_frame_is_moved_by_its_own_kernels() -> None:
    frames = torch.rand(3, 2, 8, 6, generator=generator())
    kernels = torch.rand(3, 4, 5, 5, generator=generator(1))
    moved = move(frames, kernels)
    assert moved.shape == (3, 2, 4, 8, 6)
    wide = nn.functional.pad(frames, (2, 2, 2, 2))
    for row in range(3):
        for k in range(4):
            expected = torch.zeros(2, 8, 6)
            for y in range(8):
                for x in range(6):
                    patch = wide[row, :, y : y + 5, x : x + 5]
                    expected[:, y, x] = (patch * kernels[row, k]).sum((1, 2))
            torch.testing.assert_close(moved[row, :, k], expected)


def test_a_delta_keeps_or_moves_the_frame() -> None:
    frames = torch.rand(1, 3, 8, 8, generator=generator())
    kernels = torch.zeros(1, 2, 5, 5)
    kernels[0, 0, 2, 2] = kernels[0, 1, 2, 0] = 1  # the second looks two pixels to the left
    kept, moved = move(frames, kernels).unbind(2)
    assert torch.equal(kept, frames)
    assert torch.equal(moved[..., 2:], frames[..., :-2]) and (moved[..., :2] == 0).all()


@torch.no_grad()
def test_every_mask_has_its_own_frame() -> None:
    """With all of the weight on one mask, that one is shown: also the last kernel's."""
    compositor = Compositor(3, (4, 8, 8), (4, 4), 3, 5)
    frame, bottom = torch.rand(2, 3, 32, 32), torch.randn(2, 8, 4, 4)
    top = torch.randn(2, 8, 16, 16)
    moved = move(frame, compositor.kernels(bottom))
    parts = [frame, compositor.paint(compositor.up(top)).sigmoid(), *moved.unbind(2)]
    assert len(parts) == 5
    for i, part in enumerate(parts):
        assert compositor.mask.bias is not None
        compositor.mask.bias.zero_()[i] = 100
        torch.testing.assert_close(compositor(frame, bottom, top), part, **CLOSE)


def test_frames_need_not_be_square() -> None:
    model: Sv2p = sensitive(Sv2p, replace(DISCRETE, observation=(1, 16, 24)))
    worlds = imagine(model)
    assert worlds.state["z"].shape == (2, 3, 1, 2, 3)
    assert look(model, worlds, [4]).shape == (2, 3, 1, 1, 16, 24)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"channels": (8, 8)}, "channels"),
        ({"channels": (8, 0, 8)}, "channels"),
        ({"kernels": 0}, "kernels"),
        ({"kernel_size": 4}, "kernel_size"),
        ({"inference": 0}, "inference"),
        ({"hidden": 0}, "hidden"),
        ({"phases": (0.5, 0.4, 0.6)}, "phases"),
        ({"phases": (0.5, 0.6)}, "phases"),
        ({"phases": (-0.1, 0.4, 0.6)}, "phases"),
        ({"phases": (0.2, 0.4, 1.6)}, "phases"),
        ({"past": 9, "frames": 9}, "past, frames"),
        ({"past": 0, "frames": 1}, "past, frames"),
        ({"beta": 0.0}, "beta"),
        ({"sampling": 0.0}, "sampling"),
        ({"reward_variance": -1.0}, "reward_variance"),
        ({"learning_rate": 0.0}, "learning_rate"),
    ],
)
def test_bad_config(change: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: "):
        replace(TINY, **change)


# -- one world ------------------------------------------------------------------------------------


def test_one_latent_for_the_whole_world(sv2p: Sv2p) -> None:
    worlds = imagine(sv2p)
    assert worlds.state["z"].shape == (2, 3, 1, 4, 4)
    assert "context" not in worlds.state
    together = look(sv2p, worlds, [3, 5, 8])
    assert (together[:, 0] - together[:, 1]).abs().amax((1, 2, 3, 4)).min() > 1e-3
    torch.testing.assert_close(look(sv2p, worlds, [8])[:, :, 0], together[:, :, 2], **CLOSE)
    plan = random_actions(DISCRETE, 2, 4)
    assert plan is not None
    with torch.no_grad():
        moved = sv2p.advance(worlds, plan)
    assert torch.equal(moved.state["z"], worlds.state["z"])
    assert set(moved.state) == set(worlds.state)


def test_the_context_is_seen_with_the_worlds_own_latent(sv2p: Sv2p) -> None:
    """Also the first step's hidden state belongs to z, but for what comes before the bottleneck."""
    state = imagine(sv2p).state
    for name in ("h3", "previous"):
        torch.testing.assert_close(state[name][:, 0], state[name][:, 1], **CLOSE)
    for name in ("h4", "c5", "h6"):
        assert not torch.allclose(state[name][:, 0], state[name][:, 1], **CLOSE), name


def test_cdna_has_one_future() -> None:
    model: Cdna = sensitive(Cdna)
    worlds = imagine(model)
    frames = look(model, worlds, [3, 8])
    assert torch.equal(frames[:, 0], frames[:, 1])
    assert torch.equal(frames, look(model, imagine(model, seed=1), [3, 8]))
    assert "z" not in worlds.state and worlds.state["noise"].shape == (2, 3, WINDOW, 0)


@torch.no_grad()
def test_ragged_presents_equal_single_rows(sv2p: Sv2p) -> None:
    frames = context(DISCRETE, batch=3, frames=5)
    assert frames.actions is not None
    present = torch.tensor([0, 4, 2])
    mask = frames.times <= present[:, None]
    pictures = frames.observations.masked_fill(~mask[..., None, None, None], torch.nan)
    taken = frames.actions.masked_fill(torch.arange(4) >= present[:, None], -1)
    belief = sv2p.observe(Context(pictures, frames.times, taken, mask, present))
    z = torch.randn(3, 2, 1, 4, 4, generator=generator())
    own = {name: value for name, value in belief.state.items() if name != "observation"}
    both = sv2p.with_latents(own, z)
    for row, now in enumerate(present.tolist()):
        short = Context(
            frames.observations[row : row + 1, : now + 1],
            frames.times[row : row + 1, : now + 1],
            frames.actions[row : row + 1, :now],
        )
        alone = sv2p.with_latents(sv2p.observe(short).state, z[row : row + 1])
        assert set(alone) == set(both)
        for name, value in alone.items():
            torch.testing.assert_close(value[0], both[name][row], **CLOSE)


# -- training -------------------------------------------------------------------------------------


def test_phases_switch_on_time() -> None:
    bounds = PRESETS["paper"].phases
    steps = {0: (False, 0.0), 49_999: (False, 0.0), 50_000: (True, 0.0), 100_000: (True, 0.0),
             110_000: (True, 0.5), 120_000: (True, 1.0), 200_000: (True, 1.0)}  # fmt: skip
    for step, (posterior, anneal) in steps.items():
        found = phase(step / 200_000, bounds)
        assert found.posterior is posterior
        assert found.anneal == pytest.approx(anneal)
    assert phase(0.0, (0.0, 0.0, 0.0)) == (True, 1.0)
    assert phase(0.5, (0.0, 0.5, 0.5)) == (True, 1.0)


def test_share_of_truth() -> None:
    for step in (0, 900, 3_000, 6_000, 10_000):
        expected = 900 / (900 + math.exp(step / 900))
        assert share_of_truth(step / 200_000, 0.0045) == pytest.approx(expected)
    assert share_of_truth(math.log(900) * 0.1, 0.1) == pytest.approx(0.5)
    assert share_of_truth(1.0, 1e-6) < 1e-300  # no overflow


def some_segment(model: Cdna) -> tuple[Segment, State]:
    segment = take_segment(scenes(model.spec), model.spec, WINDOW)
    z = torch.randn(4, 1, 4, 4, generator=generator(7))
    return segment, ({"z": z} if model.latent else {})


@torch.no_grad()
def free(model: Cdna, segment: Segment, fixed: State, share: float, last: int) -> Tensor:
    return model.unroll(segment, fixed, torch.full((4,), last), share, generator(1))[0]


@torch.no_grad()
def test_the_truth_is_fed_by_share(sv2p: Sv2p) -> None:
    segment, fixed = some_segment(sv2p)
    forced = free(sv2p, segment, fixed, 1.0, 0)
    assert torch.equal(forced, free(sv2p, segment, fixed, 0.0, WINDOW))  # all of it is context
    alone = free(sv2p, segment, fixed, 0.0, 2)
    torch.testing.assert_close(alone[:, :3], forced[:, :3])
    assert not torch.allclose(alone[:, 3], forced[:, 3], **CLOSE)
    noisy = segment._replace(observations=segment.observations.clone())
    noisy.observations[:, 3:] = torch.rand_like(noisy.observations[:, 3:])
    assert torch.equal(free(sv2p, noisy, fixed, 0.0, 2), alone)  # the truth is not read
    # between the two, each scene tosses its own coin, as the generator says
    half = free(sv2p, segment, fixed, 0.5, 0)
    truth = torch.rand(4, WINDOW, generator=generator(1))[:, 1] < 0.5
    assert 0 < truth.sum() < 4
    fed = torch.where(
        truth[:, None, None, None], forced[:, 1], free(sv2p, segment, fixed, 0.0, 0)[:, 1]
    )
    torch.testing.assert_close(half[:, 1], fed, **CLOSE)


@pytest.mark.parametrize("kind", [Sv2p, Cdna])
@torch.no_grad()
def test_free_running_is_predict(kind: type[Cdna]) -> None:
    """What training unrolls is what the verbs show, read-outs included."""
    model: Cdna = sensitive(kind)
    batch = scenes()
    segment, fixed = some_segment(model)
    frames, (_, logits) = model.unroll(segment, fixed, torch.full((4,), 2), 0.0, generator())
    seen = Context(segment.observations[:, :3], torch.arange(3).expand(4, -1), batch.actions)
    belief = model.observe(seen)
    worlds = model.sample(belief, 1, generator())
    if isinstance(model, Sv2p):
        worlds.state.update(model.with_latents(belief.state, fixed["z"].unsqueeze(1)))
    # ``take_segment`` has no actions after the end, so only whole scenes are compared
    times = torch.arange(3, WINDOW + 1).expand(4, -1)
    answer = model.predict(worlds, Queries(times, batch.actions[:, None, 2:]))
    assert answer.observations is not None
    torch.testing.assert_close(answer.observations[::2, 0, 0], frames[::2, 2:], **CLOSE)
    going = logits[::2, 2:].sigmoid().cumprod(1)
    torch.testing.assert_close(answer.alive[::2, 0, 0], going, **CLOSE)


def test_kl_is_torchs() -> None:
    model: Sv2p = sensitive(Sv2p)
    segment, _ = some_segment(model)
    with torch.no_grad():
        fixed, kl, anneal = model._infer(segment.observations, 1.0, generator())
        mean, logvar = model.posterior(segment.observations)
    q = torch.distributions.Normal(mean, (0.5 * logvar).exp())
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    expected = torch.distributions.kl_divergence(q, prior).sum((1, 2, 3))
    torch.testing.assert_close(kl, expected)
    noise = torch.randn(mean.shape, generator=generator())
    torch.testing.assert_close(fixed["z"], q.mean + q.stddev * noise)
    assert anneal == 1.0


@torch.no_grad()
def test_the_inference_network_sees_a_fixed_number_of_frames(sv2p: Sv2p) -> None:
    segment = take_segment(scenes(), DISCRETE, WINDOW)
    cut_short = segment.observations[1::2, :4]  # these scenes end here and repeat their last frame
    for short, whole in zip(
        sv2p.posterior(cut_short), sv2p.posterior(segment.observations[1::2]), strict=True
    ):
        assert torch.equal(short, whole)
    for frames, window, steps in ((9, 20, 8), (21, 8, 8), (5, 8, 4)):
        model = Sv2p(replace(PASSIVE, window=window), replace(TINY, frames=frames))
        assert model.inference.body.get_parameter("0.weight").shape[1] == 3 * (steps + 1)
    shorter = scenes(short=1)
    model.loss(shorter, 1.0, generator())


def test_the_loss_of_each_phase() -> None:
    model: Sv2p = sensitive(Sv2p)
    batch = scenes()
    assert model.beta == pytest.approx(0.01 * 4)  # the variance of 64 px, at 32
    for progress, anneal in ((0.0, 0.0), (0.3, 0.0), (0.55, 0.5), (1.0, 1.0)):
        model.zero_grad()
        losses = model(batch, progress, generator())
        losses.total.backward()
        parts = losses.parts
        error = parts["mse"] * batch.lengths.sum() / len(batch.lengths)
        nats = anneal * parts["kl"] + parts["reward"] + parts["continue"]
        torch.testing.assert_close(losses.total.detach(), error + model.beta * nats)
        grads = [p.grad for p in model.inference.parameters()]
        learns = [bool(grad.any()) for grad in grads if grad is not None]
        assert len(learns) == len(grads)  # all of them have one, also where it is 0
        assert all(learns) if progress else not any(learns)


@torch.no_grad()
def test_nothing_behind_the_end_is_read(sv2p: Sv2p) -> None:
    batch = scenes()
    expected = sv2p.loss(batch, 0.1, generator()).total
    for row, length in enumerate(batch.lengths.tolist()):
        batch.actions[row, length:] = -1
        batch.rewards[row, length:] = 1e6
    assert torch.equal(sv2p.loss(batch, 0.1, generator()).total, expected)


@pytest.mark.parametrize("kind", [Sv2p, Cdna])
@pytest.mark.parametrize("spec", [PASSIVE, DISCRETE], ids=["passive", "discrete"])
def test_loss_reaches_every_parameter(kind: type[Cdna], spec: Spec) -> None:
    torch.manual_seed(0)
    model = kind(spec, replace(TINY, past=0))
    losses = model(scenes(spec), 1.0, generator())
    losses.total.backward()
    assert all(torch.isfinite(part) for part in losses.parts.values())
    assert float(losses.parts["kl"]) > 0 or not model.stochastic
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name
