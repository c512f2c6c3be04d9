"""The main job, from end to end, in minutes on two CPU cores: ``make demo``.

1. one context and four imagined futures, as a GIF, from a released world model;
2. a fresh world model trained for a short while, with scalars and videos in TensorBoard;
3. the time to a far frame, JUMP against SVG-LP and state-space models;
4. random play, planning and PPO trained in imagination, in the real environment; meanwhile, in a
   second process, CartPole solved in a world model that 1,500 real steps made.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
import tyro

import worldmodel
from agents import (
    AgentVideo,
    Imagination,
    ImaginationVideo,
    LookaheadVecWrapper,
    RandomAgent,
    RealReturns,
    TreeSearch,
    TreeSearchConfig,
    add_video,
    compare,
    tile_videos,
    train_in_imagination,
    write_video,
)
from envs import play, sample_scenes
from evaluation.measurements.control import Contestant, Control
from evaluation.measurements.speed import Speed, wide
from worldmodel import Spec, WorldModel
from worldmodel.common import results

ENV = "envs:narratives/TravelingSalesman-v0"
MODEL = "traveling-salesman-jumpy"
HOLD = 5  # steps of one leg: the agents decide once per leg
SCORE = "real return"  # as ``python -m agents train`` ends


@dataclass(frozen=True)
class Quickstart:
    """See how far a laptop gets in a few minutes."""

    out: Path = Path("outputs/quickstart")
    """Folder for the GIF, the result tables and TensorBoard's logs."""
    train_steps: int = 150
    """Steps of the short training."""
    ppo_steps: int = 768
    """Imagined decisions that PPO learns from."""
    cartpole_steps: int = 1500
    """Real steps that PPO's world model of CartPole learns from."""
    episodes: int = 32
    """Real episodes that every agent plays."""
    num_threads: int = 1
    seed: int = 0


def imagine_futures(args: Quickstart) -> None:
    """Four plans imagined from one frame of a test scene, beside what they really do."""
    model = worldmodel.load(MODEL)
    scene = sample_scenes(ENV, 1, split="test", size=32, seed=args.seed)
    random = torch.Generator().manual_seed(args.seed)
    tours = torch.stack([torch.randperm(4, generator=random) for _ in range(4)])
    plans = tours.repeat_interleave(HOLD, 1)  # (4, 20): a random tour each
    times = torch.arange(plans.shape[1] + 1)

    imagination = Imagination(model, seed=args.seed)
    imagination.reset(scene.observations(times[None, :1])[0].numpy())  # the context: one frame
    frames = imagination.render(imagination.worlds(1), times, plans[None])  # (1, 1, 4, 21, ...)
    real = play(scene.simulator, scene.scene_ids.expand(4), plans, size=32)
    clips = np.concatenate([real.observations(times.expand(4, -1)).numpy(), frames[0, 0]])
    captions = [f"{kind} {i + 1}" for kind in ("real", "imagined") for i in range(4)]
    large = clips.repeat(4, 2).repeat(4, 3)
    path = write_video(args.out / "futures.gif", tile_videos(large, 4, captions=captions), fps=4)
    print(f"   one context frame and four imagined futures, below what really happens: {path}")


def train_a_little(args: Quickstart, logs: Path) -> None:
    """A small JUMP from scratch, on scenes that the environment makes as it goes."""
    env = gym.make(ENV, size=32)
    source = env.unwrapped.scenes(batch_size=32, seed=args.seed, hold=HOLD)
    spec = Spec.from_spaces(env.observation_space, env.action_space, window=40)
    # As the released model: nothing is left to chance. And a warm-up as short as the training.
    config = replace(worldmodel.preset("jump", "small"), latent=0, warmup=20)
    model = worldmodel.make("jump", spec, config, args.seed)

    def film(progress: worldmodel.Progress) -> None:
        if progress.writer is not None and progress.step == args.train_steps:
            both = compare(progress.model, env, seed=args.seed, hold=HOLD, worlds=3)
            clips, captions = both.clips()
            add_video(
                progress.writer, "videos/after_short_training", clips, progress.step,
                columns=3, captions=captions,
            )  # fmt: skip

    folder = logs / time.strftime("fit-%Y%m%d-%H%M%S")
    losses: list[float] = []
    worldmodel.fit(
        model, source, args.train_steps, folder=folder, seed=args.seed,
        log_every=10, callbacks=[lambda p: losses.append(p.parts["mse"]), film],
    )  # fmt: skip
    print("   so few steps show that the error falls; the released model took 8,698")
    first, last = np.mean(losses[:5]), np.mean(losses[-5:])  # of batches, which differ
    print(f"   mean squared error {first:.4f} -> {last:.4f}; checkpoint: {folder}")


