"""What GQN and BADJ share with JUMP, and what they lack."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scenes import PASSIVE, context, fresh, generator
from torch import Tensor

from worldmodel import ActionSpec, Queries, Spec, preset
from worldmodel.models.jumpy.badj import Badj
from worldmodel.models.jumpy.gqn import Gqn, GqnConfig
from worldmodel.models.jumpy.jump import Jump
from worldmodel.models.layers import pinned

DICE = Spec((3, 64, 64), ActionSpec("none"), 9, pose=7)


def shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


def test_badj_is_made_of_jumps_blocks() -> None:
    """Encoder, canvas and output are JUMP's to the number; the recurrences differ by the switch."""
    jump = Jump(PASSIVE, preset("jump", "narrative"))
    badj = Badj(PASSIVE, preset("badj", "narrative"))
    assert shapes(jump.encoder) == shapes(badj.encoder)
    ours, theirs = badj.renderer, jump.renderer
    assert shapes(ours.to_canvas) == shapes(theirs.to_canvas)  # type: ignore[arg-type]
    assert shapes(ours.to_image) == shapes(theirs.to_image)
    assert shapes(ours.embed) == shapes(jump.latent.prior.embed)
    assert shapes(ours.prior) == shapes(jump.latent.prior.statistics)
    key = badj.key
    told = jump.config.tower
    read = jump.config.canvas_in + jump.config.latent
    gates = ours.generator.gates.weight.shape[1], theirs.lstm.gates.weight.shape[1]  # type: ignore[union-attr]
    assert gates[0] - gates[1] == told  # the renderer is told r, as it has to draw
    assert gates[1] == read + key + jump.config.hidden
    assert badj.config.targets == 1 and jump.config.targets > 1
    for name in ("variance_start", "variance_end", "learning_rate", "context_max", "kernel"):
        assert getattr(badj.config, name) == getattr(jump.config, name)


def test_dice_presets() -> None:
    jump, badj = Jump(DICE, preset("jump", "dice")), Badj(DICE, preset("badj", "dice"))
    paper = sum(
        value.numel()
        for name, part in jump.named_children()
        for value in part.parameters()
        if name not in ("scene", "heads", "path")
    )
    assert paper == 10_276_775  # the public reading of seed 001's appendix B
    assert jump.config.steps * jump.config.latent * 8 * 8 == 1152
    assert jump.config.variance_steps == badj.config.variance_steps
    shares = (0.0, 0.3, 0.4, 0.6, 0.7, 1.0)
    assert [jump.config.pixel_variance(share) for share in shares] == [2.0, 2.0, 0.2, 0.4, 0.9, 0.9]
    with pytest.raises(ValueError, match="variance_steps"):
        replace(jump.config, variance_steps=((0.5, 1.0), (0.9, 2.0)))


@pytest.mark.parametrize("name", ["gqn", "badj"])
def test_targets_are_explained_one_by_one(name: str) -> None:
    """The KL of three targets is the sum of three; each mean depends on its own target alone."""
    model = fresh(name, "views" if name == "jump" else "small", PASSIVE)
    assert isinstance(model, Gqn)
    r = torch.randn(2, model.encoder.channels, 8, 8, generator=generator(1))
    keys = torch.randn(2, 1, model.key, generator=generator(2)).expand(-1, 3, -1)
    frames = torch.rand(2, 1, 3, 32, 32, generator=generator(3)).expand(-1, 3, -1, -1, -1)
    one, three = [], []
    with torch.no_grad():
        for seed in range(40):
            one.append(model._explain({"r": r}, keys[:, :1], frames[:, :1], generator(seed))[1])
            three.append(model._explain({"r": r}, keys, frames, generator(100 + seed))[1])
    torch.testing.assert_close(
        torch.stack(three).mean(), 3 * torch.stack(one).mean(), rtol=0.03, atol=0
    )


def test_jumps_kl_does_not_grow_with_repeated_targets() -> None:
    """One latent explains all targets: three equal ones are not three latents."""
    model = fresh("jump", "views", PASSIVE)
    assert isinstance(model, Jump)
    r = torch.randn(2, model.encoder.channels, 8, 8, generator=generator(1))
    keys = torch.randn(2, 3, model.key, generator=generator(2))
    frames = torch.rand(2, 3, 3, 32, 32, generator=generator(3))
    with torch.no_grad():
        means, kl, _ = model._explain({"r": r}, keys, frames, generator())
    assert means.shape == (2, 3, 3, 32, 32) and kl.shape == (2,)


def spread(model: Gqn | Jump, times: list[int]) -> Tensor:
    """Frames of 64 worlds at the times, each centred over the worlds: (64, K, pixels)."""
    with torch.no_grad():
        for value in model.parameters():  # untrained priors hardly move a frame
            value.mul_(2.0)
        worlds = model.sample(model.observe(context(model.spec, 1)), 64, generator())
        answer = model.predict(worlds, Queries(torch.tensor([times])))
    assert answer.observations is not None
    frames = answer.observations[0, :, 0].flatten(2).double()
    return frames - frames.mean(0)


def test_only_jumps_frames_belong_together() -> None:
    """Over worlds, frames at two times vary together in JUMP and apart in GQN and BADJ."""

    def correlation(frames: Tensor) -> float:
        a, b = frames[:, 0], frames[:, 1]
        return float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt())

    together = correlation(spread(fresh("jump", "views", PASSIVE), [5, 7]))  # type: ignore[arg-type]
    assert together > 0.5
    for name in ("gqn", "badj"):
        model = fresh(name, "views" if name == "jump" else "small", PASSIVE)
        assert abs(correlation(spread(model, [5, 7]))) < 0.2  # type: ignore[arg-type]


def test_pinned_noise() -> None:
    names = torch.arange(2000)
    noise = pinned.standard_normal(names, (3, 4))
    assert noise.shape == (2000, 3, 4)
    assert abs(float(noise.mean())) < 0.02 and abs(float(noise.std()) - 1) < 0.02
    assert float(torch.corrcoef(noise.flatten(1).T).fill_diagonal_(0).abs().max()) < 0.1
    assert torch.equal(pinned.standard_normal(names[7:9], (3, 4)), noise[7:9])
    poses = torch.randn(500, 7, generator=generator())
    assert len(pinned.address(poses).unique()) == 500
    assert torch.equal(pinned.address(poses[3:4]), pinned.address(poses)[3:4])
    assert len(pinned.address(torch.arange(500)[:, None]).unique()) == 500


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"kernel": 4}, "kernel"),
        ({"steps": 0}, "steps"),
        ({"targets": 0}, "targets"),
    ],
)
def test_bad_settings(change: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        replace(GqnConfig(), **change)  # type: ignore[arg-type]
