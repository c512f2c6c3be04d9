"""In which precision a run computes: float32, or bf16 where that is clearly faster."""

from __future__ import annotations

import time
from functools import cache
from typing import Literal, NamedTuple, get_args

import torch

from worldmodel.spec import Spec

Precision = Literal["auto", "float32", "bf16"]

FABRIC: dict[str, Literal["32-true", "bf16-mixed"]] = {"float32": "32-true", "bf16": "bf16-mixed"}
"""Lightning Fabric's names, which training states hold, too."""
CLEARLY_FASTER = 1.5
"""Ratio from which on "auto" takes bf16. Without instructions for bf16 a product was measured at
0.03 (AVX2) to 0.5 (AVX-512) of float32's speed, with them at 2.2 (AVX-512 BF16) and more (AMX), so
that noise does not decide."""
PRODUCT, ROUNDS = (1024, 256, 256), 6


class Choice(NamedTuple):
    """A precision, and why.

    Attributes:
        name: "float32" or "bf16".
        reason: what was measured, or what decided; "" where the user did.
    """

    name: str
    reason: str = ""

    @property
    def line(self) -> str:
        """For people to read."""
        return f"{self.name} ({self.reason})" if self.reason else self.name


def choose(
    precision: str, spec: Spec, device: str, processes: int = 1, begun: str | None = None
) -> Choice:
    """The precision of a run.

    "auto" takes bf16 for observations with an image, on GPUs that have it and on CPUs where its
    matrix products are measured to be ``CLEARLY_FASTER``. Models of vectors alone are small: they
    gain little, and they are asked for more digits than bf16 has.

    Args:
        precision: the user's, a ``Precision``.
        spec: of the model.
        device: type of the device, such as "cpu".
        processes: of the run. Several on one CPU cannot time anything, as they share its cores, and
            would not all decide the same.
        begun: Fabric's name of the precision in which a resumed run began; it has the last word.

    Raises:
        ValueError: there is no such precision; the run began with another one.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision: expected one of {get_args(Precision)}, got {precision!r}")
    if begun is not None:
        return _resumed(precision, begun, device, processes)
    if precision != "auto":
        return Choice(precision, _slowness(device, processes) if precision == "bf16" else "")
    if spec.image_part is None and not spec.is_image:
        return Choice("float32", "auto: observations without an image")
    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Choice("bf16", "auto: this GPU has it")
        return Choice("float32", "auto: this GPU has no bf16")
    if device != "cpu":
        return Choice("float32", f"auto: bf16 is not tried on {device}")
    if processes > 1:
        return Choice("float32", "auto: several processes cannot time bf16 on one CPU")
    ratio = bf16_speedup(torch.get_num_threads())
    name = "bf16" if ratio >= CLEARLY_FASTER else "float32"
    return Choice(name, f"auto: a bf16 product has {ratio:.2g} times float32's speed")


def _resumed(precision: str, begun: str, device: str, processes: int) -> Choice:
    names = {fabric: name for name, fabric in FABRIC.items()}
    if begun not in names:
        raise ValueError(
            f"resume: the run began in precision {begun!r}, and only {list(FABRIC)} go on; begin "
            "another run with its weights (--start)"
        )
    name = names[begun]
    if precision not in ("auto", name):
        raise ValueError(
            f"precision: the run began in {name}, it cannot go on in {precision}; give "
            f"precision={name!r} or leave it out"
        )
    slow = _slowness(device, processes) if name == "bf16" else ""
    return Choice(name, "as the run began" + (f", though {slow}" if slow else ""))


def _slowness(device: str, processes: int) -> str:
    """What speaks against bf16 here, if anything."""
    if device != "cpu" or processes > 1:
        return ""
    ratio = bf16_speedup(torch.get_num_threads())
    return "" if ratio >= 1 else f"here a bf16 product has only {ratio:.2g} times float32's speed"


@cache
def bf16_speedup(threads: int) -> float:
    """How many times as fast as in float32 a matrix product is in bf16 on this CPU, measured once.

    It takes some 20 ms; 0.3 s on processors that only emulate bf16.

    Args:
        threads: of torch in this process; the result is kept for each number of them.
    """
    rows, inner, columns = PRODUCT
    left, right = torch.ones(rows, inner), torch.ones(inner, columns)
    seconds = {
        dtype: _seconds(left.to(dtype), right.to(dtype))
        for dtype in (torch.float32, torch.bfloat16)
    }
    return seconds[torch.float32] / seconds[torch.bfloat16]


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    """The shortest of some rounds: the others were disturbed."""
    rounds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        _ = left @ right
        rounds.append(time.perf_counter() - begin)
    return min(rounds)
