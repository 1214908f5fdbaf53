"""What an explorer looks at: a network of its own, its pictures, and what the network said of the last few."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import relu

from wsfcn_lib.checkpoints import CheckpointError, find_snapshot
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import open_image, read_image, read_mask
from wsfcn_lib.data.manifest import SPLITS, Sample
from wsfcn_lib.data.normalisation import denormalise, normalise
from wsfcn_lib.evaluation.inputs import load_trained, samples_of
from wsfcn_lib.infer import SCORE_CUT, SHIPPED, at_size, predict_masks, probabilities, shrink
from wsfcn_lib.modules import resize
from wsfcn_lib.pamr import pamr
from wsfcn_lib.plots.style import PORTRAIT
from wsfcn_lib.postprocess import crf, label_map
from wsfcn_lib.runs.paths import ROOT

SHIPS = "the network that ships"
LONGEST = 500  # pixels, VOC's longest side
STEPS = 10  # PAMR's iterations, all kept
VIEWS = ("one view, quick", "all views, as evaluated")


@dataclass(frozen=True, eq=False)
class Inspection:
    """One picture and what the network says of it.

    rgb: (H, W, 3) uint8. truth: (H, W) uint8 or None. tags: (K-1,) bool, given with the picture, or None.
    chances: (K-1,) probabilities. masks: (K, H, W) in [0, 1], softmax, of one view or all.
    cams: (K, h, w) in [0, 1], one view: logits above 0, each class by its maximum.
    steps: PAMR's masks (K, h, w) after 0..10 iterations, from the softmax mask of one view.
    """

    rgb: np.ndarray
    truth: np.ndarray | None
    tags: np.ndarray | None
    chances: np.ndarray
    masks: np.ndarray
    cams: torch.Tensor
    steps: list[torch.Tensor]
    recipe: str

    @property
    def predicted(self) -> np.ndarray:
        """(K-1,) bool: the classes whose probability exceeds the cut."""
        return self.chances > SCORE_CUT

    @property
    def taught(self) -> np.ndarray:
        """(K-1,) bool: the classes that pseudo labels are made of: the picture's tags, else the predicted ones."""
        return self.predicted if self.tags is None else self.tags

    @cached_property
    def label(self) -> np.ndarray:
        """(H, W) uint8, the prediction without CRF."""
        return label_map(self.masks, self.predicted, self.recipe)

    @cached_property
    def crf(self) -> np.ndarray:
        """(H, W) uint8, the prediction with CRF; ImportError where its package is missing."""
        return crf(self.rgb, self.masks, self.predicted, self.recipe)

    def large(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (n, h, w) at the picture's size."""
        return resize(maps[None], self.rgb.shape[:2], align_corners=True)[0]


def decode(content: bytes, name: str) -> np.ndarray:
    """An uploaded file as (H, W, 3) uint8; DataError if it is no picture."""
    return np.asarray(open_image(name, content))


class Inspector:
    """A network with its pictures.

    Args:
        run: a run folder, or SHIPS for the network that ships with the kit.
        images: what `subjects.samples_of` takes; where nothing belongs to a network, matplotlib's sample portrait.
        data: folder with a manifest, for a network without one of its own.
        snapshot: of the run, see `subjects.load_trained`.
        scales, flip, canvas: of "all views", as in `predict_masks`; canvas 0: none.
        long_side: pixels, larger pictures are shrunk to it, 0: never; None: 500, or twice the crop of the training where
            that is less, for a network knows objects by the size it has seen them in.
        device: where the network computes.
        uploads: {name: (H, W, 3) uint8}, further pictures; may grow.
        say: is told in words what takes time.
    """

    def __init__(
        self,
        run: str,
        images: str = "val",
        data: str = "",
        snapshot: str = "best",
        scales: Sequence[float] = (1.0, 1.5, 2.0),
        flip: bool = True,
        canvas: int = 0,
        long_side: int | None = None,
        device: str = "cpu",
        uploads: Mapping[str, np.ndarray] | None = None,
        say: Callable[[str], None] = lambda words: None,
    ):
        self.trained = load_trained(
            "" if run == SHIPS else run, str(SHIPPED) if run == SHIPS else snapshot, data
        )
        self.manifest, self.recipe = self.trained.manifest, self.trained.protocol["recipe"]
        portrait = Sample("portrait", Path(PORTRAIT), (False,) * len(self.manifest.classes))
        known = bool(self.manifest.splits) or images not in SPLITS
        self.samples = {s.name: s for s in (samples_of(images, self.manifest) if known else [portrait])}
        self.views = scales, flip, canvas or None
        self.say, self.uploads = say, {} if uploads is None else uploads
        crop = self.trained.facts.get("crop", self.trained.config.crop)
        self.long_side = min(LONGEST, 2 * crop) if long_side is None else long_side
        self.device, self._lock = torch.device(device), threading.Lock()
        self._net, self._kept = self.trained.net.to(self.device), lru_cache(4)(self._look)

    def look(self, name: str, view: str = VIEWS[0]) -> Inspection:
        """What the network says of a picture; the last four answers are kept. `view` is one of VIEWS."""
        with self._lock:
            return self._kept(name, view)

    def _look(self, name: str, view: str) -> Inspection:
        sample, truth = self.samples.get(name), None
        if sample is None and name not in self.uploads:
            raise DataError(f"no picture is called {name!r} here; choose another")
        if view != VIEWS[0]:
            quick = self._kept(name, VIEWS[0])
            self.say(f"the network looks at {name} at scales {', '.join(map(str, self.views[0]))} …")
            masks, scores = predict_masks(self._net, quick.rgb, *self.views)
            return replace(quick, masks=masks, chances=probabilities(scores))
        self.say(f"the network looks at {name} …")
        rgb = np.ascontiguousarray(
            shrink(self.uploads[name] if sample is None else read_image(sample.image), self.long_side)
        )
        if sample is not None and sample.mask is not None:
            truth = at_size(read_mask(sample.mask, self.manifest), rgb.shape[:2])
        tags = np.array(sample.tags, bool) if sample is not None and any(sample.tags) else None
        images = normalise(rgb)[None].to(self.device)
        with torch.no_grad():
            out = self._net(images)
        small, steps = (
            resize(denormalise(images), out.masks.shape[-2:], align_corners=True),
            [out.masks.float()],
        )
        for _ in range(STEPS):
            steps.append(pamr(small, steps[-1], self.trained.config.pamr_dilations, 1))
        cams = relu(out.logits[0]).cpu()
        cams = cams / cams.amax((1, 2), keepdim=True).clamp_min(1e-5)
        masks = resize(steps[0], rgb.shape[:2], align_corners=True)[0].cpu().numpy()
        chances, steps = probabilities(out.scores[0].float().cpu().numpy()), [step[0].cpu() for step in steps]
        return Inspection(rgb, truth, tags, chances, masks, cams, steps, self.recipe)


def stamp(run: str, snapshot: str = "best") -> tuple[str, int]:
    """File and time of a run's snapshot: they change when the network does."""
    path = (
        SHIPPED
        if run == SHIPS
        else find_snapshot(ROOT / run, snapshot if snapshot in ("best", "last") else str(ROOT / snapshot))
    )
    if not path.is_file():
        raise CheckpointError(
            f"{path.name}, the network that ships with the kit, is missing; bring it back with git"
        )
    return str(path), path.stat().st_mtime_ns
