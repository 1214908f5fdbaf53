"""From a manifest's pictures to training batches, with the published augmentation (paper, section IV).

Every random draw of a sample comes from (seed, epoch, index) alone, so the number of workers or processes,
and being resumed, change nothing.
"""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import open_image, read_mask
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.normalisation import normalise


def _generator_seed(*numbers: int) -> int:
    """63 bits that depend on all numbers and their order."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


class TrainSet(Dataset):
    """Images and tags of one split; there is no mask here, and no mask file is ever opened.

    An item is asked for as (epoch, index), or index alone for epoch 0: image (3, crop, crop) float32
    normalised, tags (K-1,) float32 of the whole image, index. With `augment` the published chain runs:
    resized crop, flip, colour jitter; without, the shorter side is resized to `crop` and the middle cut out.
    `rule` names how the part to crop is drawn, see `TrainConfig.crop_rule`.
    """

    def __init__(
        self,
        manifest: Manifest,
        split: str,
        crop: int,
        seed: int,
        augment: bool = True,
        rule: str = "torchvision",
    ):
        from torchvision.transforms import v2  # most of a second to import, which inference need not pay

        samples = manifest.samples(split)
        self.paths: list[Path] = [sample.image for sample in samples]
        self.tags = torch.tensor([sample.tags for sample in samples], dtype=torch.float32)
        self.seed, self.augment = seed, augment
        # On Pillow images, as published: Pillow's hue shift is also twice as fast as the one on tensors.
        bicubic, bilinear = v2.InterpolationMode.BICUBIC, v2.InterpolationMode.BILINEAR
        random_crop = v2.RandomResizedCrop
        if rule == "published-2019":
            from wsfcn_lib.data.crop_2019 import Crop2019 as random_crop
        self.chain = v2.Compose(
            [
                random_crop(crop, scale=(0.9, 1.0), ratio=(3 / 4, 4 / 3), interpolation=bicubic),
                v2.RandomHorizontalFlip(0.5),
                v2.ColorJitter(0.3, 0.3, 0.3, 0.1),
            ]
            if augment
            else [v2.Resize(crop, interpolation=bilinear), v2.CenterCrop(crop)]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, item: tuple[int, int] | int) -> tuple[torch.Tensor, torch.Tensor, int]:
        epoch, index = item if isinstance(item, tuple) else (0, item)
        image = self._changed(epoch, index, open_image(self.paths[index]))
        return normalise(np.asarray(image)), self.tags[index], index

    def _changed(self, epoch: int, index: int, *pictures) -> object:
        """The pictures after one and the same draw of the augmentation."""
        with torch.random.fork_rng(devices=[]):
            # The CPU's generator alone: torch.manual_seed would also visit every device, ten times as slow.
            torch.default_generator.manual_seed(_generator_seed(self.seed, epoch, index))
            return self.chain(*pictures)


class MaskedTrainSet(TrainSet):
    """The same images and crops with their true masks, for a ceiling: what the network learns when told all.

    An item has the true labels (crop, crop) uint8 as its fourth, class indices or 255.

    Raises DataError where an image of the split has no mask.
    """

    def __init__(self, manifest: Manifest, split: str, crop: int, seed: int, **how):
        super().__init__(manifest, split, crop, seed, **how)
        samples = manifest.masked_samples(split)
        bare = [sample.name for sample in samples if not sample.mask]
        if bare:
            raise DataError(
                f"supervision='masks' needs a mask of every image, and {len(bare)} of {split} have none, first "
                f"{bare[0]}; add them, or use supervision='tags'"
            )
        self.masks = [sample.mask for sample in samples]
        self.manifest = manifest

    def __getitem__(
        self, item: tuple[int, int] | int
    ) -> tuple[torch.Tensor, torch.Tensor, int, torch.Tensor]:
        from torchvision.tv_tensors import Mask

        epoch, index = item if isinstance(item, tuple) else (0, item)
        image = open_image(self.paths[index])
        truth = Mask(read_mask(self.masks[index], self.manifest))
        image, truth = self._changed(epoch, index, image, truth)
        return normalise(np.asarray(image)), self.tags[index], index, truth.as_subclass(torch.Tensor)


def repeated_batches(length: int, batch_size: int, seed: int, count: int) -> list[list[tuple[int, int]]]:
    """The first `count` batches of a list that is repeated, each pass shuffled anew: (pass, index) of items.

    A batch may begin in one pass and end in the next, so that all images come equally often.
    """
    items = []
    number = 0
    while len(items) < count * batch_size:
        order = np.random.default_rng([seed, number]).permutation(length).tolist()
        items += [(number, index) for index in order]
        number += 1
    return [items[start : start + batch_size] for start in range(0, count * batch_size, batch_size)]


def epoch_batches(length: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The shuffled indices of one epoch in batches, without a partial one; from (seed, epoch) alone."""
    order = np.random.default_rng([seed, epoch]).permutation(length).tolist()
    return [order[start : start + batch_size] for start in range(0, length - batch_size + 1, batch_size)]
