"""Settings and presets of the JUMP that copies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from worldmodel.common.config_checks import above_zero, at_least, below_one, layer_counts
from worldmodel.models.jumpy.training_draws import TrainingDraws


@dataclass(frozen=True)
class CopyingConfig(TrainingDraws):
    """Sizes, losses and schedules of ``CopyingJump``. Training draws: see ``TrainingDraws``.

    Attributes:
        width: features of cells and steps, a multiple of ``heads``.
        heads: of all attention.
        patch: side of a cell in pixels, a power of 2 of at least 4; 0 for the smallest that leaves
            at most 12 cells along the longer side.
        time_bands: Fourier bands of times.
        key_features: numbers of a time's key in the memory.
        content: numbers that a frame writes into each cell of the memory.
        latent: numbers of z for each square of 2 x 2 cells; 0 where nothing is left to chance: then
            there is one world for each context, and training takes half the time.
        plan_blocks: of the transformer over the steps of a plan.
        flow_width, flow_blocks: of the prior.
        flow_steps, flow_solver: how the prior is integrated: "heun" (two evaluations for each step)
            or "euler" (one). Training uses neither: both may be set afterwards.
        flow_draws: pairs of noise and time for each latent in the prior's loss.
        prior_share: last share of the training, in which the prior alone goes on learning, of
            latents that no longer change; 1 trains nothing else, to go on with a checkpoint.
        prior_batch: latents that each step of it learns from, out of those of the latest
            ``prior_memory`` scenes.
        posterior_frames: frames that the posterior sees, besides the context.
        context_only: share of controlled scenes that are trained without z, so that what follows
            from actions is not looked for in z.
        detail: weight of the mean squared error of a target's pixels in [0, 1].
        still_detail: as ``detail``, of the still picture in place of a target's: it learns to show
            what stands in most frames, without what moves.
        vector_detail: weight of the mean squared error of a Dict's vectors, standardised.
        kl_weight: of the posterior's divergence from a standard normal, in nats.
        reward_weight: of the squared errors of the steps' rewards, standardised.
        end_weight: of the steps' cross entropies of going on, in nats.
        learning_rate, learning_rate_end, warmup: AdamW; a cosine between both until the prior
            trains alone, another one for that; risen linearly in the first ``warmup`` steps.
        ema: decay of the running average of the weights that ``fit`` keeps if not given another.
    """

    width: int = 128
    heads: int = 4
    patch: int = 0
    time_bands: int = 6
    key_features: int = 24
    content: int = 16
    latent: int = 12
    plan_blocks: int = 3
    flow_width: int = 128
    flow_blocks: int = 4
    flow_steps: int = 4
    flow_solver: Literal["heun", "euler"] = "heun"
    flow_draws: int = 2
    prior_share: float = 0.3
    prior_batch: int = 256
    prior_memory: int = 4096
    context_frames: int = 0
    targets: int = 5
    posterior_frames: int = 15
    context_only: float = 0.5
    detail: float = 20_000.0
    still_detail: float = 6_000.0
    vector_detail: float = 50.0
    kl_weight: float = 0.01
    reward_weight: float = 1.0
    end_weight: float = 0.3
    learning_rate: float = 1e-3
    learning_rate_end: float = 2e-5
    warmup: int = 300
    ema: float = 0.999

    def __post_init__(self) -> None:
        super().__post_init__()
        layer_counts(self, "plan_blocks", "flow_blocks")
        sizes = "width heads key_features content flow_width"
        at_least(1, self, *sizes.split(), "flow_steps", "flow_draws", "prior_batch")
        at_least(1, self, "prior_memory", "posterior_frames")
        at_least(
            0,
            self,
            "latent",
            "time_bands",
            "patch",
            "warmup",
            "still_detail",
            "vector_detail",
            "kl_weight",
        )
        at_least(0, self, "reward_weight", "end_weight")
        above_zero(self, "detail", "learning_rate", "learning_rate_end")
        if self.width % self.heads or self.flow_width % self.heads:
            raise ValueError(
                f"width, flow_width: expected multiples of heads = {self.heads}, got {self.width} "
                f"and {self.flow_width}"
            )
        if self.patch and (self.patch < 4 or self.patch & (self.patch - 1)):
            raise ValueError(f"patch: expected 0, 4, 8, 16 or so on, got {self.patch}")
        if self.flow_solver not in ("heun", "euler"):
            raise ValueError(f"flow_solver: expected 'heun' or 'euler', got {self.flow_solver!r}")
        if not 0 <= self.prior_share <= 1:
            raise ValueError(f"prior_share: expected from 0 to 1, got {self.prior_share}")
        below_one(self, "context_only", "ema")

    def cell_side(self, height: int, width: int) -> int:
        """Side of a cell in pixels, for frames of that size.

        Raises:
            ValueError: the cells of ``patch`` do not come in squares of 2 x 2.
        """
        side = self.patch or 4
        while not self.patch and max(height, width) > 12 * side:
            if height % (4 * side) or width % (4 * side):
                break
            side *= 2
        if height % (2 * side) or width % (2 * side):
            raise ValueError(
                f"patch: expected one of which 2 fit into {height} x {width} pixels evenly, got "
                f"{side}; 4 does"
            )
        return side


JUMPY = CopyingConfig()
PRESETS: dict[str, CopyingConfig] = {
    "jumpy": JUMPY,
    "small": replace(
        JUMPY,
        width=64,
        key_features=16,
        content=12,
        latent=8,
        plan_blocks=2,
        flow_width=64,
        flow_blocks=3,
        posterior_frames=10,
        targets=4,
    ),
}
