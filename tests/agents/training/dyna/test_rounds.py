import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from agent_fakes import FakeEnv, FakeModel
from dyna_fakes import LINE, CountedLine, LineConfig, LineEnv, LineModel
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.callbacks import BaseCallback
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents import (
    CemConfig,
    DynaResult,
    OnlineConfig,
    RoundsConfig,
    evaluate,
    train_dyna,
    train_planner,
)
from agents.training.dyna import rounds
from worldmodel import Episodes, Spec, make
from worldmodel.models.jumpy.jump.config import PRESETS

PPO = {"n_steps": 4, "batch_size": 16, "n_epochs": 1, "device": "cpu"}


def config(**settings: Any) -> RoundsConfig:
    usual = {"first_collect_steps": 16, "collect_steps": 8, "first_fit_steps": 20, "fit_steps": 20,
             "imagined_steps": 32, "num_envs": 4}  # fmt: skip
    return RoundsConfig(**{**usual, **settings})


def run(steps: int = 40, offset: float = 0.5, config: RoundsConfig = config(),  # noqa: B008
        **kwargs: Any) -> DynaResult:  # fmt: skip
    return train_dyna(
        LineModel(offset), CountedLine, steps, config, progress=False, **{**PPO, **kwargs}
    )


def content(result: DynaResult) -> list[np.ndarray]:
    weights = [p.detach().numpy() for p in result.agent.policy.parameters()]
    return [*weights, *(frames.observations for frames in result.episodes)]


