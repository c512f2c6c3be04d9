"""``python -m agents``: each verb once, small; what was trained is found again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import DQN, PPO
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import worldmodel
from agents import Cem, CemConfig
from agents.__main__ import main
from agents.training import imagined_ppo, online_planning
from agents.training import run as runs
from agents.training.dyna import rounds
from agents.training.run_config import RunConfig
from worldmodel import Spec, collect
from worldmodel.spec import ActionSpec

TSP = "envs:narratives/TravelingSalesman-v0"
CART = "CartPole-v1"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Untrained, of the spaces of two environments, and recorded episodes."""
    folder = tmp_path_factory.mktemp("models")
    image = Spec((3, 16, 16), ActionSpec("discrete", (), (4,)), 10)
    episodes = collect(CART, 3, progress=False)
    made = {TSP: worldmodel.make("jump", image, "small")}
    made[CART] = worldmodel.make("jump", episodes.spec(8))
    paths = dict[str, str]()
    for number, (env, model) in enumerate(made.items()):
        worldmodel.save(model, folder / str(number))
        paths[env] = str(folder / str(number))
    paths["episodes"] = str(episodes.save(folder / "episodes"))
    return paths


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["agents", *map(str, arguments)])
    main()


@pytest.mark.parametrize(
    ("method", "env", "more"),
    [
        ("imagination", TSP, ("--hold", 5, "--frame-stack", 2, "--size", 16)),
        ("imagination", CART, ("--episodes", "episodes", "--horizon", 3)),
        ("dyna", CART, ("--window", 8, "--fit-every", 20, "--imagined-steps", 8)),
        ("dyna", CART, ("--algorithm", "dqn", "--fit-every", 20, "--branches", 2, "--updates", 2)),
        ("lookahead", TSP, ("--hold", 5, "--jumps", 1, "--size", 16, "--frame-stack", 2)),
        ("lookahead", CART, ()),
        ("imagination", TSP, ("--hold", 5, "--depth", 2, "--size", 16)),
        (
            "real",
            CART,
            (
                "--algorithm",
                "dqn",
            ),
        ),
        ("real", TSP, ("--frame-stack", 2, "--size", 16)),
    ],
)
def test_train_and_enjoy(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    models: dict[str, str],
    method: str,
    env: str,
    more: tuple[Any, ...],
) -> None:
    out = tmp_path / "agent"
    given = [models.get(str(word), word) for word in more]
    if method in ("imagination", "lookahead"):
        given += ["--model", models[env]]
    monkeypatch.setitem(imagined_ppo.IMAGE_SETTINGS, "n_steps", 4)
    monkeypatch.setitem(imagined_ppo.VECTOR_SETTINGS, "n_steps", 4)
    run(
        monkeypatch, "train", "--env", env, "--method", method, "--out", out, "--steps", 40,
        "--num-envs", 2, "--fit-steps", 1, "--eval-episodes", 2, "--evaluate-every", 40, *given,
    )  # fmt: skip
    said = capsys.readouterr().out
    assert "random play:" in said and f"python -m agents enjoy {out}" in said
    agent, config = runs.load(out)
    assert isinstance(agent, DQN if "dqn" in more else PPO)
    assert config.env == env and config.method == method and config.steps == 40
    assert (out / "model" / "config.json").is_file() == (method == "dyna")
    (log, *_) = sorted(path for path in out.iterdir() if path.name.startswith(("PPO", "DQN")))
    events = EventAccumulator(str(log))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert "real/return" in scalars
    assert ("model/mse" in scalars) == (method != "real")
    filmed = env == TSP
    assert ("videos/agent_at_play" in events.Tags()["images"]) == filmed
    assert "how_to_read/returns/text_summary" in events.Tags()["tensors"]
    if method == "imagination":
        assert "rollout/ep_rew_mean" in scalars
        assert ("videos/real_imagined_difference" in events.Tags()["images"]) == filmed
    run(monkeypatch, "enjoy", out, "--episodes", 2)
    said = capsys.readouterr().out
    assert "real return, 2 episodes:" in said
    assert (out / "enjoy.gif").is_file() == filmed
    with pytest.raises(SystemExit, match="already holds an agent"):
        run(monkeypatch, "train", "--env", env, "--method", "real", "--out", out)


