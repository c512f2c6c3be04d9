"""The verb that checks an installation: each finding comes with its remedy.

It has to run where much is broken, so that nothing but ``worldmodel.common`` is imported at the
top, and whatever a check imports may fail.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from worldmodel.common import packages, results
from worldmodel.common.files import check_writable

Status = Literal["ok", "note", "absent", "broken"]

PYTHON = (3, 10)
EXTRAS_OF_DEVELOPERS = ("dev", "docs", "browser")
BF16_FLAGS = ("amx_bf16", "avx512_bf16")
"""Names, in Linux's /proc/cpuinfo, of instructions that multiply matrices of bf16."""


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        check: what was looked at.
        status: "ok"; "note" where things work, but could work better; "absent" for an optional part
            that is not installed; "broken".
        text: what there is.
        remedy: what to do about it; "" with "ok".
    """

    check: str
    status: Status
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{self.status:6}  {self.check:17}  {self.text}"
        return f"{line}\n{'':27}-> {self.remedy}" if self.remedy else line


Check = Callable[[], Iterator[Finding]]


@dataclass(frozen=True)
class Doctor:
    """Check the installation, and say how to mend it. The exit status is 1 if something is broken;
    optional parts may be absent.
    """

    json: Path | None = None
    """File for the findings."""

    def run(self) -> Iterator[str]:
        """Check, and print each finding."""
        if self.json is not None:
            check_writable(self.json)
        findings = []
        for check in CHECKS:
            for finding in _guarded(check):
                findings.append(finding)
                yield str(finding)
        broken = sum(finding.status == "broken" for finding in findings)
        yield f"\n{broken} broken, see above" if broken else "\nall is well"
        if self.json is not None:
            rows = [asdict(finding) for finding in findings]
            settings = {"folder": str(Path.cwd())}
            known = [name for name in results.PACKAGES if _version(name) is not None]
            result = results.envelope("doctor", settings, rows, known)
            yield f"result: {results.write(self.json, result)}"
        if broken:
            sys.exit(1)


def _guarded(check: Check) -> Iterator[Finding]:
    """The check's findings; one more if it cannot go on, as where a package is half removed."""
    try:
        yield from check()
    except Exception as error:  # whatever it is, the other checks say more
        name = check.__name__.removeprefix("check_")
        yield Finding(
            name, "broken", _one_line(error),
            f"python -m pip install --force-reinstall {packages.DISTRIBUTION}, or in a new venv",
        )  # fmt: skip


# -- what is installed -----------------------------------------------------------------------------


def check_python() -> Iterator[Finding]:
    """The interpreter's version."""
    version, least = platform.python_version(), ".".join(map(str, PYTHON))
    if sys.version_info < PYTHON:
        yield Finding("python", "broken", version, f"expected {least} or newer; make a new venv")
    else:
        yield Finding("python", "ok", f"{version}, {sys.executable}")


def check_requirements() -> Iterator[Finding]:
    """Versions of what the package needs, as its own metadata says."""
    own = _version(packages.DISTRIBUTION)
    if own is None:
        yield Finding(
            packages.DISTRIBUTION, "broken", f"not installed; it runs from {packages.ROOT}",
            f"python -m pip install -e {packages.ROOT}",
        )  # fmt: skip
        return
    yield Finding(packages.DISTRIBUTION, "ok", f"{own}, {packages.ROOT}")
    for text in _requirements(packages.DISTRIBUTION):
        name, wrong = _name(text), _unmet(text)
        if wrong:
            remedy = f"python -m pip install {' '.join(map(repr, wrong))}"
            yield Finding(name, "broken", f"{_version(name) or 'not installed'}", remedy)
        else:
            yield Finding(name, "ok", f"{_version(name)}")


def check_extras() -> Iterator[Finding]:
    """Optional parts: present if all that an extra names is there."""
    try:
        extras = metadata.metadata(packages.DISTRIBUTION).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return
    for extra in extras:
        if extra in EXTRAS_OF_DEVELOPERS:
            continue
        needed = _requirements(packages.DISTRIBUTION, extra)
        wrong = [one for text in needed for one in _unmet(text)]
        check = f"[{extra}]"
        if wrong:
            install = f"python -m pip install '{packages.DISTRIBUTION}{check}'"
            yield Finding(check, "absent", f"needs {', '.join(wrong)}", install)
        elif needed:  # none where this Python is too old for it
            yield Finding(check, "ok", ", ".join(needed))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _requirements(name: str, extra: str = "") -> list[str]:
    """What an installed distribution needs here, or one of its extras; without markers."""
    from packaging.requirements import Requirement

    needed = []
    for text in metadata.requires(name) or ():
        requirement = Requirement(text)
        if requirement.marker is None:
            applies = not extra
        else:
            without = requirement.marker.evaluate({"extra": ""})
            applies = requirement.marker.evaluate({"extra": extra}) and (not extra or not without)
        if applies:
            requirement.marker = None
            needed.append(str(requirement))
    return needed


def _name(requirement: str) -> str:
    from packaging.requirements import Requirement

    return Requirement(requirement).name


def _unmet(requirement: str) -> list[str]:
    """The requirements, this one and those of its extras, that are not met."""
    from packaging.requirements import Requirement

    parsed = Requirement(requirement)
    version = _version(parsed.name)
    if version is None or not parsed.specifier.contains(version, prereleases=True):
        return [requirement]
    inner = (one for extra in sorted(parsed.extras) for one in _requirements(parsed.name, extra))
    return [one for needed in inner for one in _unmet(needed)]


# -- the machine -----------------------------------------------------------------------------------


