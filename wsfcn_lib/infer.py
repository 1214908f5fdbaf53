"""From an image to its label map by a trained network: views of the image, their fusion, the background rule.

A network sees an image in several views: scaled, and each also mirrored. Their masks are averaged, their
scores maximised (paper, section IV-A). `segment` does all of it, from files to names.
"""

import builtins
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import interpolate

from wsfcn_lib.checkpoints import CheckpointError, find_snapshot
from wsfcn_lib.data.classes import shown_colours
from wsfcn_lib.data.drawn import MARK, require_own
from wsfcn_lib.data.images import encode, resize_image, resize_labels, to_array
from wsfcn_lib.data.model_zoo import SHIPPED
from wsfcn_lib.data.normalisation import normalise
from wsfcn_lib.data.painting import paint
from wsfcn_lib.modules import resize
from wsfcn_lib.postprocess import crf, label_map
from wsfcn_lib.protocol import SCALES, protocol_of, usual_side
from wsfcn_lib.runs.paths import resolve_path
from wsfcn_lib.runs.storage import atomic_write
from wsfcn_lib.weights import load_network

VIEW_LIMIT = 2048 * 2048  # pixels of a view: about 4 GB of memory, at the 1,000 bytes that a pixel takes


class Segmentation(NamedTuple):
    """`segment`'s answer for K classes; background is class 0.

    masks: (K, H, W) float32 in [0, 1].
    scores: (K-1,) probabilities of the foreground classes.
    tags: (K-1,) bool, which of them are present.
    labels: (H, W) uint8 class indices.
    names: of the K classes.
    colours: (K, 3) uint8, those of pictures on a screen.
    image: (H, W, 3) uint8, what was segmented.
    score_cut: the probability above which a class is present.

    A notebook shows it as a picture; `show` does so anywhere, `save` writes it.
    """

    masks: np.ndarray
    scores: np.ndarray
    tags: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    colours: np.ndarray
    image: np.ndarray
    score_cut: float

    def __repr__(self) -> str:
        height, width = self.labels.shape
        return f"Segmentation of {width}x{height} pixels: {self.summary()}"

    def summary(self) -> str:
        """What was found, in words: each present class with its score and its share of the picture."""
        found = [f"{text} of the picture" for index, text in self._captions().items() if index]
        return ", ".join(found) or self._captions()[0]

    def picture(self) -> Image.Image:
        """The image with its classes tinted and outlined, and named in a line below."""
        return paint(self.image, self.labels, self.colours, self._captions())

    def show(self) -> None:
        """Show the picture: in a notebook below the cell, else in the system's viewer."""
        shell = getattr(builtins, "get_ipython", None)  # there in notebooks and in IPython's own shell
        if shell and shell().has_trait("kernel"):
            builtins.display(self)
        else:
            self.picture().show()

    def save(self, path: Path | str) -> Path:
        """Write the picture as PNG; returns its path.

        A path without an ending gets .png. A relative one lies in the repository, as everywhere in the library,
        where the working folder has no such file. What the kit did not draw itself is never replaced.
        """
        path = resolve_path(path)
        if not path.suffix:
            path = path.with_suffix(".png")
        if path.suffix.lower() != ".png":
            raise ValueError(f"{path.name} is written as PNG; name it {path.stem}.png")
        require_own(path)
        atomic_write(path, encode(self.picture(), "PNG", pnginfo=MARK))
        return path

    def _repr_png_(self) -> bytes:
        return encode(self.picture(), "PNG")

    def _captions(self) -> dict[int, str]:
        """By class index: name, score and share of the picture of the classes found; 0 where there is none."""
        shares = np.bincount(self.labels.ravel(), minlength=len(self.names)) / self.labels.size
        captions = {}
        for index, present in enumerate(self.tags, start=1):
            if present:
                share = (
                    f"{100 * shares[index]:.0f} %"
                    if shares[index] >= 0.01
                    else f"{100 * shares[index]:.1f} %"
                )
                captions[index] = f"{self.names[index]} {self.scores[index - 1]:.2f}, {share}"
        if not captions:
            best = int(self.scores.argmax())
            captions[0] = (
                f"no class above {self.score_cut:g}; strongest {self.names[1 + best]} {self.scores[best]:.2f}"
            )
        return captions


