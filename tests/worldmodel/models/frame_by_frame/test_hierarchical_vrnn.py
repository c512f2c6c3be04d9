"""The hierarchical VRNN against its layer tables (seed 002, 4.B), its densities and its bound."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from frame_fixtures import scenes
from scenes import DISCRETE, PASSIVE, WINDOW, context, generator, random_actions
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from worldmodel import Queries, Spec
from worldmodel.models.frame_by_frame.hierarchical_vrnn import (
    PRESETS,
    HierarchicalVrnn,
    HierarchicalVrnnConfig,
)
from worldmodel.models.frame_by_frame.hierarchical_vrnn_nets import Hierarchy

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
TINY = replace(PRESETS["small"], channels=(8, 8, 8, 8), latents=(8, 8, 8), head=16, frames=9)
LARGE = replace(PASSIVE, observation=(3, 64, 64))


def fresh(spec: Spec = DISCRETE, config: HierarchicalVrnnConfig = TINY) -> HierarchicalVrnn:
    torch.manual_seed(0)
    return HierarchicalVrnn(spec, config)


@pytest.fixture(scope="module")
def model() -> HierarchicalVrnn:
    return fresh().eval()


# -- the layer tables -----------------------------------------------------------------------------


def conv(inputs: int, outputs: int, kernel: int, norm: bool = True) -> int:
    return inputs * outputs * kernel**2 + outputs + (2 * outputs if norm else 0)


def block(inputs: int, outputs: int) -> int:
    shortcut = 0 if inputs == outputs else conv(inputs, outputs, 1, norm=False)
    return conv(inputs, outputs, 3) + conv(outputs, outputs, 3) + shortcut


def memory(inputs: int, hidden: int, seen: int, kernel: int) -> int:
    """The ConvLSTM, and the CNN that begins it (table 4.7)."""
    return (
        conv(inputs + hidden, 4 * hidden, kernel) + conv(seen, seen, 1) + conv(seen, 2 * hidden, 1)
    )


def level(shown: int, above: int, latent: int, seen: int, kernel: int) -> int:
    enter, out = conv(shown + above, latent, 1), conv(latent, 2 * latent, 1)
    return enter + memory(latent, latent, seen, kernel) + out


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def paper(spec: Spec) -> HierarchicalVrnn:
    with torch.device("meta"):  # counting needs no gigabyte
        return HierarchicalVrnn(spec, PRESETS["paper"])


def test_paper_preset_has_the_tables_parameters() -> None:
    model = paper(LARGE)
    stages = sum(block(a, b) + block(b, b) for a, b in pairwise((64, 128, 256, 512)))
    last = conv(512, 512, 4) + conv(512, 512, 1) + conv(512, 512, 4, norm=False)
    top = last + 2 * conv(512, 512, 1)
    assert parameters(model.encoder) == conv(3, 64, 3, norm=False) + block(64, 64) + stages + top

    seen = (512, 512, 128)  # the encoder's maps at 1x1, 8x8 and 32x32 (table 4.4)
    shapes = ((0, 128, 1), (128, 512, 3), (640, 512, 3))  # latents above, own, kernel (table 4.6)
    for part, shown in ((model.prior, 1), (model.posterior, 2)):
        expected = sum(
            level(shown * s, above, own, s, kernel)
            for s, (above, own, kernel) in zip(seen, shapes, strict=True)
        )
        assert parameters(part) == expected

    widths, joins = (512, 512, 512, 256, 128, 64), (128, 0, 512, 0, 512, 0)  # table 4.5
    expected = sum(
        memory(w, w, w, 1 if place == 0 else 3) + (conv(w + z, w, 1) if z else 0)
        for place, (w, z) in enumerate(zip(widths, joins, strict=True))
    )
    expected += sum(conv(b, a, 4) for b, a in pairwise(widths))
    assert parameters(model.decoder) == expected
    assert parameters(model.pixels) == conv(64, 64, 3) + conv(64, 3, 3, norm=False)
    assert parameters(model.readout) == (512 + 512 + 128) * 256 + 256 + 256 * 2 + 2


def test_actions_join_every_level_and_the_decoder() -> None:
    one, other = fresh(DISCRETE), fresh(PASSIVE)
    for more, less in ((one.prior, other.prior), (one.posterior, other.posterior)):
        assert parameters(more) - parameters(less) == 3 * 3 * 8  # features, levels, channels
    assert parameters(one.decoder) - parameters(other.decoder) == 3 * 8


@pytest.mark.parametrize(("size", "sides"), [(64, (1, 8, 32)), (32, (1, 4, 16))])
def test_latent_sizes(size: int, sides: tuple[int, ...]) -> None:
    model = paper(replace(PASSIVE, observation=(3, size, size)))
    assert model.levels == sides
    assert model.sizes == [128, 512 * sides[1] ** 2, 512 * sides[2] ** 2]
    assert model.noise_shape == (sum(model.sizes),)


@torch.no_grad()
@pytest.mark.parametrize("size", [64, 32])
@pytest.mark.parametrize("sides", [(1,), (1, 8), (1, 16, 64)])
def test_maps_fit(size: int, sides: tuple[int, ...]) -> None:
    """Any levels at both sizes; a model without a hierarchy is the text's w/o Hier."""
    config = replace(TINY, levels=sides, latents=(8,) * len(sides))
    model = fresh(replace(PASSIVE, observation=(1, size, size)), config).eval()
    maps = model.encoder(torch.rand(2, 1, size, size, generator=generator()))
    every = [1, 4, *(side for side in (8, 16, 32, 64) if side <= size)]
    assert [m.shape for m in maps] == [(2, 8, side, side) for side in every]
    worlds = model.sample(model.observe(context(model.spec)), 2, generator())
    seen = model.predict(worlds, Queries(torch.tensor([[3, 4]] * 2))).observations
    assert seen is not None and seen.shape == (2, 2, 1, 2, 1, size, size)


