"""The JUMP that copies: what it copies, its prior, its transformer over plans, its settings."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from scenes import CAMERA, DISCRETE, PASSIVE, VECTOR, context, fresh, generator, random_actions
from torch import Tensor

import worldmodel
from worldmodel import ActionSpec, Queries, Spec, WorldModel, fit, make, preset, testing
from worldmodel.models.jumpy.copying import CopyingConfig, CopyingJump
from worldmodel.models.jumpy.copying.cells import Grid
from worldmodel.models.jumpy.copying.flow import FlowPrior
from worldmodel.models.jumpy.copying.memory import FrameMemory
from worldmodel.models.jumpy.copying.plan import PlanTransformer
from worldmodel.models.jumpy.copying.renderer import CopyingRenderer, Sources
from worldmodel.models.jumpy.rectified_flow import LatentReplay, set_flow_steps
from worldmodel.models.jumpy.training_draws import draw_distinct
from worldmodel.training.monitor import Progress

TINY = replace(
    preset("jump", "small"), width=16, heads=2, key_features=4, content=3, latent=2, flow_width=16,
    flow_blocks=1, plan_blocks=2,
)  # fmt: skip
GRID = Grid(16, 32, 4)


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed))


@pytest.fixture(autouse=True)
def _same_weights() -> None:
    torch.manual_seed(0)


def test_cells_are_grouped_by_their_position() -> None:
    x = torch.arange(32.0).view(1, 32, 1)  # 4 x 8 cells
    groups = GRID.group(x)
    assert groups.shape == (1, 8, 4)
    assert groups[0, 0].tolist() == [0, 1, 8, 9] and groups[0, 5].tolist() == [18, 19, 26, 27]
    wide = seeded(3, 32, 5)
    assert torch.equal(GRID.ungroup(GRID.group(wide)), wide)
    assert GRID.picture(x)[0, 0, 1].tolist() == list(range(8, 16))


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [(16, 16, 4), (32, 32, 4), (48, 48, 4), (64, 64, 8), (96, 96, 8), (128, 64, 16), (56, 56, 4)],
)
def test_cells_grow_with_the_frame(height: int, width: int, side: int) -> None:
    assert CopyingConfig().cell_side(height, width) == side


@pytest.mark.parametrize("size", [16, 64])
def test_sizes(size: int) -> None:
    """Frames need not be square, and may have one channel."""
    spec = Spec((1, size, size + 16), ActionSpec("discrete", (), (3,)), 8)
    for check in (testing.checks.check_answers, testing.checks.check_training):
        check(make("jump", spec, TINY).eval())


def test_memory_is_a_sum_that_a_time_reads() -> None:
    memory = FrameMemory(3, GRID, 8, TINY)
    frames, times = (
        torch.rand(2, 3, 3, 16, 32, generator=generator()),
        torch.tensor([[0, 4, 7]] * 2),
    )
    mask = torch.tensor([[True, True, False], [True, True, True]])
    with torch.no_grad():
        r = memory(frames, times, mask)
        by_hand = torch.zeros(4, 32, 3)
        for j in range(2):  # the third is masked
            key = memory.write_key(memory.time(times[0, j]))
            by_hand += key[:, None, None] * memory.stem(frames[:1, j])[0]
        answer = memory.read(r, times[:, :1])
        key = memory.read_key(memory.time(times[0, 0]))
    torch.testing.assert_close(r[0], by_hand)
    torch.testing.assert_close(answer[0, 0], (key[:, None, None] * by_hand).sum(0))


@torch.no_grad()
def test_a_shut_gate_copies() -> None:
    """With gate and cover shut, a frame is the still picture; with the cover open, what moves is
    the latest frame's, shifted.
    """
    renderer = CopyingRenderer(3, GRID, 8, TINY)
    last = renderer.paint[-2]
    last.weight.zero_()
    last.bias.zero_()
    last.bias[12:] = -60.0  # of 3 colours and a gate, 4 pixels each
    still, latest = torch.rand(2, 1, 3, 16, 32, generator=generator())
    mover = torch.zeros(1, 1, 16, 32)
    mover[..., 4:8, 8:12] = 1.0
    inputs = (seeded(1, 32, 16), seeded(1, 1, 32, 3), torch.tensor([[3]]), seeded(1, 1, 16))
    renderer.cover.bias.fill_(-60.0)
    renderer.cover.weight.zero_()
    frames = renderer(Sources(still, latest, mover), *inputs)
    torch.testing.assert_close(frames[0, 0], still[0])
    renderer.cover.bias.fill_(60.0)
    renderer.place.weight.zero_()
    x, y = 10 / 32 + 8 / 32, 6 / 16 + 4 / 16  # where the mover's centre is, and 8 and 4 pixels on
    renderer.place.bias.copy_(torch.tensor([x, y]).logit() / 2)
    frames = renderer(Sources(still, latest, mover), *inputs)
    expected = still[0].clone()
    expected[:, 8:12, 16:20] = latest[0, :, 4:8, 8:12]
    torch.testing.assert_close(frames[0, 0], expected, atol=2e-3, rtol=0)


@torch.no_grad()
def test_what_stands_still_is_weighed_per_pixel() -> None:
    """Masked frames count for nothing; one frame is its own still picture."""
    model = make("jump", PASSIVE, TINY)
    assert isinstance(model, CopyingJump)
    frames = torch.rand(2, 3, 3, 32, 32, generator=generator())
    mask = torch.tensor([[True, False, False], [True, True, False]])
    ages = torch.tensor([[0, 5, 5], [2, 0, 5]])
    still = model.still(frames, ages, mask)
    torch.testing.assert_close(still[0], frames[0, 0])
    low, high = frames[1, :2].amin(0), frames[1, :2].amax(0)
    assert ((still[1] >= low - 1e-6) & (still[1] <= high + 1e-6)).all()


@pytest.mark.parametrize("solver", ["heun", "euler"])
@torch.no_grad()
def test_flow_against_a_known_velocity(solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """dx/ds = x grows noise by e; Heun's error shrinks with the square of the step."""
    flow = FlowPrior(GRID, replace(TINY, flow_solver=solver)).eval()
    monkeypatch.setattr(flow, "_velocity", lambda x, condition, modulations: x)
    cells = seeded(2, 32, 16)
    start = torch.randn(6, 8, 2, generator=generator())
    for steps in (4, 16):
        z = flow.sample(cells, 3, steps, generator())
        factor = (1 + 1 / steps + (0.5 / steps**2 if solver == "heun" else 0)) ** steps
        torch.testing.assert_close(z, start * factor, rtol=1e-4, atol=1e-4)


