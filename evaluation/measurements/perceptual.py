"""LPIPS and FVD: distances between features of networks whose weights are not ours to ship.

LPIPS (Zhang et al. 2018) is torchmetrics', on torchvision's AlexNet. FVD (Unterthiner et al. 2018)
is the Frechet distance between Gaussians that are fitted to the logits of an I3D network; its input
here is frames in [-1, 1], resized to 224 x 224, bilinearly. FVDs by other weights or another
resizing are other numbers. Nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from evaluation.measurements import fidelity
from evaluation.metrics import similarity, statistics
from evaluation.metrics.similarity import per_future
from evaluation.metrics.story_consistency import NATURE
from evaluation.metrics.video_features import frechet
from evaluation.runner.held_out_scenes import futures
from evaluation.runner.measurement import OfWorlds, Row, environment
from worldmodel import WorldModel, to_float

CONTEXT_FRAMES = {NATURE: fidelity.CONTEXT_FRAMES, similarity.DIGITS: similarity.CONTEXT_FRAMES}
"""Frames of the context, by env."""
ALEXNET = "alexnet-owt-7be5be79.pth"
SHORTEST = 10
"""Frames that I3D needs."""
LPIPS = "lpips (torchmetrics, AlexNet)"
FVD = "fvd (I3D of the given file, shown frames included)"
_SIDE = 224
_IMAGES = 256
"""Compared at once."""


def load_i3d(path: Path, device: torch.device) -> torch.jit.ScriptModule:
    """The network behind FVD. TorchScript is a program: load only a file that you trust.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no TorchScript.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"i3d: no file {path}; FVD needs an I3D of Kinetics-400 as TorchScript, usually "
            "i3d_torchscript.pt of github.com/universome/fvd-comparison (also as "
            "flateon/FVD-I3D-torchscript on huggingface.co)"
        )
    try:
        network: torch.jit.ScriptModule = torch.jit.load(str(path), map_location=device)
    except RuntimeError as error:
        raise ValueError(f"i3d: {path} is no TorchScript file, as torch.jit.save writes") from error
    return network.eval()


@torch.inference_mode()
def video_features(network: torch.jit.ScriptModule, videos: Tensor) -> Tensor:
    """Features (n, D) of videos uint8 (n, T, H, W, 3), one video at a time.

    Raises:
        ValueError: fewer than ``SHORTEST`` frames.
    """
    if videos.shape[1] < SHORTEST:
        raise ValueError(f"videos: I3D needs {SHORTEST} frames or more, got {videos.shape[1]}")
    every = []
    for video in videos:
        frames = interpolate(to_float(video) * 2 - 1, (_SIDE, _SIDE), mode="bilinear")
        # this file's own rescaling and resizing are off: its input is described above
        features = network(
            frames.movedim(1, 0)[None], rescale=False, resize=False, return_features=True
        )
        every.append(features.reshape(1, -1))
    return torch.cat(every)


class Lpips:
    """Distances (n,) of images (n, 3, H, W) in [0, 1], of 32 pixels or more; 0 for equal ones.

    Args:
        device: of the images.

    Raises:
        ImportError: torchvision is missing.
        FileNotFoundError: AlexNet's weights are missing.
    """

    def __init__(self, device: torch.device) -> None:
        if find_spec("torchvision") is None:
            raise ImportError(
                "lpips: needs torchvision, for its AlexNet; pip install "
                "'jumpy-worldmodel[perceptual]'"
            )
        weights = Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET
        if not weights.is_file():
            raise FileNotFoundError(
                f"lpips: no file {weights}; it is torchvision's AlexNet of ImageNet, usually at "
                f"https://download.pytorch.org/models/{ALEXNET} (TORCH_HOME names another folder)"
            )
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        # torchmetrics' metric averages over images; its network gives a distance for each
        self.network = LearnedPerceptualImagePatchSimilarity(net_type="alex").net.to(device)

    @torch.inference_mode()
    def __call__(self, predicted: Tensor, truth: Tensor) -> Tensor:
        """Compare.

        Raises:
            ValueError: images below 32 pixels.
        """
        if min(predicted.shape[-2:]) < 32:
            raise ValueError(
                f"predicted: AlexNet needs 32 pixels or more, got {tuple(predicted.shape[-2:])}"
            )
        pairs = zip(predicted.split(_IMAGES), truth.split(_IMAGES), strict=True)
        return torch.cat([self.network(*pair, normalize=True).reshape(-1) for pair in pairs])


