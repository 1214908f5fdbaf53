"""What is said before a training that will learn little."""

import sys

import pytest

from factories import picture, settings
from wsfcn_lib import train as training
from wsfcn_lib.data.manifest import ClassInfo, Sample, write_manifest
from wsfcn_lib.evaluation.profiling import FEW_STEPS, doubts

CLASSES = tuple(ClassInfo(name=name, mask_id=k, colour=(k, 0, 9)) for k, name in enumerate(("cat", "dog"), 1))


def manifest(folder, train, val=("cat", "dog"), classes=CLASSES):
    samples = {}
    for split, shown in (("train", train), ("val", val)):
        samples[split] = []
        for k, names in enumerate(shown):
            path = picture(folder / f"{split}{k}.jpg")
            samples[split].append(Sample(path.stem, path, tuple(info.name in names for info in classes)))
    return write_manifest(folder / "data", classes, samples)


TWENTY = ("cat", "dog") * 10


def test_a_long_training_of_classes_apart_raises_no_doubts(tmp_path):
    data = manifest(tmp_path, TWENTY)
    assert doubts(settings(data.folder, epochs=FEW_STEPS // 2, batch_size=8), data) == []


@pytest.mark.parametrize(
    "train, val, changes, line",
    [
        (TWENTY, TWENTY, {"epochs": 14}, r"only 28 steps (20 images, batch_size 8, 14 epochs)"),
        (TWENTY, TWENTY, {"epochs": 14}, r"set `steps`; the network that ships had "),
        (TWENTY, ("cat",), {}, "val has no picture of dog"),
        (("cat", "cat dog") * 10, TWENTY, {}, "every one of the 20 training pictures shows cat"),
        (
            ("cat",) * 17 + ("dog",) * 3,
            TWENTY,
            {},
            "fewer than 10 training images, little to learn from: dog (3)",
        ),
        (TWENTY, TWENTY, {"epochs": 300, "warmup_epochs": 300}, "the mask loss never trains"),
    ],
)
def test_what_teaches_little_is_said_with_its_number(tmp_path, train, val, changes, line):
    data = manifest(tmp_path, train, val)
    lines = doubts(settings(data.folder, **{"epochs": 300, "batch_size": 8} | changes), data)
    assert len(lines) == 1 and line in lines[0]


@pytest.mark.parametrize(
    "train, line",
    [
        (TWENTY, "fewer than 10 training images, little to learn from: fox (0)"),
        (
            ("cat", "dog fox") * 10,
            "dog and fox always occur together in training: tags cannot tell them apart",
        ),
    ],
)
def test_classes_without_pictures_of_their_own_are_named(tmp_path, train, line):
    classes = (*CLASSES, ClassInfo(name="fox", mask_id=3, colour=(3, 0, 9)))
    data = manifest(tmp_path, train, ("cat", "dog", "fox"), classes)
    lines = doubts(settings(data.folder, epochs=300, batch_size=8), data)
    assert len(lines) == 1 and line in lines[0]


def test_the_command_says_it_too(tmp_path, monkeypatch, capsys):
    data = manifest(tmp_path, TWENTY, ("cat",))
    (tmp_path / "settings.json").write_text(
        settings(data.folder, epochs=1, warmup_epochs=0).model_dump_json()
    )
    monkeypatch.setattr(
        sys, "argv", ["", str(tmp_path / "run"), "--settings", str(tmp_path / "settings.json")]
    )
    monkeypatch.setattr(training, "train", lambda *arguments: iter(()))
    training.main()
    out = capsys.readouterr().out
    assert "NOTE: val has no picture of dog" in out and "NOTE: only 2 steps" in out


@pytest.mark.parametrize(
    "content, told", [("epochs: 3", "settings.json is no JSON (Expecting"), ("[3]", "holds a list")]
)
def test_settings_that_are_none_are_named(tmp_path, monkeypatch, content, told):
    (tmp_path / "settings.json").write_text(content)
    monkeypatch.setattr(
        sys, "argv", ["", str(tmp_path / "run"), "--settings", str(tmp_path / "settings.json")]
    )
    with pytest.raises(SystemExit) as error:
        training.main()
    assert told in str(error.value) and "settings.json" in str(error.value)
