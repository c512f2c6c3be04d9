"""Which command makes which result: what ``bench`` runs, the report and docs/results.md cite."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Training:
    """A world model that a result needs and that is not shipped.

    Attributes:
        folder: its checkpoint.
        command: what trains it.
        minutes: of one thread of the machine that the results were made on.
    """

    folder: Path
    command: str
    minutes: int


@dataclass(frozen=True)
class ResultFile:
    """One JSON file of results.

    Attributes:
        name: of the file, without its ending.
        options: of the command: package, verb and settings.
        minutes: as for ``Training``, without that of the world models it needs.
        needs: world models that must be there.
    """

    name: str
    options: str
    minutes: int
    needs: tuple[Training, ...] = ()

    @property
    def command(self) -> str:
        """As docs/results.md has it."""
        return f"python -m {self.options} --json {self.name}.json"


def _training(name: str, options: str, minutes: int) -> Training:
    folder = Path("runs") / name
    command = f"python -m worldmodel train {options} --video-every 0 --out {folder.as_posix()}"
    return Training(folder, command, minutes)


_TSP = "--env envs:narratives/TravelingSalesman-v0"
INTERCEPT = _training("intercept", "--env envs:narratives/Intercept-v0 --steps 5000", 35)
FIND = _training(
    "find",
    "--env envs:dice/FindDigit-v0 --steps 20000 "
    "--set scene=512 head=256 path=64 reward_variance=0.005",
    150,
)
_DICE = (
    "--env envs:dice/Views-v0 --poses --steps 16000 --precision bf16 --set targets=3 "
    "context_frames=10 context_max=5 variance_start=0.5 variance_end=0.03 anneal=0.4"
)
DICE, DICE_BADJ = _training("dice", _DICE, 45), _training("dice-badj", f"--model badj {_DICE}", 45)
GQN = _training(
    "dice-gqn",
    "--env envs:dice/Views-v0 --poses --model gqn --preset small --steps 1500 --batch-size 16 "
    "--precision bf16 --set context_frames=10 context_max=5 variance_start=0.5 "
    "variance_end=0.03 anneal=0.4",
    20,
)
SSSM = _training(
    "ctl-sssm-jumpy", f"{_TSP} --model sssm --preset jumpy --batch-size 16 --steps 3000", 25
)
SVG = _training(
    "ctl-svg-lp-small", f"{_TSP} --model svg-lp --preset small --batch-size 16 --steps 3000", 60
)

RESULTS = (
    ResultFile("envs", "envs bench --num-threads 2 --seconds 1.5", 3),
    ResultFile("returns", "evaluation returns", 1),
    ResultFile("speed-all", "evaluation speed --num-threads 1 --repeats 15", 15),
    ResultFile(
        "speed",
        "evaluation speed --models jump:narrative svg-lp:paper sssm:paper sssm:paper-jumpy "
        "--distances 5 10 20 40 --batches 1 16 --precision none float32 bf16 --repeats 15",
        9,
    ),
    ResultFile(
        "speed-flow",
        "evaluation speed --models jump:narrative jump:jumpy jump:small --distances 5 40 160 "
        "--batches 1 16 --precision none bf16 --repeats 15",
        1,
    ),
    ResultFile("cost", "evaluation cost --longest 2", 10),
    ResultFile(
        "imagination",  # needs the extra "peers"
        "evaluation imagination torchrl:rssm jump:small jump:jumpy jump:narrative sssm:small "
        "svg-lp:small --horizons 5 20 40 --plans 1 64 --repeats 15 --precision none auto",
        5,
    ),
    ResultFile(
        "imagination-plans",
        "evaluation imagination jump:small jump:jumpy jump:narrative --horizons 40 --plans 64 "
        "--worlds 16 --repeats 9",
        2,
    ),
    ResultFile(
        "imagined-envs",
        "evaluation imagination jump:small jump:jumpy --size 32 --horizons 5 --plans 1 "
        "--num-envs 1 16 256 1024 --repeats 9",
        3,
    ),
    ResultFile(
        "bench",
        "worldmodel bench --models jump:jumpy jump:narrative svg-lp:small ensemble:vector "
        "--num-threads 1 2 --repeats 15",
        5,
    ),
    ResultFile("consistency", "evaluation consistency", 1),
    ResultFile("consistency-controlled", "evaluation consistency traveling-salesman-jumpy", 4),
    ResultFile(
        "control-reaction",
        "evaluation control --checkpoint color-reaction --horizon 2 --worlds 1 --plans 27 "
        "--episodes 100",
        3,
    ),
    ResultFile("consistency-reaction", "evaluation consistency color-reaction", 1),
    ResultFile(
        "consistency-nature",
        "evaluation consistency traveling-salesman-nature --flow-steps 1 2 4 8 16",
        6,
    ),
    ResultFile("consistency-gqn", "evaluation consistency runs/dice-gqn --scenes 100", 4, (GQN,)),
    ResultFile("elbo", "evaluation elbo runs/dice runs/dice-badj", 1, (DICE, DICE_BADJ)),
    ResultFile(
        "consistency-dice-views",
        "evaluation consistency dice-views --scenes 100 --picture "
        "evaluation/results/dice-views.png",
        9,
    ),
    ResultFile(
        "consistency-dice",
        "evaluation consistency runs/dice runs/dice-badj --picture evaluation/results/dice.png",
        3,
        (DICE, DICE_BADJ),
    ),
    ResultFile(
        "objects",
        "evaluation objects random-walk-vim traveling-salesman-nature-inferno --worlds 10",
        6,
    ),
    ResultFile("generation", "evaluation generation moving-digits-cvg --videos 200 --draws 3", 10),
    ResultFile("fidelity", "evaluation fidelity traveling-salesman-nature", 9),
    ResultFile("control", "evaluation control --episodes 100 --real-steps 20000", 25),
    ResultFile(
        "control-jumpy",
        "evaluation control --checkpoint traveling-salesman-jumpy --worlds 1 --horizon 4 "
        "--episodes 100 --workers 2",
        5,
    ),
    ResultFile(
        "control-imagined",
        "evaluation control --checkpoint traveling-salesman-jumpy --no-planners --episodes 100 "
        "--imagined-steps 1000 --depth 3",
        12,
    ),
    ResultFile(
        "control-find",
        "evaluation control --checkpoint runs/find --env dice/FindDigit-v0 --hold 1 "
        "--episodes 100 --real-steps 5000",
        15,
        (FIND,),
    ),
    ResultFile(
        "efficiency-tsp",
        f"evaluation efficiency {_TSP} --sizes 10000 40000 --seeds 2 --window 40 "
        "--fit-steps 2000 --imagined-steps 30000 --hold 5 --frame-stack 4 --no-markov "
        "--budget 400000 --points 10 --episodes 100",
        60,
    ),
    ResultFile(
        "sample-efficiency",
        "evaluation sample-efficiency --envs CartPole-v1 Pendulum-v1 InvertedPendulum-v5 "
        "--methods ppo dqn sac planner dyna-ppo --patience 1",
        45,
    ),
    ResultFile(
        "sample-efficiency-rare",
        "evaluation sample-efficiency --envs MountainCarContinuous-v0 MountainCar-v0 "
        "--methods sac dqn planner --patience 1",
        60,
    ),
    ResultFile(
        "sample-efficiency-acrobot",
        "evaluation sample-efficiency --envs Acrobot-v1 --methods dqn dyna-ppo ppo --patience 1",
        20,
    ),
    ResultFile(
        "sample-efficiency-lander",
        "evaluation sample-efficiency --envs LunarLander-v3 --methods planner dqn --patience 1",
        35,
    ),
    ResultFile("transitions", "evaluation transitions --repeats 7", 1),
    ResultFile("outcomes", "evaluation outcomes", 45),
    ResultFile(
        "planning",
        "evaluation planning traveling-salesman runs/ctl-sssm-jumpy runs/ctl-svg-lp-small "
        "--budgets 64 --worlds 2 --episodes 0 --repeats 2",
        1,
        (SSSM, SVG),
    ),
    ResultFile(
        "planning-returns",
        "evaluation planning traveling-salesman runs/ctl-sssm-jumpy --budgets 64 --worlds 2 "
        "--episodes 100 --repeats 2",
        2,
        (SSSM,),
    ),
    ResultFile(
        "planning-svg",
        "evaluation planning runs/ctl-svg-lp-small --budgets 64 --worlds 2 --episodes 16 "
        "--repeats 1",
        6,
        (SVG,),
    ),
    ResultFile("common-worlds", "evaluation common-worlds runs/intercept", 1, (INTERCEPT,)),
    ResultFile(
        "model-comparison",
        "evaluation model-comparison --seconds 180 "
        "--picture evaluation/results/model-comparison.png",
        60,
    ),
    ResultFile(
        "model-comparison-half-hour",
        "evaluation model-comparison --models jump:jumpy svg-lp:small sssm:jumpy --seconds 1800 "
        "--folder runs/model-comparison-30 --scenes 200",
        110,
    ),
    ResultFile("ablation", "evaluation ablation --steps 1200 --seconds 200", 40),
    ResultFile("dynamics", "evaluation dynamics", 30),
    ResultFile(
        "calibration", "evaluation dynamics --models ensemble --episodes 500 --steps 1500", 4
    ),
    ResultFile("scaling", "evaluation scaling", 12),
)


def find(name: str) -> ResultFile:
    """The result of that name; raises ValueError if there is none."""
    for result in RESULTS:
        if result.name == name:
            return result
    known = ", ".join(each.name for each in RESULTS)
    raise ValueError(f"only: expected one of {known}; got {name!r}")
