"""Where digits come from, and which files are refused."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
import torch

from envs.handwriting import DIRECTORY_VARIABLE, digit_pool, load_digits, read_idx

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"


@pytest.fixture(autouse=True)
def bundled(monkeypatch):
    monkeypatch.delenv(DIRECTORY_VARIABLE, raising=False)


def idx(*shape, body=None, kind=8):
    size = 1
    for n in shape:
        size *= n
    body = bytes(i % 10 for i in range(size)) if body is None else body
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, kind, len(shape), *shape) + body


def write_pair(folder, stem, count, suffix=""):
    for name, data in (
        (f"{stem}-images-idx3-ubyte", idx(count, 28, 28)),
        (f"{stem}-labels-idx1-ubyte", idx(count)),
    ):
        path = folder / f"{name}{suffix}"
        path.write_bytes(gzip.compress(data) if suffix else data)


def test_bundled_digits():
    train, test = load_digits("train"), load_digits("test")
    assert len(train.labels) + len(test.labels) == 1797
    for digits in (train, test):
        assert digits.images.shape[1:] == (28, 28) and digits.images.dtype == torch.float32
        assert digits.images.min() == 0 and digits.images.max() == 1
        assert digits.labels.dtype == torch.int64
        assert len(torch.bincount(digits.labels)) == 10
        border = torch.ones(28, 28, dtype=torch.bool)
        border[3:-3, 3:-3] = False
        assert digits.images[:, border].max() == 0
    both = torch.cat([train.images, test.images]).flatten(1)
    assert len(both.unique(dim=0)) == 1797  # no digit is in both


def test_pools():
    one, other = digit_pool("train"), digit_pool("test")
    for digits in (one, other):
        assert torch.equal(digits.labels, torch.arange(10).repeat_interleave(10))
    assert torch.equal(one.images, digit_pool("train", 100).images)
    assert not torch.equal(one.images, other.images)
    assert torch.equal(digit_pool("train", 20).images[:2], one.images[:2])
    for count, error in ((5, ValueError), (0, ValueError), (10_000, ValueError), (10.0, TypeError)):
        with pytest.raises(error, match="count"):
            digit_pool("train", count)
    with pytest.raises(ValueError, match="split"):
        load_digits("valid")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_files(monkeypatch, tmp_path, suffix):
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="t10k-images"):
        load_digits("test")
    write_pair(tmp_path, "t10k", 5040, suffix)
    assert len(load_digits("train").labels) == 5000 and len(load_digits("test").labels) == 40
    whole = tmp_path / "whole"
    whole.mkdir()
    write_pair(whole, "t10k", 40, suffix)
    write_pair(whole, "train", 60, suffix)
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(whole))
    assert len(load_digits("train").labels) == 60 and len(load_digits("test").labels) == 40
    assert load_digits("train").images.max() == pytest.approx(9 / 255)


def test_a_missing_directory_is_no_fallback(monkeypatch, tmp_path):
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match=DIRECTORY_VARIABLE):
        load_digits("train")


def test_half_a_training_pair_is_not_replaced(monkeypatch, tmp_path):
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    write_pair(tmp_path, "t10k", 5040)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(60))
    with pytest.raises(FileNotFoundError, match="train-images"):
        load_digits("train")
    assert len(load_digits("test").labels) == 5040


def test_splits_are_never_empty(monkeypatch, tmp_path):
    few, none = tmp_path / "few", tmp_path / "none"
    for folder, count in ((few, 5000), (none, 0)):
        folder.mkdir()
        write_pair(folder, "t10k", count)
    for folder, match in ((few, "more than 5000"), (none, "at least one")):
        monkeypatch.setenv(DIRECTORY_VARIABLE, str(folder))
        for split in ("train", "test"):
            with pytest.raises(ValueError, match=match):
                load_digits(split)


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "not an IDX"),
        (b"PK\3\4" + bytes(40), "not an IDX"),
        (idx(4, 28, 28, kind=13, body=b""), "type 8"),
        (idx(4, 28), "dimensions"),
        (idx(4, 28, 28)[:-1], "holds"),
        (idx(4, 28, 28) + b"x", "holds more"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, 4_000_000_000, 28, 28), "header says"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, 1, 2**31, 2**31), "header says"),
    ],
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_corrupt_files_are_refused(tmp_path, data, match, suffix):
    path = tmp_path / f"images{suffix}"
    path.write_bytes(gzip.compress(data) if suffix else data)
    with pytest.raises(ValueError, match=match):
        read_idx(path, 3)


def test_corrupt_gzip(tmp_path):
    path = tmp_path / "images.gz"
    for data in (b"\x1f\x8b" + bytes(30), gzip.compress(idx(9, 28, 28))[:-30], b"plain"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="gzip|IDX|holds"):
            read_idx(path, 3)


@pytest.mark.parametrize(
    ("images", "labels", "match"),
    [
        (idx(4, 28, 28), idx(3), "label for each"),
        (idx(4, 27, 28), idx(4), "28 x 28"),
        (idx(4, 28, 28), idx(4, body=bytes([0, 1, 2, 10])), "0-9"),
    ],
)
def test_pairs_that_do_not_fit(monkeypatch, tmp_path, images, labels, match):
    (tmp_path / "t10k-images.idx3-ubyte").write_bytes(images)
    (tmp_path / "t10k-labels.idx1-ubyte").write_bytes(labels)
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match=match):
        load_digits("test")


@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST's files are not here")
def test_real_mnist(monkeypatch):
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(MNIST))
    train, test = load_digits("train"), load_digits("test")
    assert (len(train.labels), len(test.labels)) == (5000, 5000)
    assert train.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert 0.1 < train.images.mean() < 0.2
    assert torch.equal(digit_pool("test").labels, torch.arange(10).repeat_interleave(10))