def test_flow_is_trained_without_touching_the_rest() -> None:
    weights = dict.fromkeys(("still_detail", "kl_weight", "reward_weight", "end_weight"), 0.0)
    model = make("jump", PASSIVE, replace(TINY, detail=1e-30, **weights)).train()
    assert isinstance(model, CopyingJump) and model.prior is not None
    source = testing.random_episodes(PASSIVE).windows(8, 4, whole=True)
    model.prepare(source)
    model(source.batch(0), 0.0, generator()).total.backward()
    own = set(model.prior.parameters())
    assert all(weights.grad is not None for weights in own)
    for name, other in model.named_parameters():
        assert other in own or other.grad is None or other.grad.abs().max() < 1e-20, name


def test_at_last_the_prior_trains_alone() -> None:
    model = make("jump", DISCRETE, replace(TINY, prior_share=0.25))
    assert isinstance(model, CopyingJump) and model.prior is not None
    source = testing.random_episodes(DISCRETE).windows(8, 4, whole=True)
    model.prepare(source)
    prior = set(model.prior.parameters())
    for progress, every in ((0.7, True), (0.75, False)):
        model.train().zero_grad(set_to_none=True)
        losses = model(source.batch(0), progress, generator())
        losses.total.backward()
        learning = {weights for weights in model.parameters() if weights.grad is not None}
        assert learning == (set(model.parameters()) if every else prior)
        assert ("mse" in losses.parts) == every
        assert (losses.parts["flow"] == losses.total) == (not every)
        losses = model.eval()(source.batch(0), progress, generator())
        assert losses.parts["flow"] < losses.total  # validation measures everything
        assert model.replay.added == (0 if every else 4)