@pytest.mark.parametrize("size", [(48, 48), (64, 32), (128, 128), (16, 16)])
def test_sizes_that_do_not_fit(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"^observation: .* got {size[0]}x{size[1]}"):
        fresh(replace(PASSIVE, observation=(3, *size)))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"channels": (8, 8, 8)}, "channels"),
        ({"channels": (8, 8, 8, 10)}, "channels"),
        ({"channels": (8, 8, 8, 4)}, "channels"),
        ({"latents": (8, 4, 8)}, "latents"),
        ({"latents": (8, 8)}, "levels, latents"),
        ({"levels": (1, 8, 8)}, "levels, latents"),
        ({"levels": (1, 4, 32)}, "levels"),
        ({"levels": (1, 32, 8)}, "levels"),
        ({"levels": (8, 16, 32)}, "levels"),
        ({"levels": (), "latents": ()}, "levels"),
        ({"groups": 0}, "groups"),
        ({"head": 0}, "head"),
        ({"warm_up": 1.5}, "warm_up"),
        ({"frames": 1}, "frames"),
        ({"variance": 0.0}, "variance"),
        ({"reward_variance": -1.0}, "reward_variance"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate_end": 0.0}, "learning_rate_end"),
    ],
)
def test_bad_config(change: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected .* got"):
        replace(TINY, **change)


# -- the hierarchy --------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("name", ["prior", "posterior"])
@pytest.mark.parametrize("moved", [0, 1, 2])
def test_a_latent_reaches_all_levels_below_and_none_above(
    model: HierarchicalVrnn, name: str, moved: int
) -> None:
    """Directly: with the levels between held at their values, the link is still there."""
    part: Hierarchy = getattr(model, name)
    maps = [torch.rand(2, 8, side, side, generator=generator(side)) for side in model.levels]
    shown = [torch.cat([m, m], 1) for m in maps] if name == "posterior" else maps
    z = [torch.randn(2, 8, side, side, generator=generator(side)) for side in model.levels]
    other = [value + 1 if at == moved else value for at, value in enumerate(z)]
    actions, state = torch.zeros(2, 3), part.start(maps)
    one, two = (
        part(shown, actions, state, lambda at, mean, logvar, held=held: held[at])[0]
        for held in (z, other)
    )
    for at, ((mean, logvar), (mean_2, logvar_2)) in enumerate(zip(one, two, strict=True)):
        assert torch.equal(mean, mean_2) == (at <= moved)
        assert torch.equal(logvar, logvar_2) == (at <= moved)


@torch.no_grad()
def test_each_latent_reaches_the_frame(model: HierarchicalVrnn) -> None:
    belief = model.observe(context(DISCRETE))
    own = {name: value for name, value in belief.state.items() if name != "observation"}
    noise = torch.zeros(2, *model.noise_shape)
    state, *_ = model._step(own, torch.zeros(2, 3), noise)
    for part in model._split(noise):  # views
        part += 1
        moved, *_ = model._step(own, torch.zeros(2, 3), noise)
        part -= 1
        assert (model._decode(moved) - model._decode(state)).abs().max() > 1e-4


@torch.no_grad()
def test_kl_of_each_level(model: HierarchicalVrnn, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[Any, Any]] = []
    forced = model._forced_step

    def spy(*args: Any) -> Any:
        q, p, state = forced(*args)
        found.append((q, p))
        return q, p, state

    monkeypatch.setattr(model, "_forced_step", spy)
    batch = scenes()
    losses = model.loss(batch, 1.0, generator())
    assert len(found) == WINDOW
    every = torch.zeros(WINDOW)
    for at in range(3):
        total = 0.0
        for step, (q, p) in enumerate(found):
            (q_mean, q_log), (p_mean, p_log) = q[at], p[at]
            q_at, p_at = Normal(q_mean, (q_log / 2).exp()), Normal(p_mean, (p_log / 2).exp())
            nats = kl_divergence(q_at, p_at).flatten(1).sum(1)
            valid = step < batch.lengths
            total += float(nats[valid].sum()) / 4
            every[step] += nats[valid].mean()
        assert float(losses.parts[f"kl_level{at}"]) == pytest.approx(total, rel=1e-4)
    levels = sum(float(losses.parts[f"kl_level{at}"]) for at in range(3))
    assert float(losses.parts["kl"]) == pytest.approx(levels, rel=1e-4)
    torch.testing.assert_close(losses.curves["kl"], every, rtol=1e-4, atol=1e-4)


# -- one world ------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_belief_is_teacher_forcing_with_means(
    model: HierarchicalVrnn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training's walk without noise ends in the state that ``observe`` gives."""
    given = context(DISCRETE, frames=5)
    states: list[dict[str, Tensor]] = []
    forced = model._forced_step

    def spy(*args: Any) -> Any:
        answer = forced(*args)
        states.append(answer[2])
        return answer

    monkeypatch.setattr(model, "_forced_step", spy)
    assert given.actions is not None
    actions = DISCRETE.action.encode(given.actions)
    drawn, _, _ = model._infer(given.observations, actions, torch.zeros(2, 4, *model.noise_shape))
    last = states[-1]
    belief = model.observe(given).state
    own = {name for name in last if not name.startswith("posterior")}
    assert set(belief) == own | {"map0", "map1", "map2", "observation"}
    for name in own:
        torch.testing.assert_close(belief[name], last[name], **CLOSE)
    torch.testing.assert_close(drawn[:, -1], belief["decoder32_h"], **CLOSE)
    maps = model.encoder(given.observations[:, -1])
    for name, place in (("map0", 0), ("map1", 1), ("map2", 3)):
        torch.testing.assert_close(belief[name], maps[place], **CLOSE)


@torch.no_grad()
def test_teacher_forcing_with_the_prior_is_a_rollout() -> None:
    """If the posterior were the prior, training would see the frames that the world shows."""
    model = fresh().eval()
    given = context(DISCRETE, frames=1)
    plan = random_actions(DISCRETE, 2, 1, 4)
    assert plan is not None
    worlds = model.sample(model.observe(given), 1, generator())
    times = torch.arange(5).expand(2, -1)
    answer = model.predict(worlds, Queries(times, plan))
    assert answer.observations is not None
    frames, noise = answer.observations[:, 0, 0], worlds.state["noise"][:, 0, :4]

    class AsPrior(nn.Module):
        def start(self, seen: Any) -> dict[str, Tensor]:
            return {f"posterior{name[5:]}": v for name, v in model.prior.start(seen).items()}

        def forward(self, shown: Any, actions: Any, state: Any, pick: Any) -> Any:
            half = [both.chunk(2, 1)[0] for both in shown]
            q, z, after = model.prior(half, actions, state, pick)
            return q, z, {f"posterior{name[5:]}": v for name, v in after.items()}

    model.posterior = AsPrior()
    actions = DISCRETE.action.encode(plan[:, 0])
    drawn, pooled, kl = model._infer(frames.clamp(0, 1), actions, noise)
    shown = model.pixels(drawn.flatten(0, 1)).unflatten(0, (2, 4))
    torch.testing.assert_close(shown, frames[:, 1:], **CLOSE)
    logits = model.readout(pooled)[..., 1]
    torch.testing.assert_close(logits.sigmoid().cumprod(1), answer.alive[:, 0, 0, 1:], **CLOSE)
    assert kl.abs().max() < 1e-4


@torch.no_grad()
def test_same_world_same_frames(model: HierarchicalVrnn) -> None:
    worlds = model.sample(model.observe(context(DISCRETE)), 3, generator())
    plans = random_actions(DISCRETE, 2, 2, 6, seed=3)
    times = torch.tensor([[4, 6, 8]] * 2)
    one = model.predict(worlds, Queries(times, plans)).observations
    two = model.predict(worlds, Queries(times.flip(1), plans)).observations
    assert one is not None and two is not None
    torch.testing.assert_close(one.flip(3), two, **CLOSE)
    assert (one[:, 0] - one[:, 1]).abs().max() > 1e-3  # worlds differ
    assert (one[:, :, 0] - one[:, :, 1]).abs().max() > 1e-3  # and plans matter


@torch.no_grad()
def test_what_is_fed_back_is_a_frame(model: HierarchicalVrnn) -> None:
    """The output is linear; the encoder reads what a frame can hold."""
    state = model.observe(context(DISCRETE)).state
    wild = 4 * torch.randn(2, 3, 32, 32, generator=generator())
    one, two = ({**state, **model._feed_back(state, f)} for f in (wild, wild.clamp(0, 1)))
    assert all(torch.equal(one[name], two[name]) for name in one) and set(one) == set(state)


@contextmanager
def counted(model: HierarchicalVrnn) -> Iterator[Counter[str]]:
    calls: Counter[str] = Counter()
    names = ("encoder", "pixels", "posterior", "prior", "decoder")
    handles = [
        getattr(model, name).register_forward_hook(lambda *_, name=name: calls.update([name]))
        for name in names
    ]
    yield calls
    for handle in handles:
        handle.remove()


@torch.no_grad()
@pytest.mark.parametrize(("frames", "decoded"), [(True, 5), (False, 4)])
def test_every_frame_between_is_decoded(
    model: HierarchicalVrnn, frames: bool, decoded: int
) -> None:
    worlds = model.sample(model.observe(context(DISCRETE)), 2, generator())
    plans = random_actions(DISCRETE, 2, 2, 5)
    with counted(model) as calls:
        model.predict(worlds, Queries(torch.tensor([[7], [7]]), plans), frames)
    assert calls == {"encoder": 4, "pixels": decoded, "prior": 5, "decoder": 5}


@torch.no_grad()
def test_conditioning_and_training_call_coders_once(model: HierarchicalVrnn) -> None:
    with counted(model) as calls:
        model.observe(context(DISCRETE, frames=4))
    assert calls == {"encoder": 1, "posterior": 3, "prior": 3, "decoder": 3}
    with counted(model) as calls:
        model.loss(scenes(), 1.0, generator())
    assert calls == {"encoder": 1, "pixels": 1, "posterior": 8, "prior": 8, "decoder": 8}


# -- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "progress", "beta"),
    [(0.2, 0.0, 0.0), (0.2, 0.05, 0.25), (0.2, 0.2, 1.0), (0.2, 1.0, 1.0), (1.0, 0.5, 0.5),
     (0.0, 0.0, 1.0)],
)  # fmt: skip
def test_warm_up(share: float, progress: float, beta: float) -> None:
    assert replace(TINY, warm_up=share).beta(progress) == pytest.approx(beta)


