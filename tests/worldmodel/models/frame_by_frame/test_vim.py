"""VIM: the thesis' tables, the selection of modules, the bound, and what slots see."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from frame_fixtures import imagine, look, plans, squares
from scenes import DISCRETE, PASSIVE, WINDOW, context, generator
from torch import Tensor, nn
from torch.distributions import Categorical, Gumbel, kl_divergence

from worldmodel import Spec
from worldmodel.models.frame_by_frame import vim_nets
from worldmodel.models.frame_by_frame.vim import Vim
from worldmodel.models.frame_by_frame.vim_config import PRESETS, VimConfig
from worldmodel.models.frame_by_frame.vim_nets import Slots
from worldmodel.models.layers.slot_attention import Focus, GridPosition, SlotAttention, even_places

TINY = VimConfig(
    slots=3, modules=4, size=16, channels=8, kernel=3, coarse=4, hidden=16, candidate=16, width=16,
    pretraining=0.25, first_frames=3, frames=WINDOW,
)  # fmt: skip


PLACED = replace(TINY, focus=0.35)


def made(config: VimConfig = TINY, spec: Spec = DISCRETE) -> Vim:
    torch.manual_seed(0)
    return Vim(spec, config).eval()


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters())


def linear(*widths: int) -> int:
    return sum(a * b + b for a, b in pairwise(widths))


# -- the tables -----------------------------------------------------------------------------------


def test_paper_preset_has_the_tables_parameters() -> None:
    """Tables 8.1 to 8.3 and 8.A.1; positions are two linear maps of 18 numbers."""
    model = Vim(PASSIVE, PRESETS["paper"])
    position, first, inner = 2 * linear(18, 64), 3 * 64 * 25 + 64, 64 * 64 * 25 + 64
    norm = 2 * 64
    assert parameters(model.encoder) == first + 3 * inner + position + norm + linear(64, 64, 64)
    assert parameters(model.decoder) == position + 3 * inner + 64 * 4 * 25 + 4
    each = linear(64, 128, 128, 128, 64)
    queries = linear(128, 64, 64) + 2 * linear(64, 64, 64)
    assert parameters(model.transition) == 5 * each + 2 * 128 + queries
    assert parameters(model.prior) == linear(64, 64, 128)
    assert parameters(model.posterior) == linear(128, 64, 128)
    gru = 2 * (3 * 64 * 64 + 3 * 64)
    mlp = norm + linear(64, 128, 64)
    assert parameters(model.attention) == 2 * 64 + 2 * norm + 3 * 64 * 64 + gru + mlp


@pytest.mark.parametrize("coarse", [1, 2, 4])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 24)])
def test_shapes(coarse: int, height: int, width: int) -> None:
    spec = replace(DISCRETE, observation=(1, height, width))
    model = made(replace(TINY, coarse=coarse), spec)
    assert model.encoder(torch.rand(2, 1, height, width)).shape[1] == height * width // coarse**2
    colours, masks = model.decoder(Slots(torch.randn(2, 3, 16), None))
    assert colours.shape == (2, 3, 1, height, width) and masks.shape == (2, 3, 1, height, width)
    torch.testing.assert_close(masks.sum(1), torch.ones(2, 1, height, width))


def test_small_and_monolithic_have_as_many_parameters() -> None:
    """The ablation's only module has the capacity of five (section 8.5.1)."""
    small, monolithic = (
        parameters(Vim(PASSIVE, PRESETS[name]).transition) for name in ("small", "monolithic")
    )
    assert 0.95 < monolithic / small < 1.05


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"slots": 1}, "slots"),
        ({"modules": 0}, "modules"),
        ({"kernel": 4}, "kernel"),
        ({"coarse": 3}, "coarse: expected 1, 2 or 4"),
        ({"pretraining": 1.0}, "pretraining: expected at least 0 and below 1"),
        ({"temperature": 0.0}, "temperature"),
        ({"focus": -1.0}, "focus"),
        ({"focus_begin": 0.5}, "focus_begin: expected at least 1"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VimConfig(**settings)


# -- slots ----------------------------------------------------------------------------------------


def test_places_divide_their_attention_among_slots() -> None:
    """Equation 8.4: softmax over slots; then a mean over places, weighted by it."""
    torch.manual_seed(0)
    attention = SlotAttention(6, 8, 16)
    slots, features = torch.randn(2, 3, 8), torch.randn(2, 10, 6)
    keys, values = attention.project(features)
    grouped, weights = attention.group(slots, keys, values)
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 10))
    query = attention.query(attention.norm_slots(slots))
    for place in range(10):
        scores = (query[0] @ keys[0, place]) / 8**0.5
        torch.testing.assert_close(weights[0, :, place], scores.softmax(0))
    mean = (weights[0, 1, :, None] * values[0]).sum(0) / weights[0, 1].sum()
    torch.testing.assert_close(grouped[0, 1], mean)