def check_torch() -> Iterator[Finding]:
    """Whether torch runs; its threads, the processor's bf16, and GPUs."""
    try:
        import torch

        torch.ones(2, 2) @ torch.ones(2, 2)
    except Exception as error:  # a build for another machine fails in many ways
        yield Finding(
            "torch runs", "broken", _one_line(error),
            "python -m pip install --force-reinstall torch, with the index that pytorch.org names "
            "for this machine",
        )  # fmt: skip
        return
    yield _threads(torch.get_num_threads())
    yield _bf16(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
        yield Finding("cuda", "ok", f"{torch.version.cuda}: {', '.join(names)}")
    elif shutil.which("nvidia-smi"):
        yield Finding(
            "cuda", "note", f"there is an NVIDIA driver, but torch {torch.__version__} uses none",
            "install torch from the index that pytorch.org names for your driver, then "
            "jumpy-worldmodel without constraints.txt",
        )  # fmt: skip
    else:
        yield Finding("cuda", "ok", "no GPU; all runs on the CPU")


def _threads(threads: int) -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = f"{threads} of torch, {cores} cores"
    if threads == 1:
        return Finding("threads", "ok", text)
    return Finding(
        "threads", "note", f"{text}; commands take one (--num-threads)",
        "export OMP_NUM_THREADS=1: small models gain nothing from more, busy cores lose much",
    )  # fmt: skip


def _bf16(capability: str, threads: int) -> Finding:
    """What decides whether training takes bf16 on this CPU."""
    try:
        words = Path("/proc/cpuinfo").read_text().split()
    except OSError:  # not Linux
        words = []
    flags = [flag for flag in BF16_FLAGS if flag in words]
    from worldmodel.training.precision import CLEARLY_FASTER, bf16_speedup

    ratio = bf16_speedup(threads)
    taken = "bf16" if ratio >= CLEARLY_FASTER else "float32"
    said = f"{platform.machine()}, {capability}, {' '.join(flags) or 'no bf16 instructions'}"
    text = f"{said}; bf16 has {ratio:.1f} times float32's speed: training takes {taken}"
    return Finding("processor", "ok", text)


# -- video -----------------------------------------------------------------------------------------


def check_encoders() -> Iterator[Finding]:
    """Encode a GIF and an MP4, as every command that writes a video does."""
    remedies = {
        "gif": "python -m pip install --force-reinstall pillow",
        "mp4": "python -m pip install --force-reinstall moviepy imageio-ffmpeg; where its ffmpeg "
        "does not run, install one with libx264 and set FFMPEG_BINARY to it",
    }
    for suffix, remedy in remedies.items():
        try:
            text = _encode(suffix)
        except Exception as error:  # of pillow, moviepy, imageio, or ffmpeg
            yield Finding(suffix, "broken", _one_line(error), remedy)
        else:
            yield Finding(suffix, "ok", text)


def _encode(suffix: str) -> str:
    """Write a small video; what wrote it."""
    import numpy as np

    from worldmodel.common.video import write_video

    frames = np.arange(2 * 16 * 16 * 3, dtype=np.uint8).reshape(2, 16, 16, 3)
    with tempfile.TemporaryDirectory() as folder:
        size = write_video(Path(folder) / f"video.{suffix}", frames, fps=2).stat().st_size
    if size == 0:
        raise OSError("the encoder wrote an empty file")
    if suffix == "gif":
        return f"pillow {_version('pillow')}"
    from moviepy.config import FFMPEG_BINARY

    return f"moviepy {_version('moviepy')}, {FFMPEG_BINARY}"


# -- whose packages, and where to write ------------------------------------------------------------


def check_packages() -> Iterator[Finding]:
    """Whether Python, started in this folder, imports our packages or somebody else's."""
    hidden = packages.shadows()
    for name, place in hidden.items():
        yield Finding(name, "broken", f"is not ours: {place}", packages.remedy(name, place))
    for name, owner in packages.other_owners().items():
        if name not in hidden:
            yield Finding(
                name, "broken", f"{owner} has installed files into a package of the same name",
                f"python -m pip uninstall {owner}; python -m pip install --force-reinstall "
                f"--no-deps {packages.DISTRIBUTION}",
            )  # fmt: skip
            hidden[name] = packages.ROOT
    if ours := [name for name in packages.OURS if name not in hidden]:
        yield Finding("packages", "ok", f"{', '.join(ours)}: {packages.ROOT}")


def check_folders() -> Iterator[Finding]:
    """Whether the current folder, the temporary one and caches can be written to."""
    home = Path.home()
    hub = Path(os.environ.get("HF_HOME") or home / ".cache" / "huggingface")
    folders = {
        "folder": (Path.cwd(), "start in another folder, or pass --out and --json elsewhere"),
        "temporary": (Path(tempfile.gettempdir()), "set TMPDIR to a folder of yours"),
        "hub cache": (hub, "set HF_HOME to a folder of yours"),
    }
    for check, (folder, remedy) in folders.items():
        try:
            _probe(folder)
        except OSError as error:
            text = f"cannot write to {folder}: {error.strerror or error}"
            yield Finding(check, "broken", text, remedy)
        else:
            yield Finding(check, "ok", f"{folder} can be written to")


def _probe(folder: Path) -> None:
    """Raise OSError unless files can be made in a folder, or where it would be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    with tempfile.TemporaryFile(dir=folder):
        pass


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


CHECKS: tuple[Check, ...] = (
    check_python, check_requirements, check_extras, check_torch, check_encoders, check_packages,
    check_folders,
)  # fmt: skip
