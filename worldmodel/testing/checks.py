"""The contract of every world model; each check takes a fresh model in evaluation mode."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any, get_args
from unittest import mock

import torch

from worldmodel.base import UnsupportedQuery, WorldModel
from worldmodel.checkpoint import load, save
from worldmodel.inference import optimise_for_inference
from worldmodel.registry import MODELS
from worldmodel.testing.noise import random_context, random_source
from worldmodel.testing.probes import (
    alike,
    frames_of,
    generator,
    imagine,
    noise,
    pairs_of,
    plans_of,
    predict_at,
    query,
    refuses,
    require,
    same,
    size_of,
    times_at,
)
from worldmodel.training.precision import Precision
from worldmodel.types import Context, Queries, SceneSource

INFERENCE_ERRORS = {"float32": 1e-4, "bf16": 0.02}
"""By how much the frames of an optimised model may differ, root mean square."""
PARTS = 12
"""Steps of a training that must reach all weights of a model that trains in parts."""


def check_answers(model: WorldModel) -> None:
    """The three verbs return what ``worldmodel.types`` says: shapes, dtypes, ranges."""
    spec, (belief, worlds) = model.spec, imagine(model, 3)
    for name, value in belief.state.items():
        require(model, len(value) == 2, f"belief.state[{name!r}] does not begin with B")
    for name, value in worlds.state.items():
        require(model, value.shape[:2] == (2, 3), f"worlds.state[{name!r}] is not (B, S, ...)")
    for name, value in worlds.scene.items():
        require(model, len(value) == 2, f"worlds.scene[{name!r}] does not begin with B")
    now = max(size_of(model, 3) - 1, 0)
    require(model, worlds.present.tolist() == [now, now], f"present is {worlds.present}, not {now}")
    for plans in (2, None) if spec.passive else (2,):
        answer = predict_at(model, worlds, [2, 4, 6], plans)
        axes = (2, 3, plans or 1, 3)
        parts = {
            "rewards": answer.rewards,
            "alive": answer.alive,
            "observations": frames_of(answer),
        }
        for name, value in parts.items():
            shape = (*axes, *spec.observation) if name == "observations" else axes
            right = value.shape == shape and value.dtype == torch.float32
            got = f"{value.dtype} {tuple(value.shape)}"
            require(model, right, f"{name}: expected float32 {shape}, got {got}")
        possible = bool(((answer.alive >= 0) & (answer.alive <= 1)).all())
        require(model, possible, "alive: expected probabilities")


def check_one_world(model: WorldModel) -> None:
    """Queries have one answer in any order, alone or with others, along one plan or many."""
    _, worlds = imagine(model, 3)
    together, again = predict_at(model, worlds, [1, 3, 6]), predict_at(model, worlds, [6, 1, 3])
    order = torch.tensor([2, 0, 1])
    what = "the order of queries changes the"
    same(model, f"{what} frames", frames_of(together)[:, :, :, order], frames_of(again))
    same(model, f"{what} rewards", together.rewards[..., order], again.rewards)
    for k, step in enumerate([1, 3, 6]):
        alone, one_of_many = (
            predict_at(model, worlds, [step], plans=1),
            frames_of(together)[:, :, :1, k],
        )
        what = "a query among others, along one plan of many, differs from it alone in its"
        same(model, f"{what} frames", one_of_many, frames_of(alone)[:, :, :, 0])
        same(model, f"{what} alive", together.alive[:, :, :1, k], alone.alive[..., 0])
    first = frames_of(predict_at(model, worlds.some(slice(1)), [1, 3, 6]))
    same(model, "a world alone differs from it among others", frames_of(together)[:, :1], first)


def check_rewards_add_up(model: WorldModel) -> None:
    """The sum of alive_(k-1) * rewards_k does not depend on where the intervals are cut."""
    _, worlds = imagine(model, 3)
    whole, cut = predict_at(model, worlds, [6], 2), predict_at(model, worlds, [1, 2, 5, 6], 2)
    what = "of four intervals differ from those of one"
    same(model, f"rewards {what}", (cut.running * cut.rewards).sum(-1), whole.rewards[..., 0])
    same(model, f"alive {what}", cut.alive[..., -1], whole.alive[..., 0])


def check_seed(model: WorldModel) -> None:
    """The generator is the only randomness, and matters only if the model is ``stochastic``."""
    answers = []
    for seed, unrelated in ((0, 1), (0, 2), (1, 1)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(unrelated)
            answers.append(frames_of(predict_at(model, imagine(model, 3, seed)[1], [6])))
    one, repeated, other = answers
    require(
        model, torch.equal(one, repeated), "one seed, two answers: draw from the generator only"
    )
    differs = not torch.equal(one, other)
    says = f"stochastic is {model.stochastic}, but worlds of two seeds differ: {differs}"
    require(model, differs == model.stochastic, says)


def check_scoring(model: WorldModel) -> None:
    """``frames=False`` gives the same scores; a part named ``renderer`` is left alone."""
    _, worlds = imagine(model, 3)
    queries = query(model, times_at(model, worlds, [3, 6]), plans_of(model, 2, 3))
    broken = AssertionError(f"{model.name}: frames=False runs the renderer")
    with torch.no_grad():
        expected = model.predict(worlds, queries)
        part: Any = getattr(model, "renderer", mock.Mock())
        with mock.patch.object(part, "forward", side_effect=broken):
            scored = model.predict(worlds, queries, frames=False)
    require(model, scored.observations is None, "frames=False: expected no observations")
    same(model, "frames=False changes the rewards", scored.rewards, expected.rewards)
    same(model, "frames=False changes alive", scored.alive, expected.alive)


def check_advance(model: WorldModel) -> None:
    """Advancing along a plan, then predicting, equals predicting along the whole plan; or both
    raise ``UnsupportedQuery``, if the model's ``horizon`` is 0.
    """
    _, worlds = imagine(model, 3)
    ahead, plans = predict_at(model, worlds, [2, 5], plans=1), plans_of(model, 2, 1)
    done, times = 2 * model.stride, times_at(model, worlds, [2, 5])
    taken = torch.zeros(2, done) if plans is None else plans[:, 0, :done]
    if model.horizon == 0:
        later = query(model, worlds.present[:, None] + done, taken[:, None])
        refuses(model, UnsupportedQuery, lambda: model.advance(worlds, taken), "advance")
        refuses(model, UnsupportedQuery, lambda: model.predict(worlds, later), "the future")
        return
    rest = torch.zeros(2, 1, 1) if plans is None else plans[:, :, done:]
    with torch.no_grad():
        moved = model.advance(worlds, taken)
        now = (worlds.present + done).tolist()
        require(model, moved.present.tolist() == now, f"advance: present is not {now}")
        there = model.predict(moved, query(model, times, rest))
        step = query(model, moved.present[:, None], taken[:, None])
        both, stepped = model.step(worlds, step)
    what = "advance, then predict, differs from predicting ahead in the"
    same(model, f"{what} frames", frames_of(there), frames_of(ahead))
    same(model, f"{what} rewards", there.rewards[..., 1], ahead.rewards[..., 1], rtol=1e-3)
    once = both.at(torch.full_like(moved.present[:, None], done // model.stride), 1)
    what = "step differs from predict in the"
    same(model, f"{what} frames", frames_of(once), frames_of(ahead)[:, :, :, :1])
    same(model, f"{what} rewards", once.rewards[..., 0], ahead.rewards[..., 0], rtol=1e-3)
    same(model, f"{what} alive", once.alive[..., 0], ahead.alive[..., 0], rtol=1e-3)
    for name, value in moved.state.items():
        same(model, f"step differs from advance in {name}", stepped.state[name], value)
    require(model, torch.equal(stepped.present, moved.present), "step: another present")


def check_rows(model: WorldModel) -> None:
    """Scenes of different presents in one padded batch are answered as if alone."""
    long = noise(model, 4)
    pairs = long.times.shape[1]
    if pairs < 2:
        return
    counts = torch.tensor([pairs // 2, pairs])
    frames = long.observations.clone()
    frames[0, pairs // 2 :] = math.nan  # what is masked must not be read
    mask = torch.arange(pairs) < counts[:, None]
    ragged = replace(long, observations=frames, mask=mask, present=counts - 1)
    plans = plans_of(model, 2, 2)
    with torch.no_grad():
        padded = model.observe(ragged)
        worlds = model.sample(padded, 2, generator())
        times = times_at(model, worlds, [4, 5])
        both = frames_of(model.predict(worlds, query(model, times, plans)))
        for row in range(2):
            own = None if plans is None else plans[row : row + 1]
            part = worlds.index(torch.tensor([row]))
            alone = frames_of(model.predict(part, query(model, times[row : row + 1], own)))
            same(model, "a scene alone differs from it in a batch", alone[0], both[row])
        short = pairs_of(long, slice(pairs // 2))
        actions = None if long.actions is None else long.actions[:, : pairs // 2 - 1]
        short = replace(short, actions=actions)
        what = "padding of a context changes the belief"
        first = torch.tensor([0])
        alike(model, what, model.observe(short).index(first), padded.index(first))


def check_put(model: WorldModel) -> None:
    """Scenes of a batch of worlds can be replaced by others."""
    old, new = imagine(model, 2, 0)[1], imagine(model, 2, 5)[1]
    mixed = old.put(torch.tensor([1]), new.index(torch.tensor([0])))
    for part in ("state", "scene"):
        for name, value in getattr(mixed, part).items():
            rows = torch.stack([getattr(old, part)[name][0], getattr(new, part)[name][0]])
            require(model, torch.equal(value, rows), f"put: {part}[{name!r}] is mixed up")


def check_context_is_a_set(model: WorldModel) -> None:
    """The order of the context's pairs says nothing."""
    whole = noise(model, 4)
    mixed = pairs_of(whole, range(whole.times.shape[1])[::-1])
    with torch.no_grad():
        one, other = model.observe(whole), model.observe(mixed)
    alike(model, "the order of the context's pairs changes the belief", one, other)