def test_slots_have_no_order() -> None:
    torch.manual_seed(0)
    attention = SlotAttention(6, 8, 16)
    slots, features = torch.randn(2, 4, 8), torch.randn(2, 10, 6)
    order = torch.tensor([2, 0, 3, 1])
    given = attention.project(features)
    after, place = attention(*given, slots, None, None)
    assert place is None
    torch.testing.assert_close(attention(*given, slots[:, order], None, None)[0], after[:, order])


def test_positions_tell_places_apart() -> None:
    torch.manual_seed(0)
    placed = GridPosition(4, 6, 8)(torch.ones(1, 8, 4, 6)).flatten(2)[0].T
    assert torch.cdist(placed, placed).fill_diagonal_(9).min() > 1e-3


def test_positions_relative_to_a_place_move_with_it() -> None:
    """One cell to the right, and everything is seen one cell further to the left."""
    torch.manual_seed(0)
    position, ones = GridPosition(4, 8, 6), torch.ones(1, 6, 4, 8)
    middle = torch.zeros(1, 2)
    torch.testing.assert_close(position(ones, middle), position(ones))
    moved = position(ones, middle + torch.tensor([2 / 8, 0.0]))
    torch.testing.assert_close(moved[..., 1:], position(ones)[..., :-1])


def test_focus() -> None:
    """Slots prefer what is near, by a Gaussian, and move to the middle of what they win."""
    focus = Focus(2, 4, 0.5)
    begun = even_places(torch.randn(2000, 4, 8))
    assert begun.abs().max() <= 1 and begun.mean((0, 1)).abs().max() < 0.05
    assert float(begun.std(0).sub(3**-0.5).abs().max()) < 0.03  # uniform
    around = (begun[:, :, None] - begun[:, None]).abs()  # on a square whose edges meet
    apart = torch.minimum(around, 2 - around).norm(dim=-1) + 9 * torch.eye(4)
    assert float(apart.min()) > 0.6
    places = torch.tensor([[-0.75, -0.5], [0.25, 0.5]])[None]
    nearness = focus.near(places)
    torch.testing.assert_close(nearness[0].argmax(-1), torch.tensor([0, 6]))
    torch.testing.assert_close(nearness[0, 0, :2], torch.tensor([1.0, 1 - 0.5**2 / (2 * 0.25)]))
    narrowing = Focus(2, 4, 0.5, 1.0)
    assert torch.equal(narrowing.near(places), nearness)
    wide = narrowing.near(places, 0.0)
    torch.testing.assert_close(1 - wide, (1 - nearness) / 4)
    torch.testing.assert_close(narrowing.near(places, wider=2.0), wide)
    torch.testing.assert_close(narrowing.near(places, 0.0, wider=3.0), wide)
    won = nn.functional.one_hot(torch.tensor([[0, 6]]), 8).float()
    torch.testing.assert_close(focus.middle(won), places)


