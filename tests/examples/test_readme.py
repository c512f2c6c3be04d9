"""The snippets of the README and of docs/ run as they stand, only with smaller numbers."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agents import OnlineConfig, RoundsConfig
from evaluation.__main__ import main as evaluation_main
from worldmodel import registry
from worldmodel.__main__ import main as worldmodel_main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = sorted((ROOT / "docs").glob("*.md"))
COMMANDS = {"worldmodel": worldmodel_main, "evaluation": evaluation_main}
SNIPPETS = [
    (section.partition("\n")[0], code)
    for section in re.split(r"^## ", README, flags=re.M)
    for code in re.findall(r"```python\n(.*?)```", section, re.S)
]
ROUNDS = RoundsConfig(first_collect_steps=64, first_fit_steps=4, fit_steps=4, imagined_steps=512)
ONLINE = OnlineConfig(first_fit_steps=4, fit_steps=4)
SMALLER = {
    "real_steps=2_000": "real_steps=64, config=ROUNDS",
    "steps=30_000": "steps=512",
    "steps=5_000": "steps=2",
    "episodes=100": "episodes=2",
    "episodes=200": "episodes=3",
    "2048": "32",
    "episodes=500": "episodes=40",
    "real_steps=400": "real_steps=202, config=ONLINE",
    "plans=64, worlds=3": "plans=8, worlds=1, iterations=2",
    "episodes=20": "episodes=2",
    "episodes=5,": "episodes=1,",
    "steps=50_000": "steps=512",
    "episodes=50": "episodes=2",
    "episodes=8": "episodes=2",
    "episodes=4, hold": "episodes=1, hold",
    "plans=256": "plans=32",
    "steps=1000": "steps=50",
    "learn(128)": "learn(1)",
    "n_steps=32": "n_steps=2",
    "batch_size=32": "batch_size=4",
    "steps=2_000": "steps=2",
    "episodes=300": "episodes=20",
    "learn(20_000)": "learn(256)",
    "num_envs=16": "num_envs=4",
    "--steps 2000": "--steps 2 --batch-size 2",
    "--distances 5 20": "--distances 1 2 --repeats 1 --batches 1",
}


def test_all_are_there() -> None:
    titles = ["Your environment", "A planner", "Videos in TensorBoard"]
    assert [title for title, _ in SNIPPETS] == titles
    for _, code in SNIPPETS:
        assert len([line for line in code.splitlines() if line]) <= 10


def test_it_is_short() -> None:
    assert len(README.split()) <= 1300


MARKDOWN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def anchors(page: Path) -> set[str]:
    """As GitHub and myst make them of headings."""
    heads = re.findall(r"^#+ (.*)", re.sub(r"```.*?```", "", page.read_text(), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """To files and headings that exist; the documentation stands without the README."""
    text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]*)\)", text):
        if link.startswith("http"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"
        assert target.suffix != ".md" or page.parent.name != "docs" or "docs" in target.parts


def test_every_page_is_listed() -> None:
    """By the table of contents, and by the README or a page that it leads to."""
    index = (ROOT / "docs" / "index.md").read_text()
    linked = "".join((ROOT / name).read_text() for name in ("README.md", "docs/get_started.md"))
    for page in PAGES:
        assert page.stem == "index" or re.search(rf"^{page.stem}$", index, re.M), page.stem
        assert page.stem == "index" or f"{page.stem}.md" in linked, page.stem


@pytest.mark.parametrize(("title", "code"), SNIPPETS)
def test_snippet(title: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(small(code), f"README.md: {title}", "exec"), {"ROUNDS": ROUNDS, "ONLINE": ONLINE})


def small(text: str) -> str:
    for number, smaller in SMALLER.items():
        text = text.replace(number, smaller)
    return text


@pytest.fixture
def as_before() -> Iterator[None]:
    """Models that a page registers are gone afterwards."""
    known, modules = dict(registry.MODELS), set(sys.modules)
    yield
    registry.MODELS.clear()
    registry.MODELS.update(known)
    for name in set(sys.modules) - modules:
        if name.startswith("my_"):
            del sys.modules[name]


@pytest.mark.usefixtures("as_before")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page, one after the other; those that begin with a file's name are files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, object] = {"ROUNDS": ROUNDS, "ONLINE": ONLINE}
    for kind, code in re.findall(r"```(python|console)\n(.*?)```", page.read_text(), re.S):
        file = re.match(r"# (my_\w+\.py)\n", code)
        if file is not None:
            (tmp_path / file[1]).write_text(code)
        elif kind == "python":
            exec(compile(small(code), page.name, "exec"), names)
        else:
            for line in small(code).splitlines():
                python, _, package, *arguments = shlex.split(line)
                assert python == "python"
                monkeypatch.setattr(sys, "argv", [package, *arguments])
                COMMANDS[package]()


def test_your_env_is_as_short_as_it_says() -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "your_env.md").read_text(), re.S)
    env, imagined = (
        [line for line in block.splitlines() if line and "import" not in line] for block in code[:2]
    )
    assert len(env) == 10 and len(imagined) < 10


def test_every_message_of_troubleshooting_is_one_of_ours() -> None:
    folders = ("worldmodel", "envs", "agents")
    source = "".join(p.read_text() for folder in folders for p in (ROOT / folder).rglob("*.py"))
    joined = re.sub(r'"\s*f?"', "", source)  # strings that go on in the next line
    text = (ROOT / "docs" / "troubleshooting.md").read_text()
    ours = text.partition("## No message, but wrong")[0]
    messages = re.findall(r"^### `(.*)`$", ours, re.M)
    assert len(messages) > 30
    for message in messages:
        for part in message.split("..."):
            assert part.strip(" ,:;[]") in joined, message