def test_plan_online_and_enjoy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "agent"
    run(
        monkeypatch, "train", "--env", CART, "--method", "planner", "--out", out, "--steps", 230,
        "--fit-steps", 2, "--fit-every", 20, "--planner.plans", 8, "--planner.horizon", 3,
        "--planner.worlds", 2, "--eval-episodes", 2, "--evaluate-every", 200,
    )  # fmt: skip
    assert "random play:" in capsys.readouterr().out
    agent, config = runs.load(out)
    assert isinstance(agent, Cem) and agent.config == config.planner_config
    assert agent.config.plans == 8 and agent.model.name == "ensemble"
    events = EventAccumulator(str(out / "planner"))
    events.Reload()
    assert {"real/return", "planner/real_return", "model/mse"} <= set(events.Tags()["scalars"])
    run(monkeypatch, "enjoy", out, "--episodes", 2)
    assert "real return, 2 episodes:" in capsys.readouterr().out


def test_planning_online_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planner = CemConfig(plans=8, worlds=1, horizon=3, iterations=2)
    config = RunConfig(CART, "planner", steps=240, fit_steps=2, fit_every=10, planner=planner)
    whole = runs.train(config, tmp_path / "whole", evaluate_every=0)
    refit, count = online_planning.refit, 0

    def killed(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return refit(*arguments)

    monkeypatch.setattr(online_planning, "refit", killed)
    with pytest.raises(KeyboardInterrupt, match="the same command goes on after round"):
        runs.train(config, tmp_path / "parts", evaluate_every=0)
    parts = runs.train(config, tmp_path / "parts", evaluate_every=0)
    for agent in (whole, parts):
        assert isinstance(agent, Cem)
    weights = (dict(agent.model.state_dict()) for agent in (whole, parts))  # type: ignore[union-attr]
    for one, other in zip(*(each.values() for each in weights), strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithm": "dqn"}, "has no policy that learns"),
        ({"horizon": 5}, "its horizon is planner.horizon"),
        ({"fit_steps": 0}, "has to be fitted"),
        ({"planner": CemConfig(seed=3)}, "give --seed"),
        ({"planner": CemConfig(hold=3)}, "give --seed, --hold"),
    ],
)
def test_settings_that_the_planner_does_not_know(settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunConfig(CART, "planner", **settings)


@pytest.mark.parametrize("planner", ["random-shooting", "cem", "mppi", "tree-search"])
def test_plan(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    models: dict[str, str],
    planner: str,
) -> None:
    film = tmp_path / "plan.gif"
    run(
        monkeypatch, "plan", models[TSP], "--env", TSP, "--planner", planner, "--plans", 8,
        "--worlds", 1, "--hold", 5, "--episodes", 2, "--video", film,
    )  # fmt: skip
    said = capsys.readouterr().out
    assert "random play:" in said and "a decision for 2 agents at once took" in said
    assert film.stat().st_size > 1000


def test_planning_with_vectors_has_no_film(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    models: dict[str, str],
) -> None:
    film = tmp_path / "plan.gif"
    run(
        monkeypatch, "plan", models[CART], "--env", CART, "--plans", 4, "--worlds", 1,
        "--horizon", 3, "--ahead", 3, "--episodes", 1, "--video", film,
    )  # fmt: skip
    assert "no video" in capsys.readouterr().out and not film.exists()


def test_a_plan_holds_its_actions(monkeypatch: pytest.MonkeyPatch, models: dict[str, str]) -> None:
    with pytest.raises(SystemExit, match="error: hold: expected at least 1, got 0"):
        run(monkeypatch, "plan", models[CART], "--env", CART, "--hold", 0)


def test_dyna_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig(
        CART, "dyna", steps=60, num_envs=2, window=8, fit_steps=1, fit_every=20, imagined_steps=8
    )
    monkeypatch.setitem(imagined_ppo.IMAGE_SETTINGS, "n_steps", 4)
    monkeypatch.setitem(imagined_ppo.VECTOR_SETTINGS, "n_steps", 4)
    whole = runs.train(config, tmp_path / "whole", evaluate_every=0)

    class Killed(Exception): ...

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(PPO, "save", _second(PPO.save, killed))
        runs.train(config, tmp_path / "parts", evaluate_every=0)
    resumed = runs.train(config, tmp_path / "parts", evaluate_every=0)
    one, other = (config.play(agent, None, 3, seed=0) for agent in (whole, resumed))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_dyna_says_how_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """A signal in the second round's fit, which by itself would tell of its own steps."""
    refit = rounds.refit

    def interrupted(model: Any, *given: Any) -> Any:
        if given[2] == 1:  # of episodes, config, number, progress
            model.register_forward_pre_hook(lambda *_: os.kill(os.getpid(), number))
        return refit(model, *given)

    monkeypatch.setattr(rounds, "refit", interrupted)
    monkeypatch.setitem(imagined_ppo.IMAGE_SETTINGS, "n_steps", 4)
    monkeypatch.setitem(imagined_ppo.VECTOR_SETTINGS, "n_steps", 4)
    with pytest.raises(SystemExit) as ended:
        run(
            monkeypatch, "train", "--env", CART, "--method", "dyna", "--out", tmp_path,
            "--steps", 60, "--num-envs", 2, "--window", 8, "--fit-steps", 3, "--fit-every", 10,
            "--imagined-steps", 8, "--evaluate-every", 0,
        )  # fmt: skip
    assert ended.value.code == "stopped; the same command goes on after round 1"


def _second(first: Any, then: Any) -> Any:
    """A function that is the first one once, and then the other."""
    calls = iter([first])
    return lambda *arguments, **settings: next(calls, then)(*arguments, **settings)


def test_who_was_killed_while_cleaning_up_cleans_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: dict[str, str]
) -> None:
    config = RunConfig(CART, model=models[CART], steps=64, num_envs=2)
    trained = runs.train(config, tmp_path, evaluate_every=0)
    (tmp_path / "checkpoint-0000000032").mkdir()
    (tmp_path / "begun.json").write_text((tmp_path / "agent.json").read_text())
    monkeypatch.setattr(runs, "METHODS", {})  # nothing is trained again
    found = runs.train(config, tmp_path, evaluate_every=0)
    played = [config.play(agent, None, 3, seed=0) for agent in (trained, found)]
    np.testing.assert_array_equal(*played)
    assert not [*tmp_path.glob("checkpoint-*"), *tmp_path.glob("begun.json")]
    with pytest.raises(FileExistsError, match="already holds an agent"):
        runs.train(config, tmp_path, evaluate_every=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithm": "sac"}, r"algorithm: sac is for Box .* Discrete\(2\); expected ppo or dqn$"),
        (
            {"algorithm": "dqn", "env": "Pendulum-v1"},
            r"algorithm: dqn is for Discrete actions, those of env are Box.*; expected ppo or sac$",
        ),
        ({"method": "dyna", "algorithm": "sac"}, "algorithm: sac is for Box"),
        ({"env": TSP, "size": 16, "frame_stack": 9}, "frame_stack: 9 frames"),
        ({"method": "lookahead", "env": "Pendulum-v1", "model": CART}, "env: observation space"),
    ],
)
def test_what_does_not_fit_is_not_begun(
    tmp_path: Path, models: dict[str, str], settings: dict[str, Any], message: str
) -> None:
    given = {"env": CART, "method": "real", "steps": 20, "num_envs": 2, **settings}
    if "model" in given:
        given["model"] = models[given["model"]]
    with pytest.raises(ValueError, match=message):
        runs.train(RunConfig(**given), tmp_path, evaluate_every=0)
    assert not (tmp_path / "begun.json").exists()
    with pytest.raises(gym.error.Error, match="`NoSuch` doesn.t exist"):
        runs.train(RunConfig("NoSuch-v0", "real"), tmp_path)
    assert not (tmp_path / "begun.json").exists()


