"""Names are the field's own: a short list of words that our code must not grow again.

(CONTRIBUTING.md has the rule. Prose may use most of them as plain English; identifiers may not.)
"""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("worldmodel", "envs", "agents", "evaluation")

# Parts of identifiers and of file names, and what to say instead.
BANNED = {
    "asked": "query_keys, query_times",
    "beside": "comparison",
    "beyond": "terminal_value",
    "drawn": "samples",
    "films": "video",
    "glance": "SpatialAttention",
    "guide": "tensorboard_help",
    "kept": "resume, retained",
    "learners": "trained_agents",
    "ledger": "partial_results",
    "lively": "frame_fixtures",
    "peers": "model_comparison",
    "seen": "context_frames, observed",
    "shown": "context_frames, observations",
    "softening": "template_match",
    "told": "conditioning, context_frames",
    "torture": "stress",
    "ways": "methods",
}
# Whole identifiers whose parts are words of the field.
BANNED_WHOLE = {
    "KeepAgent": "AgentCheckpointCallback",
    "_feed": "_feed_back",
    "_look": "_decode",
    "found": "samples, result",
    "stored": "lazy",
    "places": "resolve",
    "film": "video",
}
# Words that have no place in prose either.
BANNED_IN_TEXT = ("told", "lively", "KeepAgent", "softening")
# FiLM is a layer: its width is the setting ``film``.
FILM_LAYER = ROOT / "worldmodel" / "models" / "jumpy" / "jump"


def sources() -> list[Path]:
    """All Python files of the four packages."""
    files = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*.py"))]
    assert len(files) > 100
    return files


def identifiers(text: str) -> Iterator[tuple[int, str]]:
    """Line and name of each identifier of a source text."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string


def words(name: str) -> set[str]:
    """``_readTheFile_now`` to {"read", "the", "file", "now"}."""
    return {part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def advice(name: str) -> str | None:
    """What to say instead of a name; None if it is a good one."""
    if name in BANNED_WHOLE:
        return BANNED_WHOLE[name]
    return next((BANNED[word] for word in sorted(words(name) & BANNED.keys())), None)


def test_identifiers_and_files_have_the_fields_names() -> None:
    wrong = []
    for path in sources():
        place = path.relative_to(ROOT)
        names = [(0, path.stem), *identifiers(path.read_text())]
        names = [one for one in names if one[1] != "film" or FILM_LAYER not in path.parents]
        wrong += [f"{place}:{line}: {name}: {advice(name)}" for line, name in names if advice(name)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("word", BANNED_IN_TEXT)
def test_text_has_no_private_jargon(word: str) -> None:
    pattern = re.compile(rf"\b{word}\b")
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sources()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert not wrong, "\n".join(wrong)


def test_words_are_found_in_names() -> None:
    assert advice("whatIsTold") and advice("_told") and advice("KeepAgent") and advice("LEDGER")
    assert advice("context_frames") is None and advice("FilmRenderer") is None