def test_slots_with_places() -> None:
    """All but the last have one, which is inside of the frame."""
    model = made(PLACED)
    belief = model.observe(context(DISCRETE, frames=3))
    assert belief.state["slots"].shape == (2, 3, 16) and belief.state["place"].shape == (2, 2, 2)
    assert model.observe(context(DISCRETE, frames=1)).state["place"].abs().max() <= 1


def test_a_place_moves_what_is_painted() -> None:
    """By whole cells of the coarse grid; nothing is painted far from a slot's place."""
    model = made(PLACED)
    content, cell = torch.randn(1, 3, 16), 2 * 4 / 32
    place = torch.full((1, 2, 2), -0.25)
    there = place + torch.tensor([cell, 0.0])
    one, other = (model.decoder(Slots(content, p))[0] for p in (place, there))
    # away from the frame's edge, which the convolutions feel
    torch.testing.assert_close(one[:, :2, :, :, 13:15], other[:, :2, :, :, 17:19])
    masks = model.decoder(Slots(content, place))[1]
    assert float(masks[:, :2, :, -4:, -4:].detach().max()) < 0.2


def test_slots_look_and_paint_further_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """From ``focus_begin`` times as far as usual to usual, as the pretraining ends."""
    model = made(replace(PLACED, pretraining=0.5, focus_begin=3.0), PASSIVE).train()
    usual, used = Focus.near, set()

    def near(focus: Focus, middle: Tensor, progress: float = 1.0, wider: float = 1.0) -> Tensor:
        used.add(wider)
        return usual(focus, middle, progress, wider)

    monkeypatch.setattr(Focus, "near", near)
    for progress, expected in ((0.0, 3.0), (0.25, 2.0), (0.5, 1.0)):
        used.clear()
        model(squares(), progress, generator())
        assert used == {expected}


def test_what_moves_a_slot_moves_its_place() -> None:
    model = made(PLACED)
    assert model.shift is not None
    nn.init.normal_(model.shift.weight)
    slots = Slots(torch.randn(2, 3, 16), torch.zeros(2, 2, 2))
    z, change = torch.randn(2, 2, 3, 16)
    moved = model._move(slots, z, change)
    torch.testing.assert_close(moved.place, model.shift((z + change)[:, :-1]))
    torch.testing.assert_close(moved.content, model._move(Slots(slots.content, None), z, change)[0])


def test_slots_begin_by_staying_what_they_are() -> None:
    """Noise that moved them as far as balls go was what kept VIM from learning moves."""
    model = made(PLACED)
    slots, place = model.norm(torch.randn(2, 3, 16)), torch.zeros(2, 2, 2)
    noise = torch.randn(2, *model.noise_shape, generator=generator())
    after = model._step({"slots": slots, "place": place}, plans_features(model), noise)[0]
    assert float((after["slots"] - slots).detach().abs().mean()) < 0.25
    assert float(after["place"].detach().abs().max()) < 0.25


def test_places_are_learned() -> None:
    """Gradients reach the map that moves places, and what is seen relative to them."""
    model = made(replace(PLACED, pretraining=0.0), PASSIVE).train()
    model(squares(), 1.0, generator()).total.backward()
    grads = {name: weights.grad for name, weights in model.named_parameters()}
    seen = grads["posterior.net.0.weight"]
    assert seen is not None
    for grad in (grads["shift.weight"], grads["background"], seen[:, -2:]):
        assert grad is not None and float(grad.abs().sum()) > 0


def test_slots_are_composed_by_their_masks() -> None:
    colours = torch.tensor([0.2, 0.8])[None, :, None, None, None].expand(1, 2, 3, 4, 4)
    masks = torch.tensor([0.25, 0.75])[None, :, None, None, None].expand(1, 2, 1, 4, 4)
    torch.testing.assert_close(vim_nets.compose(colours, masks), torch.full((1, 3, 4, 4), 0.65))


# -- modules --------------------------------------------------------------------------------------


def test_modules_are_perceptrons_of_their_own() -> None:
    torch.manual_seed(0)
    layer = vim_nets.ParallelLinear(3, 5, 4)
    x = torch.randn(7, 5)
    for m in range(3):
        expected = x @ layer.weight[m] + layer.bias[m]
        torch.testing.assert_close(layer(x)[:, m], expected)
        torch.testing.assert_close(layer(torch.stack([x] * 3, 1))[:, m], expected)