@pytest.mark.parametrize("method", ["real", "dyna"])
def test_a_device_that_is_not_there(tmp_path: Path, method: Any) -> None:
    with pytest.raises(ValueError, match=r"device: nope cannot be used here"):
        runs.train(RunConfig(CART, method, steps=20), tmp_path, device="nope")
    assert not (tmp_path / "begun.json").exists()


def test_numbers_are_checked_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    words = ("train", "--env", CART, "--method", "real", "--steps", 20, "--out", out)
    for option, least in (("--eval-episodes", 1), ("--evaluate-every", 0)):
        name = option[2:].replace("-", "_")
        with pytest.raises(SystemExit, match=f"{name}: expected at least {least}, got {least - 1}"):
            run(monkeypatch, *words, option, least - 1)
    with pytest.raises(ValueError, match="threads: expected at least 1, got 0"):
        runs.train(RunConfig(CART, "real"), out, threads=0)
    assert not out.exists()


def test_a_run_of_which_nothing_is_kept_may_begin_anew(
    tmp_path: Path, models: dict[str, str]
) -> None:
    config = RunConfig(CART, model=models[CART], horizon=99, steps=20, num_envs=2)
    with pytest.raises(ValueError, match="horizon"):
        runs.train(config, tmp_path, evaluate_every=0)
    runs.train(replace(config, horizon=2), tmp_path, evaluate_every=0)
    assert runs.load(tmp_path)[1].horizon == 2