@torch.no_grad()
@pytest.mark.parametrize("progress", [0.0, 0.1, 1.0])
def test_loss_is_the_bound(model: HierarchicalVrnn, progress: float) -> None:
    """Squared errors over 2 * variance, beta on the KL alone; nothing behind the end is read."""
    batch = scenes()
    losses = model.loss(batch, progress, generator())
    parts = losses.parts
    squares = parts["mse"] * 3 * 32 * 32 * batch.lengths.sum() / len(batch.lengths)
    beta = min(1.0, progress / 0.2)
    expected = squares / (2 * 0.1) + beta * parts["kl"] + parts["reward"] + parts["continue"]
    torch.testing.assert_close(losses.total, expected)
    for row, length in enumerate(batch.lengths.tolist()):
        batch.frames[row, length + 1 :] = 255
        batch.actions[row, length:] = -1
        batch.rewards[row, length:] = 1e6
    torch.testing.assert_close(model.loss(batch, progress, generator()).total, losses.total)


@pytest.mark.parametrize("spec", [PASSIVE, DISCRETE], ids=["passive", "discrete"])
def test_loss_reaches_every_parameter(spec: Spec) -> None:
    model = fresh(spec)
    losses = model(scenes(spec), 1.0, generator())
    losses.total.backward()
    for value in (*losses.parts.values(), *losses.curves.values()):
        assert torch.isfinite(value).all() and not value.requires_grad
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_fewer_frames_are_trained_on() -> None:
    model = fresh(config=replace(TINY, frames=4))
    losses = model(scenes(), 1.0, generator())
    assert losses.curves["kl"].shape == losses.curves["mse"].shape == (3,)
