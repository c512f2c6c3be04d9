"""The verb that shows what a model imagines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from worldmodel import checkpoint, imagine
from worldmodel.commands.scenes import check_source_options, scene_stream, sized_env
from worldmodel.common.config_checks import check_seed
from worldmodel.common.files import check_writable
from worldmodel.data.episodes import Episodes
from worldmodel.models.jumpy.jump import set_refinements
from worldmodel.spec import Spec
from worldmodel.training.source import check_source
from worldmodel.types import SceneBatch


@dataclass(frozen=True)
class Imagine:
    """Give a model some frames as context, and draw what it imagines at other times."""

    checkpoint: tyro.conf.Positional[str]
    """Folder, shipped name or hub id."""
    out: Path
    """A contact sheet (.png) or a video (.gif)."""
    env: str | None = None
    """Id of an environment that generates scenes by itself (ours do): its test scenes."""
    episodes: Path | None = None
    """Folder of recorded episodes: windows of them."""
    context: tuple[int, ...] = (0,)
    """Times of the context's frames: the first, the last, both ends, ...; with poses, numbers of
    views."""
    queries: tuple[int, ...] = ()
    """Times to imagine; by default all that the model reaches."""
    scenes: int = 3
    worlds: int = 4
    refinements: int | None = None
    """How often JUMP samples a world again from its own frames; None: as the checkpoint says."""
    seed: int = 0
    scale: int = 2
    """Times by which each pixel is repeated."""
    num_threads: int = 1

    def run(self) -> Iterator[str]:
        """Imagine, and write the picture."""
        check_seed(self.seed)
        check_writable(self.out)
        torch.set_num_threads(self.num_threads)
        model = checkpoint.load(self.checkpoint)
        set_refinements(model, self.refinements)
        batch = self._scenes(model.spec)
        begin = 0 if model.jumpy else max(self.context)
        last = int(batch.lengths.min())
        queries = self.queries or range(begin, last + 1, model.stride)
        imagined = imagine.imagine(model, batch, self.context, queries, self.worlds, self.seed)
        imagine.write(imagined, self.out, scale=self.scale)
        yield f"{self.scenes} scenes, truth above {self.worlds} sampled worlds: {self.out}"

    def _scenes(self, spec: Spec) -> SceneBatch:
        check_source_options(self.env, self.episodes)
        if self.env is not None:
            env = sized_env(self.env, spec.observation[-1], split="test")
            return scene_stream(env, self.env)(self.scenes, seed=self.seed).batch(0)
        assert self.episodes is not None
        source = Episodes.load(self.episodes).windows(
            spec.window, self.scenes, self.seed, anywhere=0.0
        )
        scenes = source.batch(0)
        check_source(spec, source, scenes)
        return scenes
