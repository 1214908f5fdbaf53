"""Tiles: they cover the picture, blend without seams, and their number follows the memory."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from wsfcn_lib import WSFCN, NetConfig
from wsfcn_lib import infer as tiles
from wsfcn_lib.infer import OVERLAP, PIXEL_BYTES, SHARE, WHOLE, in_tiles, predict_masks, spans, tile_side

IMAGE = np.random.default_rng(0).integers(0, 256, (150, 211, 3), dtype=np.uint8)


def colours(part):
    """A network that knows nothing but each pixel's colour."""
    masks = torch.from_numpy(part.astype(np.float32) / 255).permute(2, 0, 1)
    return masks, masks.amax((1, 2))


@pytest.mark.parametrize("length, side", [(100, 40), (41, 40), (40, 40), (7, 40), (4000, 913), (301, 100)])
def test_spans_cover_the_length_and_overlap(length, side):
    found = spans(length, side)
    assert found[0].start == 0 and found[-1].stop == length
    assert all(span.stop - span.start == min(side, length) for span in found)
    assert all(a.stop - b.start >= math.floor(OVERLAP * side) for a, b in zip(found, found[1:]))
    assert len(found) <= math.ceil(max(0, length - side) / (side * (1 - OVERLAP))) + 1, (
        "no more tiles than needed"
    )


@pytest.mark.parametrize("side", [40, 64, 150, 500])
def test_what_looks_at_single_pixels_sees_no_tiles(side):
    masks, scores = in_tiles(colours, IMAGE, side)
    whole, best = colours(IMAGE)
    assert torch.allclose(masks, whole, atol=1e-5) and torch.equal(scores, best)


def test_no_seam_where_tiles_disagree():
    """Two tiles that answer 0 and 1: the overlap leads from one to the other in small steps."""
    answers = iter((0.0, 1.0))
    masks, _ = in_tiles(
        lambda part: (torch.full((1, *part.shape[:2]), next(answers)), torch.zeros(1)), IMAGE[:64, :100], 64
    )
    row = masks[0, 30]
    assert row[0] == 0 and row[-1] == 1 and (row.diff() >= 0).all()
    assert row.diff().max() < 0.1


def test_a_large_picture_is_put_together_from_tiles(monkeypatch):
    torch.manual_seed(0)
    net = WSFCN(NetConfig(backbone="tiny", width=16, dilations=(1, 2, 4, 6), num_classes=4)).eval()
    seen = []
    net.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[-2:]))
    whole = predict_masks(net, IMAGE, (1.0, 0.5))
    assert {tuple(size) for size in seen} == {(150, 211), (75, 106)}
    seen.clear()
    parts = predict_masks(net, IMAGE, (1.0, 0.5), tile=96)
    assert max(size[0] * size[1] for size in seen) == 96 * 96 and parts.masks.shape == whole.masks.shape
    assert np.abs(parts.masks.sum(0) - 1).max() < 1e-5, "still probabilities"
    assert np.abs(parts.masks - whole.masks).max() > 1e-3, "a tile does not know what lies around it"

    # the same by itself where memory is short
    free = PIXEL_BYTES * 96**2 / SHARE
    monkeypatch.setattr(tiles.psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    monkeypatch.setattr(tiles, "WHOLE", 16)
    seen.clear()
    short = predict_masks(net, IMAGE, (1.0, 0.5))
    assert max(size[0] * size[1] for size in seen) <= 96 * 96
    assert {tuple(size) for size in seen} == {(96, 96), (75, 106)}, "the smaller view fits as it is"
    assert np.isfinite(short.masks).all()


def test_side_follows_free_memory_and_scale(monkeypatch):
    monkeypatch.setattr(
        tiles.psutil, "virtual_memory", lambda: SimpleNamespace(available=PIXEL_BYTES * 4000**2 / SHARE)
    )
    assert [tile_side(torch.device("cpu"), scale) for scale in (1, 2)] == [4000, 2000]
    monkeypatch.setattr(tiles.psutil, "virtual_memory", lambda: SimpleNamespace(available=1e6))
    assert [tile_side(torch.device("cpu"), scale) for scale in (1, 2)] == [WHOLE, WHOLE // 2]
    assert WHOLE // 2 >= 640, "COCO's largest picture is whole at twice its size"
