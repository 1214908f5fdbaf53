"""What `images` may name: splits, lists, folders; which network and data a run and `snapshot` stand for."""

from pathlib import Path

import pytest
from PIL import Image

from factories import released_file
from wsfcn_lib.checkpoints import save_snapshot
from wsfcn_lib.config import NetConfig, TrainConfig
from wsfcn_lib.data.drawn import MARK
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.manifest import ClassInfo, Sample, write_manifest
from wsfcn_lib.data.model_zoo import ARTEFACTS, WeightsError
from wsfcn_lib.evaluation.inputs import (
    file_suffix,
    images_label,
    load_trained,
    manifest_of,
    passed_over,
    read_images,
    samples_of,
)
from wsfcn_lib.evaluation.scoring import EvalSettings
from wsfcn_lib.network import build_network
from wsfcn_lib.protocol import SCALES
from wsfcn_lib.runs.folder import RunFolder
from wsfcn_lib.runs.settings import SettingsError
from wsfcn_lib.runs.storage import RunError

CLASSES = tuple(ClassInfo(name=n, mask_id=i, colour=(i, 0, 9)) for n, i in (("cat", 8), ("dog", 12)))


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    """A repository of its own: train a (with mask) and b (without), val c (with mask).

    In test a stands once more, as in the train list, without its mask.
    """
    monkeypatch.setattr("wsfcn_lib.runs.paths.ROOT", tmp_path)
    for name in "abc":
        Image.new("RGB", (6, 5)).save(tmp_path / f"{name}.jpg")
        Image.new("L", (6, 5)).save(tmp_path / f"{name}.png")
    a, b, c = (Sample(n, tmp_path / f"{n}.jpg", (n != "b", n == "b"), tmp_path / f"{n}.png") for n in "abc")
    splits = {"train": [a, Sample("b", b.image, b.tags)], "val": [c], "test": [Sample("a", a.image, a.tags)]}
    return write_manifest(tmp_path / "prepared", CLASSES, splits)


def found(samples):
    return [(s.name, s.image.name, s.tags, s.mask and s.mask.name) for s in samples]


def test_splits_come_with_their_masks(manifest):
    train = [("a", "a.jpg", (True, False), "a.png"), ("b", "b.jpg", (False, True), None)]
    assert found(samples_of("train", manifest)) == train
    assert found(samples_of("val", manifest)) == [("c", "c.jpg", (True, False), "c.png")]


def test_a_list_keeps_its_order_and_gets_what_any_split_knows(manifest, tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "dev.txt").write_text("c\n\nb\r\n a \n")
    listed = [
        ("c", "c.jpg", (True, False), "c.png"),
        ("b", "b.jpg", (False, True), None),
        ("a", "a.jpg", (True, False), "a.png"),
    ]
    assert found(samples_of("lists/dev.txt", manifest)) == listed
    assert found(samples_of(str(tmp_path / "lists" / "dev.txt"), manifest)) == listed


def test_the_home_folder_is_understood(manifest, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "dev.txt").write_text("c\n")
    assert (
        found(samples_of("~/dev.txt", manifest)) == found(samples_of("val", manifest))
        and images_label("~") == tmp_path.name
    )


def test_wrong_names_in_a_list(manifest, tmp_path):
    (tmp_path / "dev.txt").write_text("a\nx\nc\ny\n")
    with pytest.raises(
        DataError, match=r"dev\.txt: 2 of its 4 names are unknown, first 'x'; name images of .*prepared"
    ):
        samples_of("dev.txt", manifest)
    (tmp_path / "other").mkdir()
    Image.new("RGB", (6, 5)).save(tmp_path / "other" / "c.jpg")
    train = Sample("c", tmp_path / "other" / "c.jpg", (True, False))
    (tmp_path / "dev.txt").write_text("c\n")
    double = write_manifest(tmp_path / "double", CLASSES, {"train": [train], "val": manifest.samples("val")})
    with pytest.raises(DataError, match="'c' stands for two pictures of .*double; rename one of them"):
        samples_of("dev.txt", double)


def test_a_folder_is_its_pictures_in_order(manifest, tmp_path):
    holiday = tmp_path / "holiday.2020"
    (holiday / "more.jpg").mkdir(parents=True)
    for name in ("dog.JPG", "cat.tif", "b.c.webp", "._cat.jpg", "notes.txt", "more.jpg/x.jpg"):
        (holiday / name).write_bytes(b"not opened here")
    nothing = (False, False), None
    pictures = [("b.c", "b.c.webp", *nothing), ("cat", "cat.tif", *nothing), ("dog", "dog.JPG", *nothing)]
    pictures.append(("x", "x.jpg", *nothing))
    assert found(samples_of("holiday.2020", manifest)) == pictures
    assert found(samples_of(f"{holiday}/", manifest)) == pictures
    assert found(samples_of("holiday.2020/dog.JPG", manifest)) == pictures[2:3]
    assert passed_over("holiday.2020") == [
        "not pictures, passed over: 1 hidden (._cat.jpg), 1 .txt (notes.txt)"
    ]
    (holiday / "dog.png").touch()
    assert [sample.name for sample in samples_of(str(holiday), manifest)][2:4] == ["dog_JPG", "dog_png"]