def assert_same(a: DynaResult, b: DynaResult) -> None:
    assert a.rounds == b.rounds
    for x, y in zip(content(a), content(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_real_steps_are_counted_exactly() -> None:
    before = CountedLine.count
    result = run(43, config=config(hold=3))
    assert CountedLine.count - before == result.episodes.steps == 43
    assert [row.real_steps for row in result.rounds] == [16, 24, 32, 40, 43]
    assert [row.episodes for row in result.rounds] == [2, 1, 1, 1, 0]
    assert [len(e.actions) for e in result.episodes] == [8] * 5 + [3]
    for episode in result.episodes:  # held for three steps
        held = episode.actions[: len(episode.actions) // 3 * 3].reshape(-1, 3)
        assert (held == held[:, :1]).all()


def test_rows_say_what_happened() -> None:
    result = run(32, config=config(horizon=4))
    returns = [float(episode.rewards.sum()) for episode in result.episodes]
    expected = [np.mean(returns[:2]), returns[2], returns[3]]
    np.testing.assert_allclose([row.real_return for row in result.rounds], expected)
    assert [row.imagined_steps for row in result.rounds] == [32, 64, 96]
    assert result.agent.num_timesteps == 96
    assert all(np.isfinite(row.imagined_return) for row in result.rounds)
    first, second, third = result.rounds
    assert first.error == {}
    # The weight goes from 0.5 to 0 at 0.01 a step: 20 steps a fit
    assert 0.06 < second.error["loss"] < 0.12  # of the model as it was before this round's fit
    assert third.error["loss"] < 0.5 * second.error["loss"]
    assert second.losses["loss"] < second.error["loss"]


def test_the_first_round_is_random_and_episodes_differ() -> None:
    result = run(16)
    actions = np.concatenate([e.actions for e in result.episodes])
    assert len(np.unique(actions)) == 16
    begins = [float(e.observations[0, 0]) for e in result.episodes]
    assert len(set(begins)) == len(begins)
    tested = {float(LineEnv().reset(seed=number)[0][0]) for number in range(len(begins))}
    assert not tested & set(begins)  # ``evaluate`` plays others


def test_same_seed_same_bits() -> None:
    assert_same(run(), run())
    assert run(config=config(seed=1)).rounds != run().rounds


EXPLORED: dict[str, Any] = {
    "explorer": CemConfig(plans=32, worlds=1, horizon=2, iterations=3, hold=2),
    "explorer_config": OnlineConfig(first_fit_steps=60, fit_steps=4, start_steps=6, refit_every=4),
}


def test_an_explorer_collects_the_first_round(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def recorded(*args: Any, **kwargs: Any) -> Any:
        calls.append({"steps": args[2], "planner": args[3], "config": args[4], **kwargs})
        return train_planner(*args, **kwargs)

    monkeypatch.setattr(rounds, "train_planner", recorded)
    settings = config(first_collect_steps=20, seed=3)
    before = CountedLine.count
    result = run(40, config=settings, **EXPLORED)
    assert CountedLine.count - before == result.episodes.steps == 40
    assert [row.real_steps for row in result.rounds] == [20, 28, 36, 40]
    assert len(calls) == 1 and calls[0]["steps"] == 20
    assert calls[0]["config"].seed == 3  # that of the run
    assert calls[0]["planner"] == EXPLORED["explorer"]
    # After six random steps it pushes the way that is rewarded, in decisions of two steps.
    planned = result.episodes[1].actions
    assert (planned > 0).all() and (planned[::2] == planned[1::2]).all()
    begins = [float(e.observations[0, 0]) for e in result.episodes]
    assert len(set(begins)) == len(begins)
    cut = run(10, config=settings, **EXPLORED)
    assert cut.episodes.steps == 10 and len(cut.rounds) == 1


def test_a_run_with_an_explorer_goes_on(tmp_path: Path) -> None:
    settings = config(first_collect_steps=20)
    run(28, folder=tmp_path, config=settings, **EXPLORED)
    with pytest.raises(ValueError, match="explorer: hold = 2, now it is 1"):
        changed = {**EXPLORED, "explorer": replace(EXPLORED["explorer"], hold=1)}
        run(40, folder=tmp_path, config=settings, resume=True, **changed)
    with pytest.raises(ValueError, match="explorer: "):  # it began with one
        run(40, folder=tmp_path, config=settings, resume=True)
    run(28, folder=tmp_path / "random", config=settings)
    with pytest.raises(ValueError, match="explorer: "):  # it began without
        run(40, folder=tmp_path / "random", config=settings, resume=True, **EXPLORED)
    again = run(40, folder=tmp_path, config=settings, resume=True, offset=9.0, **EXPLORED)
    assert_same(again, run(40, config=settings, **EXPLORED))


class Stop(BaseCallback):
    """Kills the run in the third round."""

    def _on_step(self) -> bool:
        if self.num_timesteps > 70:
            raise KeyboardInterrupt
        return True


def test_a_killed_run_goes_on_where_its_last_round_ended(tmp_path: Path) -> None:
    whole = run(48)
    with pytest.raises(KeyboardInterrupt, match="^stopped; resume=True goes on after round 2$"):
        run(48, folder=tmp_path, callback=Stop())
    (tmp_path / ".round-0002.partial").mkdir()  # as if it had been killed while writing
    assert sorted(p.name for p in tmp_path.glob("round-*")) == ["round-0000", "round-0001"]
    before = CountedLine.count
    again = run(48, folder=tmp_path, resume=True, offset=9.0)  # its weights are read
    assert CountedLine.count - before == 48 - 24
    assert_same(whole, again)
    weights = sorted(p.parent.name for p in tmp_path.glob("*/agent.zip"))
    assert weights == [p.parent.name for p in tmp_path.glob("*/model")] == ["round-0004"]
    assert Episodes.load(tmp_path / "round-0000" / "episodes").steps == 16
    assert_same(run(48, folder=tmp_path, resume=True), whole)  # nothing was left to do
    assert CountedLine.count - before == 24


def test_a_run_that_is_stopped_in_its_first_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt("stopped after step 3")

    monkeypatch.setattr(rounds, "refit", stop)
    with pytest.raises(KeyboardInterrupt, match="^stopped in the first round, of which nothing"):
        run(48, folder=tmp_path)
    with pytest.raises(KeyboardInterrupt, match="^stopped after step 3$"):
        run(48)


def test_folders_are_not_mixed_up(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no round"):
        run(folder=tmp_path, resume=True)
    with pytest.raises(ValueError, match="resume: needs the folder"):
        run(resume=True)
    run(16, folder=tmp_path)
    with pytest.raises(FileExistsError, match="resume=True"):
        run(folder=tmp_path)
    with pytest.raises(ValueError, match="num_envs = 4, now it is 8"):
        run(folder=tmp_path, resume=True, config=config(num_envs=8))


def half(progress: float) -> float:
    return 1e-3 * progress


def other_half(progress: float) -> float:
    return 1e-3 * progress


class Flipped(CountedLine):
    spec = EnvSpec("Flipped-v0")


class OtherModel(LineModel):
    name = "other"


def test_another_run_does_not_go_on(tmp_path: Path) -> None:
    begun: dict[str, Any] = {"learning_rate": half, "gamma": 0.9, "max_grad_norm": np.float32(0.5)}
    run(16, folder=tmp_path, **begun)
    for change, message in [
        ({"learning_rate": 1e-3}, r"ppo: learning_rate = '.*rounds\.half', now it is 0.001"),
        ({"learning_rate": other_half}, r"half', now it is '.*\.other_half'"),
        ({"gamma": 0.1}, "ppo: gamma = 0.9, now it is 0.1"),
        ({"vf_coef": 0.1}, "ppo: vf_coef = None, now it is 0.1"),
        ({"max_grad_norm": np.float32(0.25)}, "ppo: max_grad_norm = 0.5, now it is 0.25"),
    ]:
        with pytest.raises(ValueError, match=f"resume: .*round-0000 was made with .*{message}"):
            run(24, folder=tmp_path, resume=True, **{**begun, **change})
    with pytest.raises(ValueError, match="ppo: gamma = 0.9, now it is 0.99"):  # by default
        run(24, folder=tmp_path, resume=True, learning_rate=half)

    def go_on(model: LineModel, env: Any) -> DynaResult:
        return train_dyna(model, env, 24, config(), folder=tmp_path, resume=True, progress=False,
                          **{**PPO, **begun, "verbose": 1})  # fmt: skip

    with pytest.raises(ValueError, match="model_config: limit = 6.0, now it is 7.0"):
        go_on(LineModel(config=LineConfig(limit=7.0)), CountedLine)
    with pytest.raises(ValueError, match="model: name = 'line', now it is 'other'"):
        go_on(OtherModel(), CountedLine)
    with pytest.raises(ValueError, match="env: id = None, now it is 'Flipped-v0'"):
        go_on(LineModel(), Flipped)
    assert go_on(LineModel(), CountedLine).rounds[-1].real_steps == 24


def test_what_earlier_versions_kept_goes_on(tmp_path: Path) -> None:
    """They told the config only."""
    run(16, folder=tmp_path, gamma=0.9)
    path = tmp_path / "round-0000" / "rounds.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({name: facts[name] for name in ("config", "rounds")}))
    assert run(24, folder=tmp_path, resume=True).rounds[-1].real_steps == 24
    path = tmp_path / "round-0001" / "rounds.json"
    path.write_text(json.dumps({**facts, "ppo": 3}))
    with pytest.raises(ValueError, match=r"rounds\.json: ppo: expected settings by name, got 3"):
        run(32, folder=tmp_path, resume=True)


def test_it_logs_against_real_steps(tmp_path: Path) -> None:
    result = run(40, config=config(num_envs=2), tensorboard_log=str(tmp_path))
    events = EventAccumulator(str(tmp_path / "dyna"))
    events.Reload()
    logged = events.Scalars("dyna/real_return")
    assert [event.step for event in logged] == [16, 24, 32, 40]
    np.testing.assert_allclose(
        [event.value for event in logged], [row.real_return for row in result.rounds], rtol=1e-6
    )
    assert [event.step for event in events.Scalars("dyna/error_loss")] == [24, 32, 40]
    assert {"dyna/fit_loss", "dyna/imagined_return"} <= set(events.Tags()["scalars"])
    assert (tmp_path / "PPO_1").is_dir()  # one log for all rounds
    assert not (tmp_path / "PPO_2").exists()


def test_it_learns_to_walk() -> None:
    """The position is the reward: walk up, at 2 a step."""
    settings = config(imagined_steps=1000, num_envs=16, horizon=4)
    result = run(32, offset=0.1, config=settings, n_steps=16, batch_size=64, n_epochs=4,
                 learning_rate=1e-2)  # fmt: skip
    returns = [row.real_return for row in result.rounds]
    assert returns[-1] > returns[0] + 15


def test_rounds_stop_imagining_early() -> None:
    """Nothing is learned at a learning rate of 0, so that the returns do not rise."""
    still: dict[str, Any] = {"imagined_steps": 4000, "stop_every": 64, "horizon": 4}
    result = run(24, config=config(**still, patience=3), learning_rate=0.0)
    assert [row.stopped for row in result.rounds] == ["returns"] * 2
    assert result.rounds[-1].imagined_steps < 8000
    assert result.rounds[-1].disagreement == 1.0  # all worlds of the line are alike
    assert result.rounds[-1].scalars()["disagreement"] == 1.0
    whole = run(16, config=config(**still, patience=None), learning_rate=0.0)
    assert whole.rounds[0].stopped is None
    assert whole.rounds[0].imagined_steps == 4000


def test_images_with_stacked_frames() -> None:
    model = FakeModel().requires_grad_(False)  # it knows all, and has nothing to learn
    settings = config(hold=3, frame_stack=2)
    result = train_dyna(model, FakeEnv, 40, settings, progress=False, **PPO)
    assert [row.real_steps for row in result.rounds] == [24, 36, 40]
    assert result.rounds[1].losses == result.rounds[1].error == {}
    starts = {frame.tobytes() for frame in result.episodes.starts()}
    first = [c.observations[:, -1] for c in model.contexts if (c.times.amax(1) == 0).all()]
    shown = model.spec.to_numpy(first[-1])
    assert {frame.tobytes() for frame in shown} <= starts
    assert result.agent.observation_space.shape == (6, 32, 32)
    assert evaluate(result.agent, FakeEnv, 2, hold=3, frame_stack=2).shape == (2,)


def test_a_real_model_of_a_real_environment(tmp_path: Path) -> None:
    env = gym.make("CartPole-v1")
    spec = Spec.from_spaces(env.observation_space, env.action_space, 8)
    model = make("jump", spec, PRESETS["vector"])
    settings = config(first_fit_steps=2, fit_steps=2, fit_batch_size=4, hold=2)
    result = train_dyna(model, "CartPole-v1", 60, settings, folder=tmp_path, progress=False, **PPO)
    assert result.rounds[-1].real_steps == result.episodes.steps == 60
    assert np.isfinite(result.rounds[-1].error["mse"])
    again = make("jump", spec, PRESETS["vector"], seed=1)
    more = train_dyna(again, "CartPole-v1", 80, settings, folder=tmp_path, resume=True,
                      progress=False, **PPO)  # fmt: skip
    assert more.rounds[: len(result.rounds)] == result.rounds
    assert more.episodes.steps == 80


def test_errors_teach() -> None:
    with pytest.raises(ValueError, match="real_steps"):
        run(0)
    with pytest.raises(ValueError, match="env: observation space"):
        train_dyna(LineModel(), FakeEnv, 10)
    with pytest.raises(ValueError, match="at most 4 fit"):
        run(config=config(hold=3, horizon=5))
    with pytest.raises(ValueError, match="explorer_config: needs an explorer"):
        run(explorer_config=OnlineConfig())
    with pytest.raises(ValueError, match="explorer: collects what copy-last is to learn"):
        train_dyna(make("copy-last", LINE), CountedLine, 10, explorer=CemConfig())
    with pytest.raises(ValueError, match="ahead: 13 decisions take 13 steps"):
        run(explorer=CemConfig(horizon=13, ahead=13))
    with pytest.raises(TypeError, match="explorer: expected settings of a planner such as CemConf"):
        run(explorer=OnlineConfig())
    with pytest.raises(ValueError, match="frame_stack"):
        train_dyna(FakeModel(), FakeEnv, 10, RoundsConfig(frame_stack=11))
    names = ("first_collect_steps", "collect_steps", "imagined_steps", "threads", "stop_every")
    for name in (*names, "patience", "disagreement"):
        with pytest.raises(ValueError, match=name):
            RoundsConfig(**{name: 0})
