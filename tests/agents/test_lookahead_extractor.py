from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_fakes import SPEC, FakeEnv, FakeModel
from stable_baselines3 import PPO
from stable_baselines3.common.torch_layers import CombinedExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from agents.lookahead import LookaheadVecWrapper
from agents.lookahead_policy import LookaheadExtractor, LookaheadPolicy, lookahead_policy
from worldmodel.spec import ActionSpec

BOX = ActionSpec("box", (2,), (), (-1.0, 0.0), (1.0, 2.0))


def space_of(**kwargs: object) -> gym.spaces.Dict:
    return LookaheadVecWrapper(DummyVecEnv([FakeEnv]), FakeModel(), **kwargs).observation_space


@pytest.mark.parametrize("shape", [(3, 32, 32), (32, 32, 3), (32, 32, 36), (36, 32, 32)])
def test_extractor_finds_the_channels(shape: tuple[int, ...]) -> None:
    channels = max(shape) if 36 in shape else 3
    space = gym.spaces.Dict(
        {
            "observation": gym.spaces.Box(0, 255, shape, np.uint8),
            "imagined": gym.spaces.Box(0, 255, (4, 3, 32, 32, channels), np.uint8),
            "reward_alive": gym.spaces.Box(-np.inf, np.inf, (4, 3, 2), np.float32),
        }
    )
    extractor = LookaheadExtractor(space, features_dim=16)
    assert extractor.transpose == (shape[-1] == channels)
    assert extractor.real.layers[0].in_channels == channels


def test_extractor_reads_every_part_alike() -> None:
    space = space_of(jumps=2)
    turned = gym.spaces.Dict(
        {**space, "observation": gym.spaces.Box(0, 255, (3, 32, 32), np.uint8)}
    )
    torch.manual_seed(0)
    extractor = LookaheadExtractor(turned, features_dim=16, imagined_dim=8, channels=4)
    parts = {
        "observation": torch.rand(5, 3, 32, 32),
        "imagined": torch.randint(0, 256, (5, 4, 2, 32, 32, 3)).float(),
        "reward_alive": torch.randn(5, 4, 2, 2),
    }
    out = extractor(parts)
    assert out.shape == (5, extractor.features_dim) == (5, 16 + 16)
    # What each action brings comes through as it is.
    torch.testing.assert_close(out[:, 16:], parts["reward_alive"].flatten(1))
    seen = []
    extractor.imagined.register_forward_hook(lambda module, given, _: seen.append(given[0]))
    extractor(parts)
    assert seen[0].shape == (40, 3, 32, 32)
    assert 0.99 < seen[0].max() <= 1
    torch.testing.assert_close(seen[0][3], parts["imagined"][0, 1, 1].movedim(-1, 0) / 255)
    for name in parts:
        changed = {**parts, name: parts[name] * 0.5}
        assert (extractor(changed) != out).any()


def test_extractor_without_frames_and_with_channels_last() -> None:
    space = space_of(jumps=2, frames=False)
    extractor = LookaheadExtractor(space, features_dim=16)
    assert extractor.transpose
    parts = {"observation": torch.rand(2, 32, 32, 3), "reward_alive": torch.zeros(2, 4, 2, 2)}
    assert extractor(parts).shape == (2, 16 + 16)


def test_what_stands_beside_comes_through() -> None:
    extractor = LookaheadExtractor(space_of(frames=False, depth=2), features_dim=16)
    parts = {
        "observation": torch.rand(2, 32, 32, 3),
        "reward_alive": torch.randn(2, 4, 2, 2),
        "returns": torch.randn(2, 4),
    }
    out = extractor(parts)
    assert extractor.outcomes == (4, 6) and extractor.features_dim == 16 + 24
    each = out[:, 16:].unflatten(1, (4, 6))  # of each candidate
    torch.testing.assert_close(each[..., :4], parts["reward_alive"].flatten(2))
    torch.testing.assert_close(each[..., 4], parts["returns"])
    torch.testing.assert_close(each[..., 5].std(1, correction=0), torch.ones(2), rtol=1e-3, atol=0)
    assert (each[..., 5].argmax(1) == parts["returns"].argmax(1)).all()
    scaled = extractor({**parts, "returns": 100 * parts["returns"] + 1000})
    last = scaled[:, 16:].unflatten(1, (4, 6))[..., 5]
    torch.testing.assert_close(last, each[..., 5], rtol=1e-3, atol=1e-3)


