"""Videos: what is written can be decoded, and holds the right pixels."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from worldmodel.common.tensorboard import add_video
from worldmodel.common.video import encode_gif, tile_videos, write_video


def moving_square(n=1, t=6, size=32, background=0):
    """uint8 (n, t, size, size, 3): a square that moves and changes colour; all frames differ."""
    video = np.full((n, t, size, size, 3), background, dtype=np.uint8)
    for clip in range(n):
        for time in range(t):
            colour = (250 - 25 * clip, 30 + 35 * time, 25 * clip)
            video[clip, time, 4:12, 3 * time : 3 * time + 8] = colour
    return video


def shaded(t=4, size=64):
    """uint8 (t, size, size, 3): smooth gradients, thousands of colours in every frame."""
    y, x = np.mgrid[0:size, 0:size] / size
    frames = [np.stack([x, y, (x + y + time / t) / 3], axis=-1) for time in range(t)]
    return np.round(np.stack(frames) * 255).astype(np.uint8)


def decode(gif):
    """GIF -> uint8 (T, H, W, 3) and the frames' durations in ms."""
    frames, durations = [], []
    with Image.open(io.BytesIO(gif)) as image:
        assert image.format == "GIF"
        for i in range(image.n_frames):
            image.seek(i)
            durations.append(image.info["duration"])
            frames.append(np.asarray(image.convert("RGB")))
    return np.stack(frames), durations


def logged_images(folder, tag):
    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return events.Images(tag)


def log(folder, video, **settings):
    """Write a clip as training would; return its frames as TensorBoard gets them."""
    writer = SummaryWriter(str(folder))
    add_video(writer, "clip", video, 7, **settings)
    writer.close()
    (event,) = logged_images(folder, "clip")
    assert event.step == 7
    frames, _ = decode(event.encoded_image_string)
    assert (event.height, event.width) == frames.shape[1:3]
    return frames


class TestEncodeGif:
    def test_flat_colours_are_exact(self):
        video = moving_square()[0]
        frames, durations = decode(encode_gif(video, fps=8))
        np.testing.assert_array_equal(frames, video)
        assert sum(durations) == pytest.approx(1000 * len(video) / 8, abs=10)

    def test_256_colours_in_every_frame_are_exact(self):
        rng = np.random.default_rng(0)
        video = np.stack(
            [
                rng.integers(0, 256, (256, 3), dtype=np.uint8)[rng.permutation(256)].reshape(
                    16, 16, 3
                )
                for _ in range(3)
            ]
        )
        frames, _ = decode(encode_gif(video, fps=8))
        np.testing.assert_array_equal(frames, video)

    def test_shading_is_close(self):
        video = shaded()
        frames, _ = decode(encode_gif(video, fps=8))
        assert np.abs(frames.astype(int) - video).max() <= 16

    def test_loops_forever(self):
        with Image.open(io.BytesIO(encode_gif(moving_square()[0], fps=8))) as image:
            assert image.info["loop"] == 0

    @pytest.mark.parametrize(("fps", "seconds"), [(3, 2.0), (7, 6 / 7), (30, 0.2), (1000, 0.12)])
    def test_lasts_as_long_as_it_should(self, fps, seconds):
        _, durations = decode(encode_gif(moving_square()[0], fps))
        assert sum(durations) == pytest.approx(1000 * seconds, abs=10)
        assert min(durations) >= 20

    def test_bad_input(self):
        video = moving_square()[0]
        with pytest.raises(TypeError, match=r"video must be a uint8 numpy array, got a float32"):
            encode_gif(video.astype(np.float32), 8)
        with pytest.raises(ValueError, match=r"video must be \(T, H, W, 3\)"):
            encode_gif(video[..., :1], 8)
        with pytest.raises(ValueError, match="not empty"):
            encode_gif(video[:0], 8)