def test_gumbel_noise_samples_the_categorical() -> None:
    """argmax(logits + gumbel) has the probabilities of the logits."""
    noise = torch.randn(200_000, 3, generator=generator())
    standard = Gumbel(torch.zeros(()), torch.ones(()))
    drawn = vim_nets.gumbel(noise)
    assert float((drawn.mean() - standard.mean).abs()) < 0.01
    assert float((drawn.std() - standard.stddev).abs()) < 0.01
    logits = torch.tensor([0.5, -1.0, 1.0])
    shares = vim_nets.one_hot(logits + drawn).mean(0)
    torch.testing.assert_close(shares, logits.softmax(0), atol=5e-3, rtol=0)


def test_kl_of_modules() -> None:
    torch.manual_seed(0)
    q, p = torch.randn(2, 3, 5), torch.randn(2, 3, 5)
    expected = kl_divergence(Categorical(logits=q), Categorical(logits=p))
    torch.testing.assert_close(vim_nets.categorical_kl(q, p), expected)


def test_a_slot_is_moved_by_one_module() -> None:
    """h' = LayerNorm(h + z + f_r(h)), z by the prior of f_r(h), for each slot by itself."""
    model = made()
    slots, actions = torch.randn(2, 3, 16), plans_features(model)
    noise = torch.randn(2, *model.noise_shape)
    after = model._step({"slots": slots}, actions, noise)[0]["slots"]
    inputs = vim_nets.with_actions(Slots(slots, None), actions)
    candidates = model.transition.propose(inputs)
    logits = model.transition.prior(candidates, inputs)
    chosen = (logits + vim_nets.gumbel(noise[:, 0, :, :4])).argmax(-1)
    for row in range(2):
        for k in range(3):
            change = candidates.updates[row, k, chosen[row, k]]
            mean, logvar = model.prior(change)
            z = mean + (0.5 * logvar).exp() * noise[row, 0, k, 4:]
            torch.testing.assert_close(after[row, k], model.norm(slots[row, k] + z + change))


def plans_features(model: Vim) -> Tensor:
    return model.spec.action.encode(plans(2, 1)[:, 0])


def test_selections_repeat_the_step() -> None:
    """VIM-2 takes two steps of VIM-1 between two frames, under the same action."""
    one, two = made(), made(replace(TINY, selections=2))
    slots, actions = torch.randn(2, 3, 16), plans_features(one)
    noise = torch.randn(2, *two.noise_shape)
    state = {"slots": slots}
    for index in range(2):
        state = one._step(state, actions, noise[:, index : index + 1])[0]
    torch.testing.assert_close(two._step({"slots": slots}, actions, noise)[0], state)


def test_objects_do_not_interact() -> None:
    """Modules are unary: what becomes of a slot does not depend on the others."""
    model = made()
    slots, noise = torch.randn(2, 3, 16), torch.randn(2, *model.noise_shape)
    actions = plans_features(model)
    other = slots.clone()
    other[:, 1] += 1
    one, changed = (model._step({"slots": s}, actions, noise)[0]["slots"] for s in (slots, other))
    assert torch.equal(one[:, [0, 2]], changed[:, [0, 2]])
    assert not torch.allclose(one[:, 1], changed[:, 1])


# -- rollouts -------------------------------------------------------------------------------------


def test_frames_are_not_needed_to_go_on() -> None:
    """A state-space model: a far frame costs one decoding."""
    model = made()
    worlds = imagine(model)
    calls: list[int] = []
    model.decoder.register_forward_hook(lambda *_: calls.append(1))
    look(model, worlds, [WINDOW], plans(2, 1, WINDOW))
    assert calls == [1]