def check_belief(model: WorldModel) -> None:
    """``update`` equals observing all pairs at once, ``forget`` never having observed them; or both
    raise ``UnsupportedQuery``, if not ``extends``.
    """
    whole = noise(model, 3)
    first, rest = pairs_of(whole, slice(0, 1)), pairs_of(whole, slice(1, None))
    with torch.no_grad():
        full = model.observe(whole)
        if not model.extends:
            refuses(model, UnsupportedQuery, lambda: model.update(full, first), "update")
            refuses(model, UnsupportedQuery, lambda: model.forget(full, first), "forget")
        elif whole.times.shape[1] > 1:
            longer, loose = model.update(model.observe(first), rest), {"rtol": 1e-3, "atol": 1e-4}
            alike(model, "update differs from seeing all at once", longer, full, **loose)
            shorter, never = model.forget(longer, first), model.observe(rest)
            alike(model, "forget differs from never having observed", shorter, never, **loose)
            holes = replace(first, observations=first.observations * math.nan)
            refuses(model, ValueError, lambda: model.update(longer, holes), "NaN in update")


def check_past(model: WorldModel) -> None:
    """Times before the present are predicted if the model is ``jumpy``, refused if it is not."""
    _, worlds = imagine(model, 3)
    before = query(model, torch.tensor([[0, int(worlds.present[0])]]).expand(2, -1))
    if int(worlds.present[0]) == 0:
        return
    if not model.jumpy:
        refuses(model, UnsupportedQuery, lambda: model.predict(worlds, before), "the past")
        return
    with torch.no_grad():
        answer = model.predict(worlds, before)
    settled = not answer.rewards.any() and bool((answer.alive == 1).all())
    require(model, settled, "up to the present: expected rewards of 0 and alive of 1")


