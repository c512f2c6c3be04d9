"""``python -m worldmodel doctor``: each fault is planted, and found with its remedy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from worldmodel.__main__ import main
from worldmodel.commands import doctor
from worldmodel.commands.doctor import Finding
from worldmodel.common import packages

ROOT = Path(__file__).parents[2]


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """What a user gets who starts Python in a folder."""
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def broken(check: doctor.Check) -> list[Finding]:
    findings = list(check())
    assert all(bool(finding.remedy) == (finding.status != "ok") for finding in findings)
    return [finding for finding in findings if finding.status == "broken"]


def plant(folder: Path, name: str, text: str = "") -> Path:
    """A package of somebody else."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(text)
    return folder / name


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two checks, of which one finds nothing."""
    monkeypatch.setattr(doctor, "CHECKS", (doctor.check_python, doctor.check_torch))


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["worldmodel", "doctor", *words])
    main()


def test_all_is_well(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packages, "shadows", lambda: {})  # of a venv that holds another checkout
    run(monkeypatch, "--json", str(tmp_path / "out.json"))
    assert "all is well" in capsys.readouterr().out
    result = json.loads((tmp_path / "out.json").read_text())
    rows = {row["check"]: row for row in result["rows"]}
    assert result["benchmark"] == "doctor" and result["versions"]["torch"]
    assert rows.keys() >= {"python", "torch", "gymnasium", "stable-baselines3", "threads",
                           "processor", "cuda", "gif", "mp4", "packages", "folder"}  # fmt: skip
    assert all(bool(row["remedy"]) == (row["status"] != "ok") for row in rows.values())


@pytest.mark.usefixtures("checks")
def test_status_of_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # import raises ImportError
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "--json", str(tmp_path / "out.json"))
    out = capsys.readouterr().out
    assert ended.value.code == 1 and "1 broken, see above" in out
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["status"] for row in rows] == ["ok", "broken"] and rows[1]["remedy"] in out


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user's folder, in which Python finds our packages."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


@pytest.mark.parametrize("name", packages.OURS)
def test_a_folder_that_hides_a_package(name: str, elsewhere: Path) -> None:
    assert not broken(doctor.check_packages)
    place = plant(elsewhere, name)
    (finding,) = broken(doctor.check_packages)
    assert (finding.check, finding.text) == (name, f"is not ours: {place}")
    assert "Rename it, or start Python in another folder" in finding.remedy


def test_a_module_that_hides_a_package(elsewhere: Path) -> None:
    (elsewhere / "agents.py").touch()
    assert packages.shadows() == {"agents": elsewhere / "agents.py"}


def test_the_command_runs_where_packages_are_hidden(tmp_path: Path) -> None:
    for name in ("agents", "envs", "evaluation"):
        plant(tmp_path, name, "raise RuntimeError('imported')")
    done = python(tmp_path, "-m", "worldmodel", "doctor")
    assert done.returncode == 1 and "3 broken, see above" in done.stdout and not done.stderr


def test_a_distribution_that_hides_a_package(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = elsewhere / "site-packages"
    plant(site, "agents")
    info = site / "somebodys_agents-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebodys-agents\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("agents\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), str(ROOT)]))
    monkeypatch.syspath_prepend(site)
    packages._distributions.cache_clear()
    (finding,) = broken(doctor.check_packages)
    packages._distributions.cache_clear()
    assert finding.text == f"is not ours: {site / 'agents'}"
    assert "python -m pip uninstall somebodys-agents" in finding.remedy


def test_a_distribution_that_wrote_into_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "shadows", lambda: {})
    owners = {"envs": [packages.DISTRIBUTION, "envs"], "agents": [packages.DISTRIBUTION]}
    monkeypatch.setattr(packages, "_distributions", lambda: owners)
    (finding,) = broken(doctor.check_packages)
    assert finding.check == "envs" and "pip uninstall envs" in finding.remedy


def test_import_errors_of_a_clash_say_the_remedy(tmp_path: Path) -> None:
    place = plant(tmp_path, "envs")
    remedy = f"{place} is imported instead of our package envs. Rename it"
    done = python(tmp_path, "-m", "evaluation", "returns")
    assert done.returncode == 1 and remedy in done.stderr and done.stderr.count("\n") == 1
    ids = ("collect", "--env", "envs:narratives/TravelingSalesman-v0", "--out", "x")
    done = python(tmp_path, "-m", "worldmodel", *ids)
    assert done.returncode == 1 and remedy in done.stderr and done.stderr.count("\n") == 1
    done = python(tmp_path, "-c", "import agents; agents.adapt('envs:balls/RandomWalk-v0')")
    assert remedy in done.stderr


def test_a_missing_encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not broken(doctor.check_encoders)
    monkeypatch.setattr("moviepy.video.io.ffmpeg_writer.FFMPEG_BINARY", str(tmp_path / "ffmpeg"))
    (finding,) = broken(doctor.check_encoders)
    assert finding.check == "mp4" and "ffmpeg" in finding.text and "FFMPEG_BINARY" in finding.remedy


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder that even root cannot use")
def test_no_write_access(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert not broken(doctor.check_folders)
    (tmp_path / "file").touch()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "file" / "cache"))
    monkeypatch.chdir("/proc")
    folder, hub = broken(doctor.check_folders)
    assert folder.check == "folder" and "cannot write to /proc" in folder.text
    assert hub.check == "hub cache" and "HF_HOME" in hub.remedy


def test_requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not broken(doctor.check_requirements)
    version = metadata.version

    def old(name: str) -> str:
        if name == "tqdm":
            raise metadata.PackageNotFoundError(name)
        return "0.1" if name == "rich" else version(name)

    monkeypatch.setattr(metadata, "version", old)
    rich, tqdm = broken(doctor.check_requirements)
    assert rich.text == "0.1" and rich.remedy == "python -m pip install 'rich>=13'"
    assert tqdm.text == "not installed" and "'tqdm>=" in tqdm.remedy


def test_extras_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a requirement count, too, as of gymnasium[box2d]."""
    extras = ["hub", "atari", "minari", "dev"]
    needed = {
        ("jumpy-worldmodel", ""): ["numpy"], ("jumpy-worldmodel", "hub"): ["numpy>=999"],
        ("jumpy-worldmodel", "atari"): ["gymnasium[games]"], ("gymnasium", "games"): ["nowhere"],
        ("jumpy-worldmodel", "minari"): ["numpy"],
    }  # fmt: skip
    monkeypatch.setattr(doctor, "_requirements", lambda name, extra="": needed.get((name, extra)))
    facts = SimpleNamespace(get_all=lambda field: extras)
    monkeypatch.setattr(metadata, "metadata", lambda name: facts)
    findings = {finding.check: finding for finding in doctor.check_extras()}
    assert [one.status for one in findings.values()] == ["absent", "absent", "ok"]
    assert findings["[atari]"].text == "needs nowhere"
    assert findings["[hub]"].remedy == "python -m pip install 'jumpy-worldmodel[hub]'"


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "DISTRIBUTION", "nobody-has-this")
    (finding,) = broken(doctor.check_requirements)
    assert finding.remedy == f"python -m pip install -e {ROOT}"
    assert not list(doctor.check_extras())


def test_a_check_that_fails_itself() -> None:
    def check_stars() -> doctor.Iterator[Finding]:
        yield Finding("sun", "ok", "shines")
        raise RuntimeError("clouds")

    sun, clouds = doctor._guarded(check_stars)
    assert (sun.check, clouds.check, clouds.status) == ("sun", "stars", "broken")
    assert clouds.text == "RuntimeError: clouds" and clouds.remedy