def test_other_settings_do_not_go_on_with_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = RunConfig(CART, "real", "dqn", steps=40)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="decision"):
        patch.setattr(DQN, "train", lambda *_, **__: os.kill(os.getpid(), signal.SIGINT))
        runs.train(config, tmp_path, evaluate_every=0)
    for other in (replace(config, seed=1), replace(config, algorithm="ppo")):
        with pytest.raises(ValueError, match=r"(seed|algorithm): a run was begun in .* give the"):
            runs.train(other, tmp_path, evaluate_every=0)
    runs.train(config, tmp_path, evaluate_every=0)


@pytest.mark.parametrize("method", ["imagination", "dyna"])
def test_another_model_of_the_same_name_does_not_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: dict[str, str], method: Any
) -> None:
    model = Path(shutil.copytree(models[CART], tmp_path / "model"))
    config = RunConfig(
        CART, method, model=str(model), steps=64, num_envs=2, fit_steps=0, fit_every=20,
        imagined_steps=8,
    )  # fmt: skip
    monkeypatch.setitem(imagined_ppo.IMAGE_SETTINGS, "n_steps", 4)
    monkeypatch.setitem(imagined_ppo.VECTOR_SETTINGS, "n_steps", 4)

    def stop(*_: Any) -> None:
        if any((tmp_path / "run").glob("rounds/round-*")) or method == "imagination":
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="the same command"):
        patch.setattr(PPO, "train", stop)
        runs.train(config, tmp_path / "run", evaluate_every=0)
    loaded = worldmodel.load(model)
    worldmodel.save(worldmodel.make("jump", loaded.spec, loaded.config, seed=1), model)
    with pytest.raises(ValueError, match=r"model: what is in .* has changed since the run in .*"):
        runs.train(config, tmp_path / "run", evaluate_every=0)
    begun = tmp_path / "run" / "begun.json"
    facts = json.loads(begun.read_text())
    del facts["digest"]  # as earlier versions noted
    begun.write_text(json.dumps(facts))
    runs.train(config, tmp_path / "run", evaluate_every=0)


def test_same_seed_same_agent(tmp_path: Path, models: dict[str, str]) -> None:
    config = RunConfig(CART, model=models[CART], steps=64, num_envs=2, frame_stack=2, seed=3)
    played = []
    for name in ("one", "other"):
        agent = runs.train(config, tmp_path / name, evaluate_every=0)
        again, kept = runs.load(tmp_path / name)
        assert kept == config
        played.append(config.play(again, None, 3, seed=0))
        np.testing.assert_array_equal(played[-1], config.play(agent, None, 3, seed=0))
    np.testing.assert_array_equal(*played)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "imagination"}, "model: imagination needs a trained world model"),
        ({"method": "lookahead", "algorithm": "dqn"}, "algorithm: lookahead is for ppo"),
        ({"method": "dyna", "depth": 2}, "depth: is of PPO with lookahead; expected 1"),
        ({"method": "guess"}, "method: expected"),
        ({"method": "real", "algorithm": "a2c"}, "algorithm: expected"),
        ({"method": "real", "episodes": "runs"}, "episodes: are for method='imagination'"),
        ({"method": "real", "steps": 0}, "steps"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RunConfig(CART, **settings)


def test_usage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, models: dict[str, str]) -> None:
    with pytest.raises(SystemExit, match="holds no agent.json"):
        run(monkeypatch, "enjoy", tmp_path)
    (tmp_path / "agent.json").write_text(json.dumps({"format": 9, "env": CART}))
    with pytest.raises(SystemExit, match="another format"):
        run(monkeypatch, "enjoy", tmp_path)
    with pytest.raises(SystemExit, match="shipped ones are"):
        run(monkeypatch, "plan", "nowhere", "--env", CART)
    with pytest.raises(SystemExit, match="env: observation space"):
        run(monkeypatch, "train", "--env", "Pendulum-v1", "--model", models[CART],
            "--out", tmp_path / "new")  # fmt: skip
    with pytest.raises(SystemExit, match="num_threads: expected at least 1, got 0"):
        run(monkeypatch, "enjoy", tmp_path, "--num-threads", 0)
    with pytest.raises(SystemExit, match="`Nothing` doesn.t exist"):
        run(monkeypatch, "plan", models[CART], "--env", "Nothing-v0")