def test_stacked_returns_stay_with_their_candidates() -> None:
    venv = LookaheadVecWrapper(DummyVecEnv([FakeEnv] * 2), FakeModel(), frames=False, depth=2)
    stack = VecFrameStack(venv, 3)
    extractor = LookaheadExtractor(stack.observation_space, features_dim=16)
    assert extractor.outcomes == (4, 3 * (2 * 2 + 2))
    parts = {key: torch.as_tensor(part).float() for key, part in stack.reset().items()}
    each = extractor(parts)[:, 16:].unflatten(1, extractor.outcomes)
    torch.testing.assert_close(each[..., 14], parts["returns"][:, -4:])  # the latest frame's


def test_one_network_judges_all_actions() -> None:
    venv = LookaheadVecWrapper(DummyVecEnv([FakeEnv] * 2), FakeModel(), frames=False, depth=2)
    agent = PPO(LookaheadPolicy, venv, n_steps=8, batch_size=8, seed=0)
    policy = agent.policy
    observation, _ = policy.obs_to_tensor(venv.reset())
    order = [2, 0, 3, 1]
    other = {
        **observation,
        **{key: observation[key][:, order] for key in ("returns", "reward_alive")},
    }
    chances = [policy.get_distribution(each).distribution.probs for each in (observation, other)]
    torch.testing.assert_close(chances[0][:, order], chances[1])
    assert (chances[0] - 0.25).abs().max() < 0.05  # nothing is preferred before it is learned
    before = torch.cat([p.flatten() for p in policy.mlp_extractor.actor.parameters()]).clone()
    agent.learn(16)
    after = torch.cat([p.flatten() for p in policy.mlp_extractor.actor.parameters()])
    assert (before != after).any()


def test_networks_of_the_policy_may_be_others(tmp_path: Path) -> None:
    venv = LookaheadVecWrapper(DummyVecEnv([FakeEnv]), FakeModel(), frames=False)
    other = {"net_arch": [9, 7], "activation_fn": torch.nn.ReLU}
    agent = PPO(LookaheadPolicy, venv, n_steps=8, batch_size=8, policy_kwargs=other)
    sizes = [layer.out_features for layer in agent.policy.mlp_extractor.actor[::2]]
    assert sizes == [9, 7, 1] and isinstance(agent.policy.mlp_extractor.critic[1], torch.nn.ReLU)
    agent.learn(8)
    agent.policy.save(tmp_path / "policy")
    again = LookaheadPolicy.load(tmp_path / "policy")
    seen = venv.reset()
    np.testing.assert_array_equal(
        *(each.predict(seen, deterministic=True)[0] for each in (agent, again))
    )
    with pytest.raises(ValueError, match="needs a LookaheadExtractor, got CombinedExtractor"):
        PPO(LookaheadPolicy, venv, policy_kwargs={"features_extractor_class": CombinedExtractor})


def test_what_the_policy_cannot_judge_is_refused() -> None:
    some = LookaheadVecWrapper(DummyVecEnv([FakeEnv]), FakeModel(), candidates=[0, 1])
    with pytest.raises(ValueError, match="2 candidates; take .MultiInputPolicy."):
        PPO(LookaheadPolicy, some)
    assert lookahead_policy(some)[0] == "MultiInputPolicy"
    every = LookaheadVecWrapper(DummyVecEnv([FakeEnv]), FakeModel())
    assert lookahead_policy(every)[0] is LookaheadPolicy


def test_extractor_rejects_other_spaces() -> None:
    for space in (SPEC.observation_space(), gym.spaces.Dict({"observation": BOX.to_space()})):
        with pytest.raises(ValueError, match="LookaheadVecWrapper"):
            LookaheadExtractor(space)
