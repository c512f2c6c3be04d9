"""TorchRL's RSSM answers as our models do, where it is installed; else there is a remedy."""

from __future__ import annotations

import sys

import pytest
import torch

from evaluation.measurements.imagination import Imagination
from evaluation.runner import torchrl_rssm
from worldmodel import ActionSpec, Context, Queries, Spec

SPEC = Spec((3, 64, 64), ActionSpec("discrete", (), (4,)), 8)


def test_without_torchrl_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchrl.modules", None)
    monkeypatch.setitem(sys.modules, "torchrl", None)
    with pytest.raises(ValueError, match=r'pip install "jumpy-worldmodel\[peers\]"'):
        Imagination().load_model("torchrl:rssm")


def test_it_rolls_its_prior_and_decodes_what_is_queried() -> None:
    pytest.importorskip("torchrl")
    model = torchrl_rssm.make(SPEC).eval()
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(2, 3, 3, 64, 64, generator=generator)
    actions = torch.tensor([[1, 2], [0, 0]])
    context = Context(frames, torch.arange(3).expand(2, 3), actions)
    worlds = model.sample(model.observe(context), 4, generator)
    plans = torch.tensor([[[0, 1, 2], [0, 1, 3]]] * 2)
    answer = model.predict(worlds, Queries(torch.tensor([[4, 5]] * 2), plans))
    assert answer.observations is not None
    assert answer.observations.shape == (2, 4, 2, 2, 3, 64, 64)
    assert answer.rewards.shape == (2, 4, 2, 2) and bool((answer.alive == 1).all())
    frames_at_4, frames_at_5 = answer.observations.unbind(3)
    torch.testing.assert_close(frames_at_4[:, :, 0], frames_at_4[:, :, 1])  # as far as plans agree
    assert not torch.equal(frames_at_5[:, :, 0], frames_at_5[:, :, 1])
    with pytest.raises(NotImplementedError, match="train it with TorchRL"):
        model.loss(None, 0.0, None)  # type: ignore[arg-type]


def test_a_row_of_it_stands_beside_ours() -> None:
    pytest.importorskip("torchrl")
    settings = Imagination(("torchrl:rssm",), (2,), (1,), repeats=1, precision=("none", "float32"))
    rows = settings.measure()
    assert {(row["model"], row["preset"]) for row in rows} == {
        ("torchrl", "rssm"), ("torchrl", "rssm in float32"),
    }  # fmt: skip
    with pytest.raises(ValueError, match="size: torchrl:rssm takes frames"):
        Imagination(size=32).load_model("torchrl:rssm")
