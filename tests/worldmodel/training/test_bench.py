"""``python -m worldmodel bench``: what it counts, at a size that says nothing about speed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from worldmodel.__main__ import main
from worldmodel.training import bench


def test_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arguments = ["bench", "--models", "jump:small", "svg-lp:small", "--size", "32"]
    arguments += ["--batch-size", "2", "--repeats", "1", "--json", str(tmp_path / "bench.json")]
    monkeypatch.setattr(sys, "argv", ["worldmodel", *arguments])
    main()
    result = json.loads((tmp_path / "bench.json").read_text())
    assert result["benchmark"] == "bench" and result["settings"]["batch_size"] == 2
    rows = result["rows"]
    assert [row["kind"] for row in rows] == [*["ceiling"] * 4, *["training"] * 4]
    assert {row["name"] for row in rows[:4]} == {"matmul", "convolution"}
    training, half = rows[4:6]
    assert training["model"] == half["model"] == "jump" and training["flops"] > 1e7
    assert (training["precision"], half["precision"]) == ("float32", "bf16")
    assert training["flops"] == half["flops"] and training["speedup"] == 1
    assert training["flops_per_second"] == pytest.approx(
        training["flops"] * training["steps_per_second"]
    )


def test_vectors_and_several_numbers_of_threads() -> None:
    before = torch.get_num_threads()
    try:
        rows = bench.bench([("ensemble", "vector")], 16, None, 1, "cpu", ["float32"], [1, 2])
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert [(row["kind"], row["threads"]) for row in rows] == [
        *[("ceiling", count) for count in (1, 1, 2, 2)],
        *[("training", count) for count in (1, 2)],
    ]
    for row in rows[4:]:
        assert (row["model"], row["batch"], row["size"]) == ("ensemble", 256, 8)
        assert row["steps_per_second"] > 0 and row["speedup"] == 1


def test_flops_of_a_known_layer() -> None:
    """A multiply-add counts two, and the backward pass twice the forward pass."""
    layer, x = torch.nn.Linear(8, 4), torch.rand(2, 8, requires_grad=True)
    with bench.FlopCounterMode(display=False) as counter:
        layer(x).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 2 * 8 * 4


def test_bad_numbers() -> None:
    with pytest.raises(ValueError, match="repeats, threads: expected at least 1"):
        bench.bench([("jump", "small")], 32, 2, 0, "cpu")
    with pytest.raises(ValueError, match="threads: expected at least 1"):
        bench.bench([("jump", "small")], 32, 2, 1, "cpu", threads=[0])
    with pytest.raises(ValueError, match="precisions: expected some of"):
        bench.bench([("jump", "small")], 32, 2, 1, "cpu", ["half"])