def check_refusals(model: WorldModel) -> None:
    """Input that is wrong is refused: TypeError or ValueError, not an answer."""
    spec, whole = model.spec, noise(model, 3)
    late = spec.window + 1
    for what, bad in _wrong_contexts(model, whole).items():
        refuses(model, (ValueError, TypeError), partial(model.observe, bad), what)
    _, worlds = imagine(model, 2)
    plans, times = plans_of(model, 2, 1), worlds.present[:, None] + model.stride
    queries = {
        "a query beyond the window": query(model, torch.full((2, 1), late), plans),
        "queries of another batch": query(model, times[:1], plans),
        "no queries": query(model, times[:, :0], plans),
    }
    if whole.poses is not None:
        queries["queries without poses"] = Queries(times)
    if plans is not None:
        queries["plans that are too short"] = Queries(times, plans[:, :, :0])
        queries["a query ahead without plans"] = Queries(times)
        queries["NaN in a plan"] = Queries(times, plans * math.nan)
    for what, bad_queries in queries.items():
        refuses(model, ValueError, partial(model.predict, worlds, bad_queries), what)
    refuses(model, ValueError, lambda: model.sample(model.observe(whole), 0), "no worlds")


def _wrong_contexts(model: WorldModel, whole: Context) -> dict[str, Context]:
    """What no model, or not this one, can take, and what is wrong with it."""
    spec, frames, late = model.spec, whole.observations, model.spec.window + 1
    wrong: dict[str, dict[str, Any]] = {
        "uint8 observations": {"observations": torch.zeros_like(frames, dtype=torch.uint8)},
        "observations of another shape": {"observations": torch.cat([frames, frames], -1)},
        "times that are no integers": {"times": whole.times.float()},
    }
    if model.max_context == 0:
        contexts = {what: replace(whole, **change) for what, change in wrong.items()}
        return {**contexts, "a frame": random_context(spec, frames=1)}
    wrong |= {
        "NaN": {"observations": frames * math.nan},
        "times beyond the window": {"times": whole.times + late},
        "an empty context": {"mask": torch.zeros_like(whole.times, dtype=torch.bool)},
        "a present before the last observation": {"present": whole.times[:, -1] - 1},
    }
    if spec.is_image:
        wrong["observations up to 255"] = {"observations": frames * 0 + 255}
    if whole.actions is not None and whole.actions.shape[1]:
        wrong["no actions"] = {"actions": None}
        wrong["actions that are too few"] = {"actions": whole.actions[:, :-1]}
    if whole.poses is not None:
        wrong["no poses"] = {"poses": None}
        wrong["poses of another shape"] = {"poses": whole.poses[..., :-1]}
    return {what: replace(whole, **change) for what, change in wrong.items()}