def compare_speed(args: Quickstart) -> None:
    """Seconds to the frame at distance T, small presets at the demo's frame size."""
    models = ("jump:small", "svg-lp:small", "sssm:small", "sssm:jumpy")
    distances = (5, 10, 20, 40, 80)
    rows = Speed(models, distances, batches=(1, 16), size=32, repeats=5).measure()
    columns = ["model", "preset", "batch", *(f"T={t}" for t in distances)]
    print("   seconds to the frame at distance T:")
    print(results.table(wide(rows), columns))
    print("   how many times longer than JUMP:")
    print(results.table(wide(rows, "ratio"), columns))
    results.write(args.out / "speed.json", results.envelope("speed", {"size": 32}, rows))


def train_ppo(args: Quickstart, model: WorldModel, logs: Path) -> Contestant:
    """PPO that never takes a real step: it learns from imagined ones, five at a jump, and sees what
    three decisions may bring.
    """
    look = partial(LookaheadVecWrapper, model=model, jumps=1, hold=HOLD, depth=3, frames=False)
    env = gym.make(ENV, size=32, split="test")
    logged = [
        RealReturns(
            lambda: gym.make(ENV, size=32, split="test"), args.ppo_steps, hold=HOLD, wrap=look
        ),
        ImaginationVideo(env, model, args.ppo_steps, HOLD, wrap=look),
        AgentVideo(env, args.ppo_steps, HOLD, wrap=look),
    ]
    agent = train_in_imagination(
        model, lambda: gym.make(ENV, size=32), args.ppo_steps, num_envs=16, hold=HOLD, wrap=look,
        seed=args.seed, callback=logged, tensorboard_log=str(logs), threads=args.num_threads,
        progress_bar=sys.stdout.isatty(),
    )  # fmt: skip
    return Contestant(agent, wrap=look)


def compare_agents(args: Quickstart, logs: Path) -> None:
    """Random play, a planner and PPO, on the same real test episodes."""
    model = worldmodel.load(MODEL)
    # Four decisions make a tour, so that 256 plans are all there are; in this model nothing is left
    # to chance, so that one world is enough.
    config = TreeSearchConfig(plans=256, worlds=1, horizon=4, hold=HOLD, seed=args.seed)
    contestants = {
        "random": Contestant(RandomAgent(model.spec.action.to_space(), args.seed)),
        "planner (tree search)": Contestant(TreeSearch(model, config)),
        "PPO trained in imagination": train_ppo(args, model, logs),
    }
    control = Control(env=ENV, episodes=args.episodes, hold=HOLD, seed=args.seed)
    rows = control.play(contestants)
    print(f"   real return over {args.episodes} test episodes; normalised so that random")
    print("   play gets 0 and the best tour 1, with its 95% interval from low to high:")
    print(results.table(rows, ["agent", "return", "normalised_return", "low", "high", "episodes"]))
    results.write(args.out / "control.json", results.envelope("control", vars(args), rows))


def begin_cartpole(args: Quickstart) -> tuple[subprocess.Popen[bytes], Path]:
    """PPO in imagination by CartPole's recipe, in a process of its own, and where it writes."""
    folder = args.out / time.strftime("cartpole-%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    options = (
        f"--env CartPole-v1 --method auto --steps {args.cartpole_steps} --evaluate-every 0 "
        f"--eval-episodes 20 --seed {args.seed} --num-threads {args.num_threads}"
    )
    log = folder / "log.txt"
    with log.open("wb") as file:
        command = [sys.executable, "-m", "agents", "train", *options.split(), "--out", str(folder)]
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT), log


def main() -> None:
    """Run all four parts."""
    args = tyro.cli(Quickstart, description=__doc__)
    torch.set_num_threads(args.num_threads)
    logs = args.out / "tensorboard"
    begin = time.monotonic()

    def announce(title: str) -> None:
        print(f"\n[{time.monotonic() - begin:4.0f} s] {title}", flush=True)

    announce("1/4 Imagining: one context, several futures")
    imagine_futures(args)
    announce("2/4 Training a world model for a short while")
    train_a_little(args, logs)
    announce("3/4 Timing the jump")
    compare_speed(args)
    announce("4/4 Acting: random play, planning, PPO in imagination (two minutes)")
    cartpole, log = begin_cartpole(args)
    try:
        compare_agents(args, logs)
        failed = cartpole.wait()
    finally:
        cartpole.kill()
    if failed:
        raise RuntimeError(f"CartPole: expected it to be learned, but it failed; see {log}")
    print(
        f"   CartPole, PPO in a world model of {args.cartpole_steps:,} real steps (of 500 at most):"
    )
    print("".join(f"   {line}\n" for line in log.read_text().splitlines() if SCORE in line), end="")
    announce("Done.")
    print(f"   tables: {args.out}\n   videos and curves: .venv/bin/tensorboard --logdir {logs}")


if __name__ == "__main__":
    main()
