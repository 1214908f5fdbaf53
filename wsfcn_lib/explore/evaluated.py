"""What an evaluation left in its run about some pictures: their masks and IoU, and the IoU of each class."""

import json
from functools import lru_cache

import numpy as np

from wsfcn_lib.data.images import read_image, read_mask
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.evaluation.inputs import file_suffix, images_label, samples_of
from wsfcn_lib.explore.browse import image_scores
from wsfcn_lib.explore.inspection import LONGEST
from wsfcn_lib.explore.layers import Missing
from wsfcn_lib.infer import at_size, shrink
from wsfcn_lib.runs.paths import ROOT

KINDS = ("prediction", "with CRF", "ground truth")


class Evaluated:
    """The files of a finished evaluation; nothing is computed.

    Args:
        run: the run folder.
        manifest: its data set.
        images: what was evaluated: a split, a list or a folder.
    """

    def __init__(self, run: str, manifest: Manifest, images: str):
        self.run, self.manifest, self.images = run, manifest, images
        self.samples = {sample.name: sample for sample in samples_of(images, manifest)}
        self.scores, path = image_scores(run, images), ROOT / run / f"metrics{file_suffix(images)}.json"
        found = json.loads(path.read_text("utf-8")) if path.exists() else {}
        self.metrics = (
            found if found.get("split") == images_label(images) else {}
        )  # it is of what was evaluated last
        self.read = lru_cache(4)(
            self._open
        )  # name → picture (H, W, 3) uint8, and {kind: labels (H, W) uint8}

    def labels(self, name: str, kind: str) -> np.ndarray:
        """A picture's labels of one kind, (H, W) uint8; Missing where the run has none."""
        found = self.read(name)[1]
        if kind not in found:
            told = {
                KINDS[
                    1
                ]: f"no masks with CRF in {self.run}: 05_evaluate makes them where pydensecrf2 is installed"
            }
            told |= {KINDS[2]: "no ground truth: this picture has no mask"}
            raise Missing(
                told.get(
                    kind, f"no masks of {images_label(self.images)} in {self.run}: run 05_evaluate on it"
                )
            )
        return found[kind]

    def _open(self, name: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        sample, places = self.samples[name], ROOT / self.run / "masks"
        files = {
            kind: places / f"{images_label(self.images)}{end}" / f"{name}.png"
            for kind, end in zip(KINDS, ("", "_crf"))
        }
        files = {kind: path for kind, path in files.items() if path.is_file()}
        files |= {KINDS[2]: sample.mask} if sample.mask else {}
        rgb = np.ascontiguousarray(shrink(read_image(sample.image), LONGEST))
        return rgb, {
            kind: at_size(read_mask(path, self.manifest), rgb.shape[:2]) for kind, path in files.items()
        }