def check_training(model: WorldModel) -> None:
    """The loss is finite, a function of batch and generator, and gradients reach the weights."""
    if not model.trainable:
        return
    source = random_source(model.spec)
    model.prepare(source)
    model.train()
    totals = []
    for unrelated in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(unrelated)
            losses = model(source.batch(0), 0.5, generator())
        totals.append(losses.total)
    total, again = totals
    fine = total.dim() == 0 and total.requires_grad and bool(torch.isfinite(total))
    require(model, fine, f"loss: expected a finite number with a gradient, got {total}")
    same(model, "loss: one batch and generator, two values", again, total)
    for name, value in losses.parts.items():
        right = value.dim() == 0 and not value.requires_grad
        require(model, right, f"losses.parts[{name!r}]: expected a detached number, got {value}")
    total.backward()
    got = {name: w.grad for name, w in model.named_parameters() if w.requires_grad}
    wild = [name for name, grad in got.items() if grad is not None and not grad.isfinite().all()]
    require(model, not wild, f"gradients are not finite: {wild}")
    unmoved = {name for name, grad in got.items() if grad is None}
    if model.trains_in_parts and unmoved:
        unmoved -= _trained_in(model, source, PARTS)
    require(model, not unmoved, f"the loss does not depend on the weights {sorted(unmoved)}")


