"""The gallery: each released model and each environment, with a clip, numbers and the command."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

import worldmodel
from envs import ENV_IDS, simulator_of
from evaluation.report.clips import env_clip, model_clip
from worldmodel import ActionSpec
from worldmodel.common.config_checks import check_seed, numbers_at_least
from worldmodel.common.files import atomic
from worldmodel.common.video import write_video
from worldmodel.resolve import SHIPPED, shipped

PAGE = "index.md"
INTRODUCTION = """# Gallery

All released models and all environments. One command makes this page from the checkpoints that
come with the package: `python -m evaluation gallery --out docs/gallery`.

## Models

Left: what happens in a scene of the test split. Right of it: worlds that the model samples. Frames
in a yellow border were given to the model. It follows the actions of the scene, where there are
any. CVG draws from nothing; INFERNO renders each frame again, of objects.
`worldmodel.load(NAME)` loads one; its card is `worldmodel/checkpoints/NAME/README.md`."""
ENVIRONMENTS = """## Environments

Random play; `gym.make("envs:ID")` makes one. [All facts about them](../environments.md)."""


@dataclass(frozen=True)
class Card:
    """What the card of a released model says.

    Attributes:
        title: what the model is, without its name.
        about: the first paragraph.
        command: what trained it, in Markdown.
        tables: Markdown tables of its numbers.
        limits: what it is bad at.
    """

    title: str
    about: str
    command: str
    tables: tuple[str, ...]
    limits: str

    @classmethod
    def read(cls, name: str) -> Card:
        """The card of a released model.

        Args:
            name: of the checkpoint.

        Raises:
            ValueError: there is no such released model, or its card lacks a part.
        """
        if name not in shipped():
            raise ValueError(f"models: expected some of {shipped()}, got {name!r}")
        return cls.parse((SHIPPED / name / "README.md").read_text(), name)

    @classmethod
    def parse(cls, text: str, name: str) -> Card:
        """The parts of a card.

        Args:
            text: Markdown, in the form of the cards of ``worldmodel/checkpoints``.
            name: of the model, which the title begins with.

        Raises:
            ValueError: a part is missing; the message says which.
        """
        first, about, *rest = re.split(r"\n\n+", text.strip())
        facts = {
            "title": first.removeprefix(f"# {name}: ") if first.startswith(f"# {name}: ") else "",
            "about": about,
            "command": _one(re.findall(r"^- commands?: (.*(?:\n  .*)*)", text, re.M)),
            "limits": _one([part for part in rest if part.startswith("Limits: ")]),
        }
        tables = tuple(part for part in rest if part.startswith("|"))
        lacking = [fact for fact, value in {**facts, "tables": tables}.items() if not value]
        if lacking:
            raise ValueError(f"models: the card of {name} lacks {', '.join(lacking)}")
        return cls(**{fact: _line(value) for fact, value in facts.items()}, tables=tables)


@dataclass(frozen=True)
class Gallery:
    """A page with a clip of each released model and of each environment."""

    name: ClassVar[str] = "gallery"
    out: Path = Path("docs/gallery")
    """Folder for index.md and the clips."""
    models: tuple[str, ...] = ()
    """Released models to show; none for all of them."""
    envs: tuple[str, ...] = ()
    """Ids of environments to show; none for all of ours."""
    scenes: int = 2
    """Test scenes in a model's clip."""
    worlds: int = 4
    """Sampled for each scene."""
    scale: int = 4
    """Times by which a pixel of a model's frame of 32 pixels is repeated; of larger ones as many
    times fewer, so that all are shown in one size."""
    seed: int = 0
    num_threads: int = 1

    def run(self) -> Iterator[str]:
        """Draw and write; what to print.

        Raises:
            ValueError: a model or an environment is none of ours, or a number is out of its range.
        """
        check_seed(self.seed)
        numbers_at_least(1, scenes=self.scenes, worlds=self.worlds, scale=self.scale)
        torch.set_num_threads(self.num_threads)
        models, envs = self.models or tuple(shipped()), self.envs or ENV_IDS
        text = page(models, envs)
        for name in models:
            model = worldmodel.load(name)
            scale = max(1, self.scale * 32 // model.spec.observation[1])
            clip = model_clip(model, self.scenes, self.worlds, scale, self.seed)
            yield f"{name}: {write_video(self.out / clip_name(name), clip.frames, clip.fps)}"
        for env_id in envs:
            clip = env_clip(env_id, seed=self.seed)
            yield f"{env_id}: {write_video(self.out / clip_name(env_id), clip.frames, clip.fps)}"
        with atomic(self.out / PAGE) as partial:
            partial.write_text(text)
        yield f"gallery: {self.out / PAGE}"


def page(models: Sequence[str], envs: Sequence[str]) -> str:
    """The gallery in Markdown; the clips lie beside it.

    Args:
        models: names of released models.
        envs: ids of our environments.

    Raises:
        ValueError: one of ``models`` or ``envs`` is none of ours.
    """
    if unknown := [env_id for env_id in envs if env_id not in ENV_IDS]:
        raise ValueError(f"envs: expected some of {list(ENV_IDS)}, got {unknown}")
    parts = [INTRODUCTION, *(_model(name, Card.read(name)) for name in models)]
    head = ["| random play | what happens | actions |", "|---|---|---|"]
    parts += [ENVIRONMENTS, "\n".join([*head, *map(_row, envs)])]
    return "\n\n".join(parts) + "\n"


def clip_name(name: str) -> str:
    """File name of the clip of a model or of an environment, ``narratives/Name-v0``."""
    return f"{name.rpartition('/')[2]}.gif"


def summary(env_id: str) -> str:
    """What happens in an environment of ours: the first sentence that its simulator says."""
    paragraph = (type(simulator_of(env_id)).__doc__ or "").partition("\n\n")[0]
    return _line(re.split(r"(?<=\.)\s", paragraph)[0]).replace("``", "`")


def _model(name: str, card: Card) -> str:
    tables = "\n\n".join(card.tables)
    return (
        f"### {name}\n\n{card.title}. {card.about}\n\n![{name}: truth and sampled worlds]"
        f"({clip_name(name)})\n\nTrained by: {card.command}\n\n{tables}\n\n{card.limits}"
    )


def _row(env_id: str) -> str:
    space = simulator_of(env_id).action_space
    actions = "none" if ActionSpec.from_space(space).kind == "none" else f"`{space}`"
    return f"| ![{env_id}]({clip_name(env_id)}) | `{env_id}`: {summary(env_id)} | {actions} |"


def _one(parts: list[str]) -> str:
    return parts[0] if parts else ""


def _line(text: str) -> str:
    return " ".join(text.split())