class TestAddVideo:
    def test_event_file_holds_the_clip(self, tmp_path):
        video = moving_square(size=128)[0]
        np.testing.assert_array_equal(log(tmp_path, video), video)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_floats_are_rounded_not_cut(self, tmp_path, dtype):
        video = moving_square(size=128)[0]
        half = torch.from_numpy(video).double().div(255).to(dtype).requires_grad_()
        frames = log(tmp_path, half).astype(int)
        assert np.abs(frames - video).max() <= (0 if dtype != torch.bfloat16 else 1)

    def test_small_clips_are_enlarged_by_a_whole_factor(self, tmp_path):
        video = moving_square(size=30)[0]
        frames = log(tmp_path, video)
        assert frames.shape[1:3] == (150, 150)
        np.testing.assert_array_equal(frames[:, ::5, ::5], video)
        np.testing.assert_array_equal(frames[:, 4::5, 4::5], video)

    def test_batch_lies_side_by_side(self, tmp_path):
        videos = moving_square(n=3, size=128)
        frames = log(tmp_path, videos)
        assert frames.shape == (6, 128, 3 * 128 + 2 * 2, 3)
        for i in range(3):
            np.testing.assert_array_equal(frames[:, :, 130 * i : 130 * i + 128], videos[i])

    def test_grey_clips(self, tmp_path):
        video = moving_square(size=128)[0, ..., :1]
        np.testing.assert_array_equal(log(tmp_path, video), np.repeat(video, 3, axis=-1))

    def test_input_is_left_alone(self, tmp_path):
        video = moving_square()[0] / np.float32(255)
        before = video.copy()
        log(tmp_path, video)
        np.testing.assert_array_equal(video, before)

    def test_static_clip_shows(self, tmp_path):
        video = np.repeat(moving_square(t=1, size=128)[0], 5, axis=0)
        frames = log(tmp_path, video)  # the equal frames are one
        np.testing.assert_array_equal(frames[0], video[0])

    def test_closed_writer(self, tmp_path):
        writer = SummaryWriter(str(tmp_path))
        writer.close()
        with pytest.raises(ValueError, match="writer is closed"):
            add_video(writer, "clip", moving_square()[0], 0)

    @pytest.mark.parametrize(
        ("video", "error", "message"),
        [
            ([[0]], TypeError, "video must be a numpy array or a torch tensor, got list"),
            (np.zeros((2, 8, 8, 3), np.int64), TypeError, "uint8 in 0-255 or floats in 0-1"),
            (torch.zeros(2, 8, 8, 3, dtype=torch.bool), TypeError, "got a torch.bool tensor"),
            (np.zeros((8, 8, 3), np.uint8), ValueError, r"got shape \(8, 8, 3\)"),
            (np.zeros((2, 8, 8, 4), np.uint8), ValueError, "C 1 or 3"),
            (np.zeros((2, 3, 8, 8), np.uint8), ValueError, r"video.transpose\(0, 2, 3, 1\)"),
            (torch.zeros(2, 2, 3, 8, 8), ValueError, r"video.permute\(0, 1, 3, 4, 2\)"),
            (np.zeros((0, 8, 8, 3), np.uint8), ValueError, "video is empty"),
            (np.full((2, 8, 8, 3), np.nan), ValueError, "NaN"),
            (np.full((2, 8, 8, 3), np.inf), ValueError, "infinite"),
            (np.full((2, 8, 8, 3), 255.0), ValueError, "floats from 255 to 255"),
            (np.full((2, 8, 8, 3), -0.5), ValueError, "must lie in 0-1"),
        ],
    )
    def test_bad_video(self, tmp_path, video, error, message):
        writer = SummaryWriter(str(tmp_path))
        with pytest.raises(error, match=message):
            add_video(writer, "clip", video, 0)
        writer.close()

    @pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
    def test_bad_fps(self, tmp_path, fps):
        writer = SummaryWriter(str(tmp_path))
        with pytest.raises(ValueError, match="fps must be a positive number"):
            add_video(writer, "clip", moving_square()[0], 0, fps)
        with pytest.raises(ValueError, match="fps must be a positive number"):
            write_video(tmp_path / "clip.gif", moving_square()[0], fps)
        writer.close()


