"""Reward and continuation read from a world and a key, without rendering (ours)."""

from __future__ import annotations

from torch import Tensor, nn

from worldmodel.rewards import reward_layer


class SceneVector(nn.Module):
    """A world (z, r) to one vector, computed once per world.

    Args:
        memory: channels of r.
        latent: channels of all of z; 0 without a global z.
        grid: height and width of z.
        cell: side of the cells of r that make one of z.
        features: width of the vector.
    """

    def __init__(
        self, memory: int, latent: int, grid: tuple[int, int], cell: int, features: int
    ) -> None:
        super().__init__()
        self.from_memory = nn.Conv2d(memory, 32, cell, cell)
        self.from_latent = nn.Conv2d(latent, 32, 3, padding=1) if latent else None
        self.to_vector = nn.Sequential(
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * grid[0] * grid[1], features),
        )

    def forward(self, z: Tensor | None, r: Tensor) -> Tensor:
        """z (P, nt, latent, h, w) and r (P, memory, cell h, cell w) to (P, features)."""
        grid = self.from_memory(r)
        if self.from_latent is not None and z is not None:
            grid = self.from_latent(z.flatten(1, 2)) + grid
        vector: Tensor = self.to_vector(grid)
        return vector


class RewardContinueHead(nn.Module):
    """reward(s, v) and continue(s, v) for S worlds x N plans x L times in one broadcast.

    The first layer is W_s s + W_v v + (U_s s) * (U_v v): each factor is computed once per world or
    once per plan; the product lets a key choose what to read from the scene.
    """

    def __init__(self, scene: int, key: int, hidden: int) -> None:
        super().__init__()
        self.from_scene = nn.Linear(scene, 2 * hidden)
        self.from_key = nn.Sequential(
            nn.Linear(key, hidden), nn.ReLU(), nn.Linear(hidden, 2 * hidden)
        )
        middle, last = nn.Linear(hidden, hidden // 2), reward_layer(hidden // 2)
        # in place: scoring plans is bound by memory, not by arithmetic
        self.out = nn.Sequential(nn.ReLU(inplace=True), middle, nn.ReLU(inplace=True), last)

    def forward(self, scene: Tensor, key_features: Tensor) -> tuple[Tensor, Tensor]:
        """Scene vectors (B, S, scene), and ``from_key`` of the keys (B, N, L, 2 * hidden).

        Returns:
            reward, on its scale, and continuation logit of each step, both (B, S, N, L).
        """
        s_add, s_gate = self.from_scene(scene)[:, :, None, None].chunk(2, -1)
        v_add, v_gate = key_features[:, None].chunk(2, -1)
        out = (s_add + v_add).addcmul_(s_gate, v_gate)
        reward, logit = self.out(out).unbind(-1)
        return reward, logit
