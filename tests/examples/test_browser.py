"""TensorBoard in a real browser: what a run leaves behind can be seen, moves, and is explained.

``make test-browser``; screenshots are kept in ``outputs/browser``.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "outputs" / "browser"
WAIT = 60  # seconds; busy machines
FILMS = {
    "videos/after_short_training": 1,
    "videos/real_imagined_difference": 1,  # of PPO
    "videos/agent_at_play": 1,
}


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the second and the last part of the quickstart write, only shorter."""
    import runpy

    quickstart = SimpleNamespace(**runpy.run_path(str(ROOT / "examples" / "quickstart.py")))
    folder = tmp_path_factory.mktemp("quickstart")
    args = quickstart.Quickstart(folder, train_steps=2, ppo_steps=512, episodes=2)
    quickstart.train_a_little(args, folder / "logs")
    model = quickstart.worldmodel.load("traveling-salesman")
    quickstart.train_ppo(args, model, folder / "logs")
    return folder / "logs"


@pytest.fixture(scope="module")
def server(logs: Path) -> Iterator[str]:
    """The address of a TensorBoard."""
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs)]
    command += ["--port", "0", "--host", "127.0.0.1", "--load_fast", "false"]
    said = logs.parent / "tensorboard.txt"
    with said.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        for _ in range(2 * WAIT):
            found = re.search(r"http://127\.0\.0\.1:\d+/", said.read_text())
            if found or process.poll() is not None:
                break
            time.sleep(0.5)
        assert found, said.read_text()
        for _ in range(2 * WAIT):  # until it has read both runs
            if len(ask(found[0], "data/plugin/images/tags")) == 2:
                break
            time.sleep(0.5)
        yield found[0]
    finally:
        process.terminate()
        process.wait(WAIT)


def ask(server: str, path: str) -> Any:
    with urllib.request.urlopen(server + path, timeout=WAIT) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    """A page of headless Chromium."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[browser]'")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    if chromium is None:
        pytest.skip("no Chromium: apt install chromium, or put one on the PATH")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1400, "height": 1000})
        opened.set_default_timeout(1000 * WAIT)
        yield opened
        browser.close()


def shot(page: Any, name: str) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(SHOTS / f"{name}.png"))


def pixels(element: Any) -> np.ndarray:
    with Image.open(io.BytesIO(element.screenshot())) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def gif(src: str) -> np.ndarray:
    """All frames (T, H, W, 3) of what TensorBoard sends for an image."""
    with urllib.request.urlopen(src, timeout=WAIT) as answer:
        assert answer.headers["Content-Type"] == "image/gif"
        data = answer.read()
    with Image.open(io.BytesIO(data)) as image:
        assert image.info["loop"] == 0
        frames = []
        for number in range(image.n_frames):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGB")))
    return np.stack(frames)


def test_films_move_and_are_large_enough(page: Any, server: str) -> None:
    page.goto(server + "#images")
    cards = page.locator("tf-image-loader")
    cards.locator("img").last.wait_for()
    page.wait_for_timeout(1000)  # all cards are loaded
    found = [cards.nth(i).evaluate("e => e.tag") for i in range(cards.count())]
    shot(page, "images")
    assert sorted(found) == sorted(name for name, count in FILMS.items() for _ in range(count))
    for i in range(cards.count()):
        image = cards.nth(i).locator("img")
        image.scroll_into_view_if_needed()
        frames = gif(image.evaluate("e => e.src"))
        assert len(frames) > 3 and (frames[0] != frames[-1]).any()
        size = image.evaluate("e => [e.naturalHeight, e.naturalWidth]")
        assert size == list(frames.shape[1:3]) and min(size) >= 256
        box = image.bounding_box()
        assert min(box["width"], box["height"]) >= 300  # as a person sees it
        first = pixels(image)
        for _ in range(20):
            page.wait_for_timeout(150)
            moved = np.abs(pixels(image) - first).max(-1) > 60
            if moved.mean() > 0.001:
                break
        assert moved.mean() > 0.001, found[i]
    page.get_by_text("Show actual image size").click()
    page.wait_for_timeout(1000)
    shot(page, "images_actual_size")


@pytest.mark.parametrize(
    ("tab", "words"),
    [
        ("text", ["How a world model learns", "Does the agent get better?", "what really happens"]),
        ("custom_scalars", ["World model", "Agent", "return: real, and in training"]),
        ("timeseries", ["videos", "world_model", "real"]),
    ],
)
def test_a_stranger_is_told_what_is_shown(
    page: Any, server: str, tab: str, words: list[str]
) -> None:
    page.goto("about:blank")
    page.goto(f"{server}#{tab}")
    for word in words:
        page.get_by_text(word).first.wait_for(state="attached")
    page.wait_for_timeout(1500)  # curves are drawn
    shot(page, tab)