def test_replay_keeps_the_latest_scenes() -> None:
    replay = LatentReplay(5)
    assert replay.state() == {}
    for first in (0, 3, 6):
        scenes = torch.arange(first, first + 3)
        replay.add(scenes.float(), scenes[:, None].expand(-1, 2))
    numbers, pairs = replay.draw(200, generator())
    assert set(numbers.tolist()) == {4.0, 5.0, 6.0, 7.0, 8.0}
    assert torch.equal(pairs, numbers.long()[:, None].expand(-1, 2))
    again = LatentReplay(5)
    again.restore(replay.state(), torch.device("cpu"))
    for kept in (replay, again):  # both go on alike
        kept.add(torch.tensor([9.0]), torch.tensor([[9, 9]]))
    assert torch.equal(*(kept.draw(50, generator())[0] for kept in (replay, again)))
    again.add(torch.arange(7.0), torch.arange(14).view(7, 2))  # more than it has room for
    assert set(again.draw(200, generator())[0].tolist()) == {2.0, 3.0, 4.0, 5.0, 6.0}
    again.restore({}, torch.device("cpu"))
    assert again.state() == {}


@pytest.mark.parametrize("change", ["renamed", "more", "fewer", "none", "columns", "number"])
def test_a_replay_of_another_file_is_refused(change: str) -> None:
    replay = LatentReplay(4)
    replay.add(torch.rand(6, 2), torch.rand(6))
    before, state = replay.state(), replay.state()
    if change == "renamed":
        state["2"] = state.pop("1")
    elif change == "columns":
        state["0"] = state["0"][:, :1]
        replay.restore(state, torch.device("cpu"))  # who alone does not know
        with pytest.raises(ValueError, match="replay: expected parts .* the training state's"):
            replay.add(torch.rand(1, 2), torch.rand(1))
        return
    elif change == "number":
        state["1"] = torch.tensor(1.0)
    else:
        state["added"] = {"more": torch.zeros(2), "fewer": torch.tensor(3)}.get(
            change, torch.tensor(-1)
        )
    with pytest.raises(ValueError, match="replay: expected"):
        replay.restore(state, torch.device("cpu"))
    assert all(torch.equal(value, before[name]) for name, value in replay.state().items())


def test_a_prior_that_trains_alone_resumes_bit_exactly(tmp_path: Path) -> None:
    """It learns from what the steps before the stop inferred."""

    def interrupt(progress: Progress) -> None:
        if progress.step == 5:
            signal.raise_signal(signal.SIGINT)

    config = replace(TINY, prior_share=0.7, prior_batch=6, prior_memory=10)
    runs = []
    for stops in (False, True):
        torch.manual_seed(0)
        model = make("jump", PASSIVE, config)
        source = testing.random_episodes(PASSIVE).windows(8, 4, whole=True)
        settings: dict[str, Any] = {"folder": tmp_path / str(stops), "progress": False}
        if stops:
            with pytest.raises(KeyboardInterrupt):
                fit(model, source, 8, log_every=1, callbacks=[interrupt], **settings)
            model = make("jump", PASSIVE, config, seed=1)
        fit(model, source, 8, log_every=1, resume=stops, **settings)
        runs.append(model)
    for name, weights in runs[0].state_dict().items():
        assert torch.equal(weights, runs[1].state_dict()[name]), name
    assert runs[1].replay.added == runs[0].replay.added == 5 * 4
    assert not any("replay" in name for name in runs[0].state_dict())


def test_flow_learns_a_conditional_distribution() -> None:
    """z is the cells' first number, or its negative, plus a little noise."""
    flow = FlowPrior(Grid(8, 8, 4), replace(TINY, latent=1)).train()
    optimizer = torch.optim.Adam(flow.parameters(), 3e-3)
    random = generator()

    def batch(count: int) -> tuple[Tensor, Tensor]:
        level = 1 + torch.rand(count, 1, 1, generator=random)
        sign = torch.randint(2, (count, 1, 1), generator=random) * 2 - 1
        cells = torch.zeros(count, 4, 16)
        cells[..., :1], cells[..., 1:2] = level, 1.5
        return level * sign + 0.05 * torch.randn(count, 1, 1, generator=random), cells

    for _ in range(300):
        z, cells = batch(64)
        loss = flow.flow_loss(z, flow.condition(cells), 8, random)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    flow.eval()
    with torch.no_grad():
        _, cells = batch(32)
        z = flow.sample(cells, 16, 8, generator()).view(32, 16)
    assert ((z.abs() - cells[:, :1, 0]).abs() < 0.4).float().mean() > 0.8
    assert 0.3 < (z > 0).float().mean() < 0.7