def test_track_is_what_a_belief_is_made_of() -> None:
    model = made()
    given = context(DISCRETE, frames=4)
    belief = model.observe(given)
    assert given.actions is not None
    track = model.track(given.observations, given.actions)
    assert track.masks.shape == (2, 4, 3, 32, 32) and track.modules.shape == (2, 3, 1, 3)
    painted = model._decode({"slots": belief.state["slots"]})
    torch.testing.assert_close(track.frames[:, -1], painted)
    torch.testing.assert_close(track.masks.sum(2), torch.ones(2, 4, 32, 32))
    composed = (track.masks.unsqueeze(3) * track.colours).sum(2).clamp(0, 1)
    torch.testing.assert_close(track.frames, composed)


def test_track_takes_other_selections() -> None:
    model = made(spec=PASSIVE)
    frames = context(PASSIVE, frames=3).observations
    assert model.track(frames, selections=8).modules.shape == (2, 2, 8, 3)
    assert model.track(frames[:, :1]).modules.shape == (2, 0, 1, 3)
    with pytest.raises(ValueError, match="selections: expected at least 1"):
        model.track(frames, selections=0)
    with pytest.raises(ValueError, match="frames: expected \\(B, T, C, H, W\\)"):
        model.track(frames[0])


# -- training -------------------------------------------------------------------------------------


def test_rollouts_grow() -> None:
    """Single frames for 100 of 420 epochs, then 6 frames, two more every 40 epochs, up to 20."""
    config = PRESETS["paper"]
    assert config.length(0.0) == config.length(0.239) == 1
    lengths = [config.length(0.2401 + 0.76 * k / 8) for k in range(8)]
    assert lengths == [6, 8, 10, 12, 14, 16, 18, 20]
    assert config.length(1.0) == 20
    assert replace(config, first_frames=5, frames=8).length(1.0) == 8
    assert replace(config, pretraining=0.0, first_frames=8, frames=4).length(0.0) == 8


def test_learning_rate_warms_up_and_decays() -> None:
    model = made(replace(TINY, warm_up=0.1, learning_rate=1e-3, learning_rate_end=1e-5))
    rates = [model.learning_rate(done, 100) for done in range(101)]
    assert rates[0] > 0 and rates[5] == pytest.approx(5e-4) and rates[10] == pytest.approx(1e-3)
    assert rates[55] == pytest.approx(1e-4) and rates[100] == pytest.approx(1e-5)


def test_the_bound() -> None:
    """The loss is pixels over twice the variance, and both divergences, over the whole rollout."""
    model = made(replace(TINY, pretraining=0.0), PASSIVE)
    losses = model(squares(), 1.0, generator())
    parts = losses.parts
    assert 0 <= float(parts["kl_modules"]) <= float(parts["kl"])
    one, ten = (made(replace(TINY, pretraining=0.0, pixel_variance=v), PASSIVE) for v in (0.1, 1.0))
    near, far = one(squares(), 1.0, generator()), ten(squares(), 1.0, generator())
    torch.testing.assert_close(near.parts["nll"], 10 * far.parts["nll"])
    torch.testing.assert_close(near.parts["kl"], far.parts["kl"])


def test_pretraining_moves_nothing_but_slots_and_decoder() -> None:
    model = made().train()
    model(squares(), 0.1, generator()).total.backward()
    for name, weights in model.named_parameters():
        if name.startswith(("encoder", "attention", "norm", "decoder")):
            assert weights.grad is not None and float(weights.grad.abs().sum()) > 0, name
        else:  # nor a gradient of 0: Adam would count such steps, and then take too long ones
            assert weights.grad is None, name


def test_modules_are_soft_in_training_and_hard_in_tests() -> None:
    model = made()
    logits, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    soft, hard = model.train()._choose(logits, noise), model.eval()._choose(logits, noise)
    torch.testing.assert_close(soft, (logits + vim_nets.gumbel(noise)).softmax(-1))
    assert torch.equal(hard, vim_nets.one_hot(logits + vim_nets.gumbel(noise)))
    assert torch.equal(model._choose(logits, None), vim_nets.one_hot(logits))