def segment(
    image,
    checkpoint: Path | str | None = None,
    recipe: str = "",
    use_crf: bool = False,
    long_side: int | None = None,
    scales: Sequence[float] = (),
    score_cut: float | None = None,
) -> Segmentation:
    """Segment one image with a trained network; needs no tags and no ground truth.

    Args:
        image: a path, a PIL image or an array (H, W, 3) uint8.
        checkpoint: a snapshot (.safetensors), released weights (.pth, or their name), or a run folder, whose
            best snapshot is taken; None: the small network that ships with the kit, which knows cat, cow,
            dog, horse, person and sheep.
        recipe: background rule, "wsfcn" or "1stage"; empty: the one that belongs to the weights, else
            "wsfcn".
        use_crf: refine by the dense CRF.
        long_side: network and CRF see a larger image shrunk to so many pixels on its longer side; the answer
            comes at the image's own size, masks enlarged bilinearly, labels to the nearest pixel. 0: all as
            it is; None: what suits the weights, see `usual_side`.
        scales: of the views; empty: those that belong to the weights, see `protocol_of`.
        score_cut: a class is present where its probability exceeds it, in [0, 1]; None: that of the weights.
    """
    net, classes, facts = _open(checkpoint)
    protocol = protocol_of(facts)
    recipe = recipe or protocol["recipe"]
    cut = protocol["score_cut"] if score_cut is None else score_cut
    image = to_array(image)
    small = shrink(image, usual_side(facts) if long_side is None else long_side)
    masks, scores = predict_masks(net, small, scales or protocol["scales"])
    chances = probabilities(scores)
    tags = chances > cut
    labels = crf(small, masks, tags, recipe) if use_crf else label_map(masks, tags, recipe)
    size = image.shape[:2]
    names = ("background", *(entry["name"] for entry in classes))
    colours = np.array([(0, 0, 0), *shown_colours([entry["colour"] for entry in classes])], np.uint8)
    return Segmentation(
        at_size(masks, size), chances, tags, at_size(labels, size), names, colours, image, cut
    )


def _open(checkpoint: Path | str | None) -> tuple[nn.Module, list[dict], dict]:
    """The network, classes and facts that `segment` is asked for."""
    if checkpoint is None:
        if not SHIPPED.is_file():
            raise CheckpointError(
                f"{SHIPPED}, the network that ships with the kit, is missing; bring it back with git, "
                "or name a run folder (data/runs/<name>) or a file of weights as checkpoint"
            )
        checkpoint = SHIPPED
    if resolve_path(checkpoint).is_dir():
        checkpoint = find_snapshot(checkpoint)
    return load_network(checkpoint)


class Prediction(NamedTuple):
    """What the network says of one image.

    masks: (K, H, W) float32 in [0, 1], fused over the views, no class zeroed.
    scores: (K-1,) float32 image scores, the maximum over the views; `probabilities` maps them to [0, 1].
    """

    masks: np.ndarray
    scores: np.ndarray


