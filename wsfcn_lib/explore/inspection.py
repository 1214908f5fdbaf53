"""A network with its images, and what it says of one: every step from image to segmentation."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from types import MappingProxyType

import numpy as np
import torch
from torch.nn.functional import relu

from wsfcn_lib.checkpoints import CheckpointError, find_snapshot
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import read_image, read_mask
from wsfcn_lib.data.manifest import SPLITS, Manifest
from wsfcn_lib.data.model_zoo import PHOTOGRAPHS, SHIPPED
from wsfcn_lib.data.normalisation import denormalise, normalise
from wsfcn_lib.evaluation.inputs import load_trained, samples_of
from wsfcn_lib.infer import at_size, predict_masks, probabilities, shrink
from wsfcn_lib.modules import resize
from wsfcn_lib.pamr import pamr
from wsfcn_lib.postprocess import crf, label_map
from wsfcn_lib.protocol import usual_side

SHIPS = "the network that ships"
STEPS = 10  # PAMR's iterations, all kept
ONE_VIEW, ALL_VIEWS = VIEWS = ("one view, quick", "all views, as evaluated")


@dataclass(frozen=True, eq=False)
class Inspection:
    """One image and what the network says of it.

    rgb: (H, W, 3) uint8. truth: (H, W) uint8 or None. tags: (K-1,) bool, given with the image, or None.
    probabilities: (K-1,) in [0, 1]. masks: (K, H, W) in [0, 1], softmax, of one view or all.
    cams: (K, h, w) in [0, 1], one view: logits above 0, each class by its maximum.
    refined: PAMR's masks (K, h, w) after 0..10 iterations, from the softmax mask of one view.
    recipe: the background rule of the prediction. score_cut: the probability above which a class is present.
    manifest: whose classes these are.
    """

    rgb: np.ndarray
    truth: np.ndarray | None
    tags: np.ndarray | None
    probabilities: np.ndarray
    masks: np.ndarray
    cams: torch.Tensor
    refined: list[torch.Tensor]
    recipe: str
    score_cut: float
    manifest: Manifest

    @property
    def predicted(self) -> np.ndarray:
        """(K-1,) bool: the classes whose probability exceeds the cut."""
        return self.probabilities > self.score_cut

    @property
    def training_tags(self) -> np.ndarray:
        """(K-1,) bool: the classes of pseudo labels: the image's tags, else the predicted ones."""
        return self.predicted if self.tags is None else self.tags

    @cached_property
    def label(self) -> np.ndarray:
        """(H, W) uint8, the prediction without CRF."""
        return label_map(self.masks, self.predicted, self.recipe)

    @cached_property
    def crf(self) -> np.ndarray:
        """(H, W) uint8, the prediction with CRF; ImportError where its package is missing."""
        return crf(self.rgb, self.masks, self.predicted, self.recipe)

    def at_image_size(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (n, h, w) as (n, H, W)."""
        return resize(maps[None], self.rgb.shape[:2], align_corners=True)[0]


class Inspector:
    """A network with its images.

    Args:
        run: a run folder, or SHIPS for the network that ships with the kit.
        images: what `samples_of` takes; where nothing belongs to a network, the photographs of the kit.
        data: folder with a manifest, for a network without one of its own.
        snapshot: of the run, see `load_trained`.
        scales, flip, canvas: of "all views", as in `predict_masks`; scales None: those of the network's file;
            canvas 0: none.
        long_side: pixels, larger images are shrunk to it, 0: never; None: what suits the network, see
            `usual_side`.
        device: where the network computes.
        uploads: {name: (H, W, 3) uint8}, further images; may grow.
        notify: receives a sentence before each thing that takes time.
    """

    def __init__(
        self,
        run: str,
        images: str = "val",
        data: str = "",
        snapshot: str = "best",
        scales: Sequence[float] | None = None,
        flip: bool = True,
        canvas: int = 0,
        long_side: int | None = None,
        device: str = "cpu",
        uploads: Mapping[str, np.ndarray] = MappingProxyType({}),
        notify: Callable[[str], None] = lambda text: None,
    ):
        if run == SHIPS:
            run, snapshot = "", str(SHIPPED)
        self.trained = load_trained(run, snapshot, data)
        self.manifest = self.trained.manifest
        if images in SPLITS and not self.manifest.splits:
            images = str(PHOTOGRAPHS)
        samples = samples_of(images, self.manifest)
        self.samples = {sample.name: sample for sample in samples}
        self.views = (scales or self.trained.protocol["scales"], flip, canvas or None)
        self.notify, self.uploads = notify, uploads
        facts = {"crop": self.trained.config.crop} | self.trained.facts
        self.long_side = usual_side(facts) if long_side is None else long_side
        self.device = torch.device(device)
        self._net = self.trained.net.to(self.device)
        self._lock, self._last = threading.Lock(), lru_cache(4)(self._inspect)

    def inspect(self, name: str, view: str = ONE_VIEW) -> Inspection:
        """What the network says of an image; the last four answers are kept. `view` is one of VIEWS."""
        with self._lock:
            return self._last(name, view)

    def _inspect(self, name: str, view: str) -> Inspection:
        if view == ALL_VIEWS:
            quick = self._last(name, ONE_VIEW)
            self.notify(f"the network looks at {name} at scales {', '.join(map(str, self.views[0]))} …")
            masks, scores = predict_masks(self._net, quick.rgb, *self.views)
            return replace(quick, masks=masks, probabilities=probabilities(scores))
        rgb, truth, tags = self._read(name)
        self.notify(f"the network looks at {name} …")
        images = normalise(rgb)[None].to(self.device)
        with torch.no_grad():
            out = self._net(images)
        small = resize(denormalise(images), out.masks.shape[-2:], align_corners=True)
        refined = [out.masks.float()]
        for _ in range(STEPS):
            refined.append(pamr(small, refined[-1], self.trained.config.pamr_dilations, 1))
        cams = relu(out.logits[0]).cpu()
        return Inspection(
            rgb,
            truth,
            tags,
            probabilities(out.scores[0].float().cpu().numpy()),
            resize(refined[0], rgb.shape[:2], align_corners=True)[0].cpu().numpy(),
            cams / cams.amax((1, 2), keepdim=True).clamp_min(1e-5),
            [masks[0].cpu() for masks in refined],
            self.trained.protocol["recipe"],
            self.trained.protocol["score_cut"],
            self.manifest,
        )

    def _read(self, name: str) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """An image, its truth and its tags, as in Inspection."""
        if name in self.samples:
            sample = self.samples[name]
            rgb = np.ascontiguousarray(shrink(read_image(sample.image), self.long_side))
            truth = sample.mask and at_size(read_mask(sample.mask, self.manifest), rgb.shape[:2])
            return rgb, truth, np.array(sample.tags, bool) if any(sample.tags) else None
        if name in self.uploads:
            return np.ascontiguousarray(shrink(self.uploads[name], self.long_side)), None, None
        raise DataError(f"no picture is called {name!r} here; choose another")


def snapshot_stamp(run: str, snapshot: str = "best") -> tuple[str, int]:
    """File and time of a run's snapshot: they change when the network does."""
    if run == SHIPS:
        path = SHIPPED
    else:
        path = find_snapshot(run, snapshot)
    if not path.is_file():
        raise CheckpointError(
            f"{path.name}, the network that ships with the kit, is missing; bring it back with git"
        )
    return str(path), path.stat().st_mtime_ns