def _trained_in(model: WorldModel, source: SceneSource, steps: int) -> set[str]:
    """The weights that some step of a training of so many steps reaches."""
    optimizer, reached = model.make_optimizer(), set()
    for done in range(steps):
        optimizer.zero_grad(set_to_none=True)
        model(source.batch(done), done / steps, generator(done)).total.backward()
        reached |= {name for name, w in model.named_parameters() if w.grad is not None}
        optimizer.step()
    return reached


def check_bf16(model: WorldModel) -> None:
    """Under autocast to bf16 losses and answers are float32; a KL may not lose its digits."""
    bf16 = partial(torch.autocast, model.device.type, torch.bfloat16)
    with bf16():
        answer = predict_at(model, imagine(model, 2)[1], [2, 6])
    parts = {"rewards": answer.rewards, "alive": answer.alive, "frames": frames_of(answer)}
    if model.trainable:
        source = random_source(model.spec)
        model.prepare(source)
        with bf16():
            losses = model(source.batch(0), 0.5, generator())
        parts |= {"loss": losses.total, **losses.parts}
    for name, value in parts.items():
        right = value.dtype == torch.float32 and bool(value.isfinite().all())
        got = f"{value.dtype}, finite: {bool(value.isfinite().all())}"
        require(model, right, f"bf16: expected finite float32 {name}, got {got}")


def check_inference(model: WorldModel) -> None:
    """What ``optimise_for_inference`` returns keeps the promises and answers the same, also as a
    copy; it is neither trained nor saved.
    """
    expected = predict_at(model, imagine(model, 2)[1], [2, 6])
    copies = {
        precision: optimise_for_inference(model, precision)
        for precision in get_args(Precision)
        if precision != "auto"
    }
    for precision, fast in copies.items():
        for check in (check_answers, check_scoring):
            check(fast)
        answer = predict_at(fast, imagine(fast, 2)[1], [2, 6])
        off = (frames_of(answer) - frames_of(expected)).square().mean().sqrt()
        limit = INFERENCE_ERRORS[precision]
        message = f"inference in {precision}: frames differ by {off:.2g}, more than {limit}"
        require(model, bool(off <= limit), message)
        moved = deepcopy(fast)
        again = predict_at(moved, imagine(moved, 2)[1], [2, 6])
        what = f"inference in {precision}: its copy differs in"
        same(model, f"{what} frames", frames_of(again), frames_of(answer))
        same(model, f"{what} rewards", again.rewards, answer.rewards)
    exact = copies["float32"]
    for check in (check_one_world, check_seed, check_advance, check_rows, check_belief):
        check(exact)
    with TemporaryDirectory() as folder:
        refuses(model, ValueError, lambda: save(exact, folder), "saving an optimised copy")
    source = random_source(model.spec)
    refuses(model, ValueError, lambda: exact(source.batch(0), 0.5), "training an optimised copy")
    after = predict_at(model, imagine(model, 2)[1], [2, 6])
    same(model, "inference: the model that was copied changed", after.rewards, expected.rewards)


def check_checkpoint(model: WorldModel) -> None:
    """A registered model comes back from its checkpoint and answers the same."""
    known = MODELS.get(model.name)
    if known is None or known.of(model.config) is not type(model) or not known.presets:
        return
    with TemporaryDirectory() as folder:
        loaded = load(save(model, folder))
    require(model, loaded.spec == model.spec, "checkpoint: the spec changed")
    require(model, loaded.config == model.config, "checkpoint: the config changed")
    one, other = (predict_at(m, imagine(m, 2)[1], [6]) for m in (model, loaded))
    same(model, "checkpoint: the frames changed", frames_of(other), frames_of(one))
    same(model, "checkpoint: the rewards changed", other.rewards, one.rewards)


CHECKS: tuple[Callable[[WorldModel], None], ...] = (
    check_answers,
    check_one_world,
    check_rewards_add_up,
    check_seed,
    check_scoring,
    check_advance,
    check_rows,
    check_put,
    check_context_is_a_set,
    check_belief,
    check_past,
    check_refusals,
    check_training,
    check_bf16,
    check_inference,
    check_checkpoint,
)
"""What ``check_world_model`` runs; each takes a fresh model in evaluation mode."""