@torch.no_grad()
def predict_masks(
    net: nn.Module,
    image: np.ndarray,
    scales=SCALES,
    flip: bool = True,
    canvas: int | None = None,
    bf16: bool = False,
) -> Prediction:
    """Fuse the views of one image: the mean of their masks at image size, the maximum of their scores.

    Args:
        net: a network in evaluation mode.
        image: (H, W, 3) uint8.
        scales: of the views, relative to the image.
        flip: whether each view is also seen mirrored.
        canvas: None runs each view at its own size; 1024 is the published protocol, whose padding the scores
            see.
        bf16: run the network in bfloat16.

    Raises ValueError for a view of more than VIEW_LIMIT pixels (without a canvas).
    """
    check_image(image)
    if net.training:
        raise ValueError(
            "the network is in training mode, where dropout and gate draw at random; call net.eval() first"
        )
    for scale in scales:
        height, width = _view_size(image, scale)
        if height * width > VIEW_LIMIT and not canvas:
            raise ValueError(
                f"a view of {width}x{height} exceeds the {VIEW_LIMIT:,} pixels that fit into memory: "
                "set long_side to shrink the image, or lower scales"
            )
    total = None
    scores = []
    for scale in scales:
        for flipped in (False, True) if flip else (False,):
            masks, view_scores = predict_view(net, view(image, scale, flipped), canvas, bf16)
            masks = interpolate(masks, image.shape[:2], mode="bilinear", align_corners=False)[0]
            if flipped:
                masks = masks.flip(-1)
            # added in place: at four million pixels and 21 classes each copy takes 350 MB
            total = masks if total is None else total.add_(masks)
            scores.append(view_scores[0])
    fused = total.div_(len(scores)).cpu().numpy()
    return Prediction(fused, torch.stack(scores).amax(0).float().cpu().numpy())


def _view_size(image: np.ndarray, scale: float) -> tuple[int, int]:
    height, width = image.shape[:2]
    return max(1, round(scale * height)), max(1, round(scale * width))


def view(image: np.ndarray, scale: float, flip: bool) -> Tensor:
    """A view (1, 3, h, w) of an image (H, W, 3) uint8: resized (bicubic) by `scale`, normalised."""
    if scale != 1:
        image = resize_image(image, _view_size(image, scale))
    tensor = normalise(image)[None]
    return tensor.flip(-1) if flip else tensor


@torch.no_grad()
def predict_view(net: nn.Module, tensor: Tensor, canvas: int | None, bf16: bool) -> tuple[Tensor, Tensor]:
    """Masks (1, K, h, w) at the view's own size and scores (1, K-1) of one view."""
    rows = columns = slice(None)
    if canvas:
        tensor, rows, columns = pad_to(tensor, canvas)
    device = next(net.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        out = net(tensor.to(device, memory_format=torch.channels_last))
    masks = resize(out.masks.float(), tensor.shape[-2:], align_corners=True)
    return masks[..., rows, columns], out.scores


def pad_to(tensor: Tensor, canvas: int) -> tuple[Tensor, slice, slice]:
    """Centre a view on a square canvas of zeros, as published; also returns its rows and columns there."""
    height, width = tensor.shape[-2:]
    if max(height, width) > canvas:
        raise ValueError(
            f"a view of {width}x{height} exceeds canvas={canvas}; raise canvas, lower scales or long_side"
        )
    top, left = (canvas - height) // 2, (canvas - width) // 2
    rows, columns = slice(top, top + height), slice(left, left + width)
    padded = tensor.new_zeros((1, 3, canvas, canvas))
    padded[..., rows, columns] = tensor
    return padded, rows, columns


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Image scores as probabilities in [0, 1] (sigmoid), same shape."""
    return 1 / (1 + np.exp(-np.clip(scores, -60, 60)))


def check_image(image: np.ndarray) -> None:
    """Raise ValueError for anything but (H, W, 3) uint8."""
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape or image.dtype != np.uint8:
        raise ValueError(
            f"image is {image.dtype} {image.shape}; it must be (H, W, 3) uint8 RGB, as data.read_image gives"
        )


def shrink(image: np.ndarray, long_side: int | None) -> np.ndarray:
    """An image (H, W, 3) uint8 of at most `long_side` pixels a side (bicubic); None or 0: as it is."""
    check_image(image)
    longest = max(image.shape[:2])
    if not long_side or longest <= long_side:
        return image
    height, width = (max(1, round(long_side * side / longest)) for side in image.shape[:2])
    return resize_image(image, (height, width))


def at_size(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Labels (H, W) uint8 (nearest) or masks (K, H, W) float32 (bilinear) at another size (height, width)."""
    if maps.shape[-2:] == tuple(size):
        return maps
    if maps.ndim == 2:
        return resize_labels(maps, size)
    masks = torch.from_numpy(maps)[:, None]
    return interpolate(masks, size, mode="bilinear", align_corners=False)[:, 0].numpy()