def test_folders_of_masks_and_masks_beside_pictures_are_no_photographs(manifest, tmp_path):
    """The layouts of VOC and of labelling tools, as they lie below a folder that somebody names."""
    for name in (
        "home/x.jpg", "home/masks/x.png", "home/annotations/trimaps/x.png", "home/x_mask.png", "home/y_segmented.png",
        "home/y.jpg", "home/@eaDir/x.jpg", "voc/JPEGImages/z.jpg", "voc/SegmentationClass/z.png",
        "voc/SegmentationObject/z.png", "only/masks/x.png",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 5)).save(tmp_path / name)
    Image.new("RGB", (6, 5)).save(tmp_path / "home" / "drawn.png", pnginfo=MARK)
    assert [sample.image.name for sample in samples_of("home", manifest)] == ["x.jpg", "y.jpg"]
    assert passed_over("home") == [
        "2 files such as x_mask.png are masks beside their pictures, not pictures, and are not used; list those that "
        "are photographs in tags.csv",
        "not pictures, passed over: 2 in folders of masks (annotations/trimaps/x.png), 1 system or hidden folder (@eaDir), "
        "1 drawn by the kit (drawn.png)",
    ]
    assert [sample.image.name for sample in samples_of("voc", manifest)] == ["z.jpg"]
    assert passed_over("voc") == [
        "not pictures, passed over: 2 in folders of masks (SegmentationClass/z.png)"
    ]
    assert [sample.image.name for sample in samples_of("only/masks", manifest)] == ["x.png"], "named itself"
    with pytest.raises(
        DataError, match=r"passed over: 1 in folders of masks \(masks/x.png\); name the folder that"
    ):
        samples_of("only", manifest)


