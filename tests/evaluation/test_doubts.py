"""What is said before a training that will learn little."""

import pytest

from factories import picture, settings
from wsfcn_lib.data.manifest import ClassInfo, Sample, write_manifest
from wsfcn_lib.evaluation.profiling import FEW_STEPS, doubts

CLASSES = tuple(ClassInfo(name=name, mask_id=k, colour=(k, 0, 9)) for k, name in enumerate(("cat", "dog"), 1))


def manifest(folder, train, val=("cat", "dog")):
    samples = {}
    for split, shown in (("train", train), ("val", val)):
        samples[split] = []
        for k, names in enumerate(shown):
            path = picture(folder / f"{split}{k}.jpg")
            samples[split].append(Sample(path.stem, path, tuple(info.name in names for info in CLASSES)))
    return write_manifest(folder / "data", CLASSES, samples)


TWENTY = ("cat", "dog") * 10


def test_a_long_training_of_classes_apart_raises_no_doubts(tmp_path):
    data = manifest(tmp_path, TWENTY)
    assert doubts(settings(data.folder, epochs=FEW_STEPS // 2, batch_size=8), data) == []


@pytest.mark.parametrize(
    "train, val, changes, line",
    [
        (TWENTY, TWENTY, {"epochs": 14}, r"only 28 steps (20 images, batch_size 8, 14 epochs)"),
        (TWENTY, TWENTY, {"epochs": 14}, r"epochs=600 make the 1,200 of the network that ships"),
        (TWENTY, ("cat",), {}, "val has no picture of dog"),
        (("cat", "cat dog") * 10, TWENTY, {}, "every one of the 20 training pictures shows cat"),
        (TWENTY, TWENTY, {"epochs": 300, "warmup_epochs": 300}, "the mask loss never trains"),
    ],
)
def test_what_teaches_little_is_said_with_its_number(tmp_path, train, val, changes, line):
    data = manifest(tmp_path, train, val)
    lines = doubts(settings(data.folder, **{"epochs": 300, "batch_size": 8} | changes), data)
    assert len(lines) == 1 and line in lines[0]