class TestTileVideos:
    def test_grid(self):
        videos = moving_square(n=5, size=16)
        tiled = tile_videos(videos, columns=3, gap=4)
        assert tiled.shape == (6, 16 + 4 + 16, 3 * 16 + 2 * 4, 3)
        np.testing.assert_array_equal(tiled[:, 20:36, 20:36], videos[4])
        assert len(np.unique(tiled[:, 20:36, 40:56])) == 1  # the cell that no clip fills
        assert len(np.unique(tiled[:, :, 16:20])) == 1  # a separator

    def test_many_clips_make_a_near_square(self):
        assert tile_videos(moving_square(n=9, size=16), gap=0).shape == (6, 48, 48, 3)

    def test_captions_lie_above_their_clips_and_widen_narrow_columns(self):
        videos = moving_square(n=2, size=16)
        tiled = tile_videos(videos, captions=["real", "a rather long caption"])
        head = tiled.shape[1] - 16
        assert head > 8
        assert tiled.shape[2] > 100
        assert tiled[0, :head].max() == 255
        assert (tiled[0, :head] == tiled[-1, :head]).all()
        columns = np.flatnonzero((tiled[0, head:] == videos[0, 0][4, 0]).all(-1).any(0))
        np.testing.assert_array_equal(
            tiled[:, head:, columns[0] : columns[0] + 16],
            videos[0],
        )

    def test_floats_and_grey(self):
        videos = moving_square(n=2, size=16)[..., :1]
        from_floats = tile_videos(torch.from_numpy(videos) / 255)
        assert from_floats.dtype == np.uint8
        np.testing.assert_array_equal(from_floats, tile_videos(videos))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"columns": 0}, "columns must be at least 1"),
            ({"gap": -1}, "gap must not be negative"),
            ({"captions": ["one"]}, "captions must be 2 texts"),
            ({"captions": "ab"}, "captions must be 2 texts"),
        ],
    )
    def test_bad_settings(self, settings, message):
        with pytest.raises(ValueError, match=message):
            tile_videos(moving_square(n=2), **settings)

    def test_one_clip_is_no_batch(self):
        with pytest.raises(ValueError, match=r"videos must be \(N, T, H, W, C\)"):
            tile_videos(moving_square()[0])


class TestWriteVideo:
    def test_gif(self, tmp_path):
        video = moving_square()[0]
        path = write_video(tmp_path / "new" / "folder" / "clip.GIF", video, fps=8)
        assert path == tmp_path / "new" / "folder" / "clip.GIF"
        frames, _ = decode(path.read_bytes())
        np.testing.assert_array_equal(frames, video)
        assert os.listdir(path.parent) == ["clip.GIF"]

    @pytest.mark.parametrize(("fps", "t"), [(8, 6), (7, 21)])
    def test_mp4_keeps_every_frame_once(self, tmp_path, fps, t):
        from moviepy import VideoFileClip

        video = np.zeros((t, 33, 35, 3), np.uint8)  # odd sides grow by one
        video += np.linspace(0, 250, t).astype(np.uint8)[:, None, None, None]
        path = write_video(str(tmp_path / "clip.mp4"), video, fps)
        assert isinstance(path, Path)
        with VideoFileClip(str(path)) as clip:
            assert clip.size == [36, 34]
            assert clip.fps == fps
            assert clip.reader.n_frames == t
            frames = [clip.get_frame((i + 0.5) / fps) for i in range(t)]
        error = np.abs(np.stack(frames)[:, :33, :35].astype(int) - video)
        assert error.max() <= 4

    def test_batch_with_captions_and_scale(self, tmp_path):
        path = write_video(
            tmp_path / "clips.gif", moving_square(n=2), 8, min_height=64, captions=["a", "b"]
        )
        frames, _ = decode(path.read_bytes())
        assert frames.shape[2] == 2 * 64 + 2
        assert frames.shape[1] > 64

    @pytest.mark.parametrize("name", ["clip.avi", "clip", "clip.mp4.tmp"])
    def test_other_endings(self, tmp_path, name):
        with pytest.raises(ValueError, match=r"path must end in .gif or .mp4"):
            write_video(tmp_path / "new" / name, moving_square()[0], 8)
        assert os.listdir(tmp_path) == []

    def test_failure_leaves_the_old_file_and_nothing_else(self, tmp_path, monkeypatch):
        path = write_video(tmp_path / "clip.gif", moving_square()[0], 8)
        before = path.read_bytes()

        def full_disk(*_):
            raise OSError("disk full")

        monkeypatch.setattr(os, "replace", full_disk)
        with pytest.raises(OSError, match="disk full"):
            write_video(path, moving_square(t=2)[0], 8)
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["clip.gif"]