def test_a_picture_of_an_unknown_kind_is_to_be_converted(manifest, tmp_path):
    for name in ("x.heic", "x.mp4"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic\xff\xfe")
        (sample,) = samples_of(name, manifest)
        with pytest.raises(
            DataError, match=r"not a readable picture, known are JPEG, .*; convert a picture to JPEG"
        ):
            next(read_images(name, [sample]))


@pytest.mark.parametrize("images", ["", " "])
def test_no_images_are_not_the_repository(manifest, images):
    Image.new("RGB", (6, 5)).save(manifest.folder.parent / "figure.png")
    with pytest.raises(DataError, match="images is empty; name a split, a list of names, or a folder of"):
        samples_of(images, manifest)


def test_paths_may_be_paths(manifest, tmp_path):
    """As people write them in a notebook: a Path, with an ending in capitals."""
    Image.new("RGB", (6, 5)).save(tmp_path / "IMG_1.JPG")
    assert [s.image for s in samples_of(tmp_path / "IMG_1.JPG", manifest)] == [tmp_path / "IMG_1.JPG"]
    settings = EvalSettings(images=tmp_path / "IMG_1.JPG")
    assert settings.images == str(tmp_path / "IMG_1.JPG") and images_label(tmp_path / "IMG_1.JPG") == "IMG_1"
    with pytest.raises(SettingsError, match="images"):
        EvalSettings(images=3)


def test_nothing_to_look_at(manifest, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DataError,
        match=r"empty: there is no picture in this folder; known endings are \.jpg, .*\.tiff; name the folder that holds",
    ):
        samples_of("empty", manifest)
    with pytest.raises(
        DataError,
        match=r"images='vla' is no split \(train, val, test\), and no list or folder lies at .*vla; correct",
    ):
        samples_of("vla", manifest)
    (tmp_path / "dev.txt").write_text("a\n")
    for images in ("val", str(tmp_path / "dev.txt")):
        with pytest.raises(
            DataError,
            match=r"needs a data set, and none is known: name one as `data`, or a folder of pictures",
        ):
            samples_of(images, manifest_of([info.model_dump() for info in CLASSES], tmp_path))


def test_labels_are_clean_and_never_those_of_another_split(tmp_path, monkeypatch):
    images = ("val", "data/splits/dev.txt", "/srv/pictures/holiday/", "lists/val.txt", "~/pictures/../cats")
    assert [images_label(name) for name in images] == ["val", "dev", "holiday", "lists_val", "cats"]
    (tmp_path / "where").mkdir()
    monkeypatch.setattr("wsfcn_lib.runs.paths.ROOT", tmp_path / "where")
    assert images_label(".") == "where"
    assert [images_label(name) for name in ("a/test_crf", "a/masks", "a/masks.txt")] == [
        "test-crf",
        "a_masks",
        "a_masks",
    ]
    assert file_suffix("val") == "" and file_suffix("lists/val.txt") == "_lists_val"


def test_a_manifest_without_lists():
    bare = manifest_of([info.model_dump() for info in CLASSES])
    assert bare.names == ("background", "cat", "dog") and bare.classes == CLASSES and bare.splits == ()
    assert bare.folder.is_absolute() and isinstance(bare.folder, Path)


CUTS = {"long_side": 640, "score_cut": 0.1}
OURS = {"recipe": "wsfcn", "scales": (1.0, 1.5, 2.0), "canvas": 0} | CUTS


def snapshot(path, classes=CLASSES):
    net = build_network(NetConfig(backbone="tiny", width=16, gate_rate=0.2, num_classes=1 + len(classes)))
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_snapshot(net, path, [info.model_dump() for info in classes], epoch=2)


@pytest.fixture
def run(manifest, tmp_path):
    """A run trained on the manifest."""
    run = tmp_path / "runs" / "one"
    with RunFolder.open(
        run, TrainConfig(data=str(manifest.folder), backbone="tiny", seed=5).model_dump(), "02_train"
    ):
        snapshot(run / "checkpoints" / "last.safetensors")
        snapshot(run / "checkpoints" / "e001Xs0.500.safetensors")
    return run


def test_a_run_has_its_own_network_and_data(run, manifest, tmp_path):
    found = load_trained(run, "best", device="cpu")
    assert found.path.stem == "e001Xs0.500" and found.manifest == manifest and found.facts == {"epoch": 2}
    assert (found.config.seed, found.config.device, found.protocol) == (
        5,
        "cpu",
        OURS,
    ) and not found.net.training
    assert load_trained(run, "last").path.stem == "last"
    assert (
        load_trained(run, str(run / "checkpoints" / "last.safetensors"), f"{manifest.folder}/").manifest.names
        == manifest.names
    )
    (tmp_path / "other").mkdir()
    with pytest.raises(
        RunError, match=r"one was trained on .*prepared, .* name another run for e001Xs0\.500.* on .*other"
    ):
        load_trained(run, data=str(tmp_path / "other"))
    with pytest.raises(RunError, match=r"name another run for strange\.safetensors on .*prepared"):
        load_trained(run, str(snapshot(tmp_path / "strange.safetensors")))


def test_a_file_needs_no_training(manifest, tmp_path):
    path, new = str(snapshot(tmp_path / "net.safetensors")), tmp_path / "runs" / "new"
    found = load_trained(new, path)
    assert (
        found.manifest.names == ("background", "cat", "dog")
        and not found.manifest.splits
        and not new.exists()
    )
    assert (found.config.backbone, found.config.width, found.config.gate_rate, found.protocol) == (
        "tiny",
        16,
        0.2,
        OURS,
    )
    assert load_trained(new, path, str(manifest.folder)).config.data == str(manifest.folder)
    with RunFolder.open(new, {"data": str(manifest.folder)}, "01_prepare_data"):
        assert load_trained(new, path).manifest == manifest, "what 01_prepare_data made for this run"
        with pytest.raises(
            RunError, match="new holds no training yet: run 02_train on it first, or name a file of weights"
        ):
            load_trained(new)
    with pytest.raises(RunError, match="is not a run"):
        load_trained(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match="is neither a file nor a name of weights"):
        load_trained(tmp_path / "nowhere", "absent.safetensors")
    foreign = snapshot(tmp_path / "foreign.safetensors", CLASSES[::-1])
    with pytest.raises(
        DataError, match=r"foreign\.safetensors knows other classes than .*prepared: prepare the data of its"
    ):
        load_trained(tmp_path / "nowhere", str(foreign), str(manifest.folder))


def test_released_weights_come_with_their_protocol(tmp_path, monkeypatch):
    released_file(tmp_path / ARTEFACTS["1stage"].file, "vgg16", "1stage")
    monkeypatch.setenv("WSFCN_WEIGHTS", str(tmp_path))
    found = load_trained(tmp_path / "run", "1stage")
    assert found.protocol == {"recipe": "1stage", "scales": SCALES, "canvas": 1024} | CUTS
    assert (found.config.context, found.config.backbone, found.manifest.num_classes) == ("aspp", "vgg16", 21)