@dataclass(frozen=True)
class Perceptual(OfWorlds):
    """LPIPS and FVD of passive scenes; both need weights of yours (see --lpips and --i3d)."""

    name = "perceptual"
    columns = ("checkpoint", "model", "env", "metric", "worlds", "value", "low", "high", "n")
    lpips: bool = False
    """Needs torchvision (the extra "perceptual") and its AlexNet weights in torch's hub folder."""
    i3d: Path | None = None
    """For FVD: TorchScript file of an I3D trained on Kinetics-400. It can run code: take only one
    that you trust."""
    scenes: int = 200
    """FVD is biased upwards where they are few; papers take 256 to 2,048."""
    worlds: int = 5
    """Sampled of each scene."""

    def of_model(self, model: WorldModel) -> list[Row]:
        """Rows ``model, env, metric, worlds, value, low, high, n`` of passive test scenes.

        - LPIPS of the predicted frames, ``best-of-n`` and ``mean-of-n`` as in ``similarity``, and
          ``copy-last``; intervals over scenes.
        - FVD between all test scenes and as many that begin with the same frames and go on as
          sampled: one world of each scene, ``worlds`` times; the interval is over those times
          alone, and does not know how few the scenes are.

        Raises:
            ImportError, FileNotFoundError: what ``Lpips`` and ``load_i3d`` lack.
            ValueError: nothing to measure, fewer than 2 scenes or worlds, another environment than
                those of ``CONTEXT_FRAMES``, or the model is not of these scenes.
        """
        env = environment(self.env, model.env_id)
        if env not in CONTEXT_FRAMES:
            raise ValueError(f"env: expected one of {list(CONTEXT_FRAMES)}, got {env!r}")
        if not self.lpips and self.i3d is None:
            raise ValueError("lpips, i3d: nothing to measure; ask for LPIPS, name a file for FVD")
        if min(self.scenes, self.worlds) < 2:
            raise ValueError(
                f"scenes, worlds: expected 2 or more, got {self.scenes}, {self.worlds}"
            )
        distance = Lpips(model.device) if self.lpips else None
        network = None if self.i3d is None else load_i3d(self.i3d, model.device)
        values = self._distances(model, env, distance, network)
        return statistics.rows(model.name, env, values, self.seed, worlds=self.worlds)

    def _distances(
        self,
        model: WorldModel,
        env: str,
        distance: Lpips | None,
        network: torch.jit.ScriptModule | None,
    ) -> dict[str, Tensor]:
        """LPIPS (scenes,) and FVD (worlds,) by their names."""
        context, worlds = CONTEXT_FRAMES[env], self.worlds
        sampled: list[Tensor] = []
        copied: list[Tensor] = []
        real: list[Tensor] = []
        made: list[Tensor] = []
        for frames, imagined in futures(model, env, context, self.scenes, worlds, self.seed):
            frames, imagined = frames.to(model.device), imagined.to(model.device)
            if distance is not None:
                truth, guess = to_float(frames)[:, None], to_float(imagined)
                later = truth[:, :, context:]
                still = truth[:, :, context - 1 : context].expand_as(later)
                sampled.append(per_future(distance, guess, later))
                copied.append(per_future(distance, still, later))
            if network is not None:
                real.append(video_features(network, frames))
                before = frames[:, None, :context].expand(-1, worlds, -1, -1, -1, -1)
                features = video_features(network, torch.cat([before, imagined], 2).flatten(0, 1))
                made.append(features.unflatten(0, (-1, worlds)))
        values: dict[str, Tensor] = {}
        if distance is not None:
            of_worlds = torch.cat(sampled)
            values[f"{LPIPS}, best-of-{worlds}"] = of_worlds.amin(1)
            values[f"{LPIPS}, mean-of-{worlds}"] = of_worlds.mean(1)
            values[f"{LPIPS}, copy-last"] = torch.cat(copied)[:, 0]
        if network is not None:
            truths, samples = torch.cat(real), torch.cat(made)  # (scenes, D), (scenes, worlds, D)
            times = [frechet(truths, samples[:, world]) for world in range(worlds)]
            values[f"{FVD}, {self.scenes} scenes"] = torch.tensor(times)
        return values
