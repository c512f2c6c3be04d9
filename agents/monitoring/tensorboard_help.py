"""Texts that explain the callbacks' curves and videos in TensorBoard's *Text* tab."""

from __future__ import annotations

from typing import NamedTuple


class Help(NamedTuple):
    """Tag of the text, Markdown, and charts: titles with the tags of their curves."""

    name: str
    text: str
    charts: dict[str, list[str]]


RETURNS = Help(
    "returns",
    """
Does the agent get better? Compare two curves (they share a chart under *Custom Scalars*):

| curve | meaning |
|---|---|
| `real/return` | return of the policy in the real environment: the mean of the same episodes each time |
| `rollout/ep_rew_mean` | return of an episode of training; in imagination, it is a prediction |

Higher is better. If both rise together, the imagined returns can be trusted. If only the imagined
one rises, the agent exploits an error of the world model; look at `model/...` and `videos/...`.
`train/...` and `time/...` are Stable-Baselines3's own losses and timings.
""",  # noqa: E501
    {"return: real, and in training": ["real/return", "rollout/ep_rew_mean"]},
)

MODEL = Help(
    "model",
    """
Can the world model be trusted where this agent goes? Real episodes are replayed in imagination: the
same actions, given the first observation alone.

| curve | meaning |
|---|---|
| `model/mse` | squared error of the observations (pixels from 0 to 1); 0 is perfect |
| `model/reward_error` | error of the reward of an episode; 0 is perfect |
| `model/frame_calibration` | share of frames in which the real one is not the outlier among sampled ones |
| `model/reward_calibration` | the same for the reward of an episode |
| `model/spread` | how much sampled worlds differ, relative to their error: 1 is calibrated, near 0 all are alike |
| `model/calibration_ideal` | the ideal of both. Below it the model is too sure or wrong, above it too unsure |
""",  # noqa: E501
    {
        "calibration: frames, rewards, and the ideal": [
            "model/frame_calibration", "model/reward_calibration", "model/calibration_ideal",
        ],
        "squared error of imagined observations (0 is perfect)": ["model/mse"],
        "error of the imagined reward of an episode (0 is perfect)": ["model/reward_error"],
    },
)  # fmt: skip

IMAGINATION = Help(
    "imagination_video",
    """
`videos/real_imagined_difference` (tab *Images*; tick *Show actual image size*): an episode of
the agent in three rows.

1. **real**: the real episode, the same in each column, and its reward.
2. **imagined**: the same actions in worlds that the model samples given the first frame alone, one
   per column, and the reward that they predict.
3. **difference**: black where a world agrees with what really happened.

Where the first frame does not determine the future, worlds may differ from each other and from the
real episode; elsewhere the third row should be black.
""",
    {},
)

AGENT = Help(
    "agent_video",
    """
`videos/agent_at_play` (tab *Images*): the same real episode each time, played by the agent as it
was at that step. The caption gives its return.
""",
    {},
)