@pytest.mark.parametrize("spec", [DISCRETE, PASSIVE], ids=["discrete", "passive"])
@torch.no_grad()
def test_moments_know_no_later_action(spec: Spec) -> None:
    plans = PlanTransformer(spec.action.features, 8, TINY).eval()
    cells, times = seeded(2, 32, 16), torch.arange(7).expand(2, -1)
    if spec.passive:
        every = plans.past(cells, times, None).features[:, 0]
        alone = plans.past(cells, times[:, 5:6], None).features[:, 0]
        torch.testing.assert_close(every[:, 5:6], alone)
        return
    actions = spec.action.encode(random_actions(spec, 2, 6))
    later = actions.clone()
    later[:, 3:] = actions[:, 3:].flip(-1)
    one = plans.past(cells, times, actions).features[:, 0]
    other = plans.past(cells, times, later).features[:, 0]
    torch.testing.assert_close(one[:, :4], other[:, :4])
    assert not torch.allclose(one[:, 4], other[:, 4])


@torch.no_grad()
def test_plans_go_on_from_a_shared_past() -> None:
    """Split at presents that differ between scenes, moments are those of one sequence."""
    plans = PlanTransformer(3, 8, TINY).eval()
    cells = seeded(2, 32, 16)
    actions = DISCRETE.action.encode(random_actions(DISCRETE, 2, 3, 8))  # 3 plans
    present = torch.tensor([1, 4])
    for plan in range(3):
        taken = actions[:, 0].clone()  # plans share the past
        own = actions[:, plan]
        for row, now in enumerate(present.tolist()):
            taken[row, now : now + 4] = own[row, now : now + 4]
        times = torch.arange(9).expand(2, -1)
        whole = plans.past(cells, times, taken).features[:, 0]
        past = plans.past(cells, times[:, :5], actions[:, 0, :4])
        steps = present[:, None] + torch.arange(4)
        rows = torch.arange(2)[:, None]
        every = torch.stack([actions[rows, p, steps] for p in range(3)], 1)
        ahead = plans.ahead(cells, past, present, steps + 1, every)
        torch.testing.assert_close(ahead[:, plan], whole[rows, steps + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("check", testing.CHECKS)
def test_without_a_latent(check: Callable[[WorldModel], None]) -> None:
    """Then there is one world, and neither a posterior nor a prior."""
    model = make("jump", DISCRETE, replace(TINY, latent=0)).eval()
    assert not model.stochastic
    check(model)


def test_belief_is_full() -> None:
    model = make("jump", PASSIVE, replace(TINY, context_max=2)).eval()
    belief = model.observe(context(PASSIVE, frames=2))
    more = replace(context(PASSIVE, frames=2), times=torch.tensor([[4, 5]] * 2))
    with pytest.raises(ValueError, match="4 observations, more than the 2 .*forget some first"):
        model.update(belief, more)


def test_scenes_without_z_do_not_pay_for_it() -> None:
    """Of controlled scenes a share is trained on the context and the actions alone."""
    model = make("jump", DISCRETE, replace(TINY, context_only=0.999)).train()
    source = testing.random_episodes(DISCRETE).windows(8, 4, whole=True)
    model.prepare(source)
    losses = model(source.batch(0), 0.0, generator())
    assert losses.parts["kl"] == 0
    passive = make("jump", PASSIVE, replace(TINY, context_only=0.999)).train()
    source = testing.random_episodes(PASSIVE).windows(8, 4, whole=True)
    assert passive(source.batch(0), 0.0, generator()).parts["kl"] > 0


def test_training_under_bf16() -> None:
    model = make("jump", DISCRETE, TINY).train()
    source = testing.random_episodes(DISCRETE).windows(8, 4, whole=True)
    model.prepare(source)
    exact = model(source.batch(0), 0.0, generator()).total
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(source.batch(0), 0.0, generator())
    assert losses.total.dtype == torch.float32
    torch.testing.assert_close(losses.total, exact, rtol=0.05, atol=0.0)
    losses.total.backward()
    assert all(weights.grad is not None for weights in model.parameters())


def test_rate_rises_and_falls() -> None:
    """And once more for the prior alone, if there is one."""
    for latent, turn in ((2, 700), (0, 1000)):
        model = make("jump", DISCRETE, replace(TINY, warmup=100, latent=latent))
        rates = [model.learning_rate(done, 1000) for done in range(1000)]
        top = max(range(700), key=rates.__getitem__)
        assert rates[0] < 2e-5 and 90 <= top <= 101 and rates[turn - 1] < 3e-5
        assert rates[700] == (1e-3 if latent else pytest.approx(2.3e-4, rel=0.1))
        falls = rates[top:turn], rates[turn:]
        assert all(a >= b for fall in falls for a, b in pairwise(fall))


def test_flow_steps(tmp_path: Path) -> None:
    model = fresh("jump", TINY, PASSIVE)
    belief = model.observe(context(PASSIVE))
    with torch.no_grad():
        before = model.sample(belief, 2, generator()).state["z"]
        set_flow_steps(model, 16)
        after = model.sample(belief, 2, generator()).state["z"]
    assert not torch.equal(before, after)
    loaded = worldmodel.load(worldmodel.save(model, tmp_path))
    set_flow_steps(loaded, None)
    assert isinstance(loaded, CopyingJump) and loaded.flow_steps == 16
    with pytest.raises(ValueError, match="flow_steps: expected at least 1"):
        set_flow_steps(model, 0)
    with pytest.raises(ValueError, match="flow_steps: only jump with preset jumpy, small or rays"):
        set_flow_steps(fresh("jump", "views", PASSIVE), 2)


def test_a_checkpoint_says_which_jump_it_is(tmp_path: Path) -> None:
    folder = worldmodel.save(fresh("jump", TINY, PASSIVE), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    assert config["model"] == "jump" and config["variant"] == "CopyingConfig"
    (folder / "config.json").write_text(json.dumps({**config, "variant": "Other"}))
    with pytest.raises(ValueError, match="variant: expected one of .*'CopyingConfig'.*got 'Other'"):
        worldmodel.load(folder)


def test_times_are_drawn_without_repeats() -> None:
    times, there = draw_distinct(torch.tensor([8, 3] * 50), 8, 6, generator())
    assert times.shape == (100, 6) and there[::2].all() and (there[1::2].sum(1) == 4).all()
    for row, valid in zip(times, there, strict=True):
        assert len(set(row[valid].tolist())) == int(valid.sum())


def test_bad_settings() -> None:
    for change, message in [
        ({"heads": 3}, "multiples of heads"),
        ({"patch": 6}, "patch: expected 0, 4"),
        ({"patch": 2}, "patch: expected 0, 4"),
        ({"latent": -1}, "latent"),
        ({"flow_solver": "rk4"}, "flow_solver"),
        ({"context_only": 1.0}, "context_only"),
        ({"ema": -0.1}, "ema"),
        ({"prior_share": 1.1}, "prior_share"),
        ({"detail": 0.0}, "detail"),
        ({"context_min": 7}, "context_min"),
    ]:
        with pytest.raises(ValueError, match=message):
            CopyingConfig(**change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 fit into 24 x 24 .*got 8; 4 does"):
        make("jump", Spec((3, 24, 24), ActionSpec("none"), 8), replace(TINY, patch=8))
    with pytest.raises(ValueError, match="vectors .* take preset 'vector'"):
        make("jump", VECTOR, "jumpy")
    with pytest.raises(ValueError, match="poses as keys; take preset 'views'"):
        make("jump", Spec((3, 16, 16), ActionSpec("none"), 8, pose=3), "jumpy")


def test_vectors_beside_an_image_are_predicted() -> None:
    """They begin at the latest of the context, and are in the environment's units."""
    model = make("jump", CAMERA, TINY).eval()
    with torch.no_grad():
        model.parts.shift.fill_(5.0)
        model.parts.spread.fill_(2.0)
        for weights in model.vectors[-1].parameters():
            weights.zero_()
        seen = context(CAMERA)
        worlds = model.sample(model.observe(seen), 1, generator())
        answer = model.predict(worlds, Queries(torch.tensor([[0, 2]] * 2))).observations
    torch.testing.assert_close(answer[:, 0, 0, 0, -2:], seen.observations[:, -1, -2:])
