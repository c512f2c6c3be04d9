"""What the callbacks say about what they write; see ``worldmodel.training.tensorboard_help``."""

from __future__ import annotations

from typing import NamedTuple


class Guide(NamedTuple):
    """Tag of the text, Markdown, and charts: titles with the tags of their curves."""

    name: str
    text: str
    charts: dict[str, list[str]]


RETURNS = Guide(
    "returns",
    """
Does the agent get better? Compare two curves (they share a chart under *Custom Scalars*):

| curve | what it says |
|---|---|
| `real/return` | what the policy earns in the real environment: the mean of the same episodes each time |
| `rollout/ep_rew_mean` | what an episode of training paid; where training is imagined, that is a promise |

Higher is better. Both rise together: imagination is worth what it promises. Only the promise rises:
the agent has found a mistake of the world model; look at `model/...` and `videos/...`.
`train/...` and `time/...` are Stable-Baselines3's own losses and clocks.
""",  # noqa: E501
    {"return: real, and in training": ["real/return", "rollout/ep_rew_mean"]},
)

MODEL = Guide(
    "model",
    """
Can the world model be trusted where this agent goes? Real episodes are replayed in imagination: the
same actions, given the first observation alone.

| curve | what it says |
|---|---|
| `model/mse` | squared error of what is seen (pixels from 0 to 1); 0 is perfect |
| `model/reward_error` | error of the reward of an episode; 0 is perfect |
| `model/frame_calibration` | how often the real frame hides among sampled ones, instead of being the odd one out |
| `model/reward_calibration` | the same of the reward of an episode |
| `model/calibration_ideal` | where both should be. Below it the model is too sure or wrong, above it too unsure |
""",  # noqa: E501
    {
        "calibration: frames, rewards, and where they should be": [
            "model/frame_calibration", "model/reward_calibration", "model/calibration_ideal",
        ],
        "squared error of what is imagined (0 is perfect)": ["model/mse"],
        "error of the imagined reward of an episode (0 is perfect)": ["model/reward_error"],
    },
)  # fmt: skip

IMAGINATION = Guide(
    "imagination_video",
    """
`videos/real_imagined_difference` (tab *Images*; tick *Show actual image size*): an episode of
the agent in three rows.

1. **real**: what really happens, the same in each column, and what it paid.
2. **imagined**: the same actions in worlds that the model samples, one per column, and what they
   promise to pay. They know the first frame alone.
3. **difference**: black where a world agrees with what really happened.

Worlds may differ from each other, and from what really happens, where the first frame does not tell
the future; elsewhere the third row should be black.
""",
    {},
)

AGENT = Guide(
    "agent_video",
    """
`videos/agent_at_play` (tab *Images*): the same real episode each time, played by the agent as it
was by then. The caption says what it earned.
""",
    {},
)
