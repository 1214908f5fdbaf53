"""Files as people have them, at every door: each is used correctly, or refused by an error that names it.

EXAMPLES=1000 in the environment draws more of the generated ones.
"""

import io
import json
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from bad_files import GOOD, MASKS, PICTURES, PNG, TABLES, encoded
from wsfcn_lib.checkpoints import CheckpointError, load_snapshot, save_snapshot
from wsfcn_lib.config import NetConfig
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.folder import find_folder
from wsfcn_lib.data.images import open_image, open_mask, read_image, read_mask
from wsfcn_lib.data.manifest import ClassInfo, Manifest, Sample, validate, write_manifest
from wsfcn_lib.data.preparation import SourceSettings, leave_out, prepare
from wsfcn_lib.data.training_set import TrainSet
from wsfcn_lib.evaluation.inputs import manifest_of
from wsfcn_lib.evaluation.scoring import EvalSettings, evaluate
from wsfcn_lib.explore.inspection import Inspector
from wsfcn_lib.infer import segment
from wsfcn_lib.network import build_network
from wsfcn_lib.weights import load_network

CLASSES = tuple(ClassInfo(name=name, mask_id=k, colour=(k, 0, 9)) for k, name in enumerate(("cat", "dog"), 1))
MANY = int(os.environ.get("EXAMPLES", "30"))
FEW = settings(max_examples=MANY, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """An untrained network for cats and dogs."""
    net = build_network(NetConfig(backbone="tiny", width=16, dilations=(1, 2, 3, 4), num_classes=3))
    return save_snapshot(
        net, tmp_path_factory.mktemp("net") / "net.safetensors", [c.model_dump() for c in CLASSES], crop=48
    )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """All of PICTURES in one folder: {file: case}. Names that say something stay, the others are numbered."""
    folder, files = tmp_path_factory.mktemp("all") / "cat", {}
    for number, case in enumerate(PICTURES.values()):
        stem, ending = os.path.splitext(case.name)
        name = f"p{number}{ending}" if stem == "p" else case.name
        files[place(folder, name, case.data)] = case._replace(name=name)
    return files


def place(folder, name, data):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name


def check(door, case, size):
    """A door takes a file at the right size, or refuses it by a DataError with its name, as the case says."""
    try:
        seen = size(door())
    except DataError as error:
        assert case.name in str(error)
        assert case.outcome is None or isinstance(case.outcome, str) and case.outcome in str(error), error
    else:
        assert not isinstance(case.outcome, str), f"{case.name} was taken"
        assert case.outcome is None or seen == case.outcome, case.name


def check_lines(lines, left, pictures):
    """Each case is refused in one line or its file is among those left, as the case says, never both."""
    for path, case in pictures.items():
        refusals = [line for line in lines if case.name in line]
        if isinstance(case.outcome, str):
            assert len(refusals) == 1 and case.outcome in refusals[0] and path.stem not in left, case.name
        else:
            assert len(refusals) + (path.stem in left) == 1, case.name
            assert not case.outcome or path.stem in left, case.name


def other_pictures(folder):
    """Six good ones, with masks for two."""
    for name, tag in zip("abcdef", ("cat", "dog") * 3):
        place(folder / tag, f"good-{name}.png", PNG)
    for name, mask_id in (("c", 1), ("d", 2)):
        place(folder / "masks", f"good-{name}.png", encoded(Image.new("L", (30, 20), mask_id)))
    return folder


@pytest.mark.parametrize("side", [0, 16])
def test_preparation(pictures, tmp_path, side):
    """As notebook 01 does it, with and without copies."""
    root = other_pictures(tmp_path / "own")
    for path in pictures:
        place(root / "cat", path.name, path.read_bytes())
    chosen = SourceSettings(dataset="folder", root=str(root), max_side=side)
    report = prepare(chosen, tmp_path / "data")
    faults = validate(report.manifest)
    samples = {sample.name: sample for sample in leave_out(report.manifest, faults, chosen).samples("train")}
    assert {"good-a", "good-b", "good-e", "good-f"} <= samples.keys()
    check_lines(report.missing + faults, samples, pictures)
    for path, case in pictures.items():
        if isinstance(case.outcome, tuple):
            size = read_image(samples[path.stem].image).shape[1::-1]
            assert max(size) <= side if side else size == case.outcome
    assert not list((tmp_path / "data").rglob(".*")), "no remains"


def test_training(pictures, tmp_path):
    """One crop of each."""
    samples = [Sample(path.stem, path, (True, False)) for path in pictures]
    crops = TrainSet(write_manifest(tmp_path, CLASSES, {"train": samples}), "train", 32, 0)
    for index, case in enumerate(pictures.values()):
        crop = case._replace(outcome=(32, 32)) if isinstance(case.outcome, tuple) else case
        check(lambda index=index: crops[1, index][0], crop, lambda image: tuple(image.shape[1:]))


def test_inference(pictures, weights):
    def size(segmented):
        assert np.isfinite(segmented.masks).all() and segmented.masks.shape[1:] == segmented.labels.shape
        return segmented.labels.shape[::-1]

    for path, case in pictures.items():
        check(lambda path=path: segment(path, weights, scales=(1.0,)), case, size)


def test_evaluation_of_a_folder(pictures, tmp_path, weights):
    """As notebook 05 does it: the good pictures of a folder are evaluated whatever lies beside them."""
    net, classes, _ = load_network(weights)
    folder = next(iter(pictures)).parent
    chosen = EvalSettings(images=str(folder), scales=(1.0,), use_crf=False, long_side=64)
    results = evaluate(net, manifest_of(classes), chosen, tmp_path / "run")
    left_out = json.loads((tmp_path / "run" / "metrics_cat.json").read_text())["left_out"]
    masks = {path.stem: Image.open(path).size for path in (tmp_path / "run/masks/cat").iterdir()}
    check_lines(left_out, masks, pictures)
    assert len(results.rows) == len(masks) == len(pictures) - len(left_out)
    for path, case in pictures.items():
        assert not isinstance(case.outcome, tuple) or masks[path.stem] == case.outcome


def test_explorers(pictures, tmp_path, weights):
    """Uploaded, and chosen from a folder."""
    folder = next(iter(pictures)).parent
    inspector = Inspector(str(tmp_path / "run"), str(folder), snapshot=str(weights), long_side=64)
    for path, case in pictures.items():
        check(lambda case=case: open_image(case.name, case.data), case, lambda image: image.size)
        shown = case._replace(outcome=None) if isinstance(case.outcome, tuple) else case
        check(lambda path=path: inspector.inspect(path.stem), shown, lambda seen: seen.label.shape[::-1])


@pytest.mark.parametrize("kind", MASKS)
def test_masks(tmp_path, kind):
    data, refusal = MASKS[kind]
    root = other_pictures(tmp_path / "own")
    place(root / "cat", "p.png", PNG)
    place(root / "masks", "p.png", data)
    chosen = SourceSettings(dataset="folder", root=str(root))
    manifest = prepare(chosen, tmp_path / "data").manifest
    faults = validate(manifest)
    left = {sample.name: sample for sample in leave_out(manifest, faults, chosen).samples("val")}
    if refusal:
        assert len(faults) == 1 and "masks/p.png" in faults[0] and refusal in faults[0] and "p" not in left
    else:
        assert not faults and read_mask(left["p"].mask, manifest).shape == (20, 30)


@pytest.mark.parametrize("kind", TABLES)
def test_tables(tmp_path, kind):
    data, refusal = TABLES[kind]
    for name in "abcd":
        place(tmp_path, f"{name}.png", encoded(Image.fromarray(np.full((5, 6, 3), ord(name), np.uint8))))
    place(tmp_path, "tags.csv", data)
    if refusal:
        with pytest.raises(DataError) as error:
            find_folder(tmp_path)
        assert "tags.csv" in str(error.value) or str(tmp_path) in str(error.value)
        assert refusal in str(error.value)
    else:
        listing = find_folder(tmp_path, val_fraction=0.3)
        names = {sample.name for samples in listing.splits.values() for sample in samples}
        assert {"a", "b", "c"} <= names <= {"a", "b", "c", "d"}
        manifest = write_manifest(tmp_path / "out", listing.classes, listing.splits)
        assert validate(manifest) == []
        files = {path.name for path in tmp_path.iterdir()}
        assert files == {"a.png", "b.png", "c.png", "d.png", "tags.csv", "out"}


MANIFESTS = {
    "zeros": (b"image,tags\na.png,c\0t\n", "train.csv"),
    "an open quote": (b'image,tags\na.png,"cat\nb.png,dog\n', "train.csv: not a whole CSV file"),
    "a cell too large": (b"image,tags\na.png," + b"x" * 200_000, "train.csv: not a whole CSV file"),
    "UTF-16": ("image,tags\na.png,cat\n".encode("utf-16"), None),
    "too long a name": (b"image,tags\n" + b"z" * 5000 + b".png,cat\n", None),
    "a name that is a folder": (b"image,tags\n.,cat\n", "the image cell is empty"),
    "the folder above": (b"image,tags\n..,cat\n", None),
    "no last cell": (b"image,tags\na.png\n", "has no tag"),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_lists_of_a_manifest(tmp_path, kind):
    data, refusal = MANIFESTS[kind]
    place(tmp_path, "classes.json", json.dumps([info.model_dump() for info in CLASSES]).encode())
    place(tmp_path, "train.csv", data)
    if refusal:
        with pytest.raises(DataError, match=refusal):
            Manifest.load(tmp_path)
    else:
        manifest = Manifest.load(tmp_path)
        (fault,) = validate(manifest)
        assert "the file is missing" in fault
        with pytest.raises(DataError, match="the file is missing"):
            TrainSet(manifest, "train", 32, 0)[0]


@pytest.mark.parametrize(
    "text",
    ["[", "{}", "[1]", '[{"name": "cat"}]', "[" * 100_000, '{"a":' * 50_000, "[1e999999]", "null", "\ud800"],
)
def test_lists_of_classes(tmp_path, text):
    place(tmp_path, "classes.json", text.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError, match="classes.json"):
        Manifest.load(tmp_path)


def test_a_name_in_another_coding(tmp_path, weights):
    """As archives of old machines unpack it."""
    root, name = other_pictures(tmp_path / "own"), os.fsdecode(b"caf\xe9.png")
    try:
        place(root / "cat", name, PNG)
    except OSError:
        pytest.skip("this disk takes UTF-8 only")
    report = prepare(SourceSettings(dataset="folder", root=str(root)), tmp_path / "data")
    assert any("passed over: 1 named not in UTF-8" in note for note in report.notes)
    assert len(report.manifest.samples("train")) == 4
    net, classes, _ = load_network(weights)
    place(root / "cat", "good.png", PNG)
    chosen = EvalSettings(images=str(root / "cat"), scales=(1.0,), use_crf=False)
    results = evaluate(net, manifest_of(classes), chosen, tmp_path / "run")
    (line,) = json.loads((tmp_path / "run" / "metrics_cat.json").read_text())["passed_over"]
    assert line == "not pictures, passed over: 1 named not in UTF-8 (caf?.png)"
    assert len(results.rows) == 4


def test_no_class_of_a_manifest_is_missed(tmp_path):
    """A class that no picture shows: prepared, and drawn from."""
    place(tmp_path / "own", "classes.json", json.dumps([c.model_dump() for c in CLASSES]).encode())
    for name in "ab":
        place(tmp_path / "own", f"{name}.png", PNG)
    place(tmp_path / "own", "tags.csv", b"image,tags,split\na.png,cat,train\nb.png,cat,val\n")
    report = prepare(SourceSettings(dataset="folder", root=str(tmp_path / "own")), tmp_path / "data")
    assert report.manifest.num_classes == 3 and any("dog (0)" in note for note in report.notes)
    assert any("occur twice" in note for note in report.notes)
    assert TrainSet(report.manifest, "train", 32, 0)[0][1].tolist() == [1, 0]


def test_pictures_and_arrays_in_memory(weights):
    lazy = Image.open(io.BytesIO(PNG[: len(PNG) // 2]))
    for bad, words in (
        (lazy, "the picture: not to be had as RGB"),
        (Image.new("I;16", (4, 4)), "more than 8 bits"),
    ):
        with pytest.raises(DataError, match=words):
            segment(bad, weights)
    for shape in ((0, 5, 3), (5, 0, 3), (5, 5), (5, 5, 4)):
        with pytest.raises(ValueError, match=r"it must be \(H, W, 3\) uint8 RGB"):
            segment(np.zeros(shape, np.uint8), weights)


def spoilt(data):
    """A file with some of its bytes changed, cut out or put in."""
    start = st.integers(0, len(data) - 1)
    changes = st.lists(st.tuples(start, st.integers(0, 8), st.binary(max_size=8)), min_size=1, max_size=6)

    def change(many):
        result = data
        for start, length, new in many:
            result = result[:start] + new + result[start + length :]
        return result

    return changes.map(change)


CONTENT = st.one_of(
    st.binary(max_size=300), *(spoilt(case.data) for case in PICTURES.values() if 0 < len(case.data) < 5000)
)


JSON = st.recursive(
    st.none() | st.text() | st.floats(), lambda part: st.lists(part) | st.dictionaries(st.text(), part)
)


@FEW
@given(data=CONTENT)
def test_any_bytes_as_a_picture(tmp_path, data):
    path = place(tmp_path, "any.png", data)
    seen = []
    for door in (lambda: read_image(path), lambda: np.asarray(open_image("any.png", data))):
        try:
            rgb = door()
        except DataError as error:
            assert "any.png" in str(error)
            seen.append(None)
        else:
            assert rgb.dtype == np.uint8 and rgb.ndim == 3 and rgb.shape[2] == 3
            seen.append(rgb.shape)
    assert seen[0] == seen[1], "the doors agree"


@FEW
@given(data=st.one_of(*(spoilt(mask) for mask, _ in MASKS.values() if 0 < len(mask) < 5000)))
def test_any_bytes_as_a_mask(tmp_path, data):
    path, manifest = place(tmp_path, "any.png", data), Manifest(tmp_path, CLASSES)
    try:
        labels = read_mask(path, manifest)
    except DataError as error:
        assert "any.png" in str(error)
    else:
        assert set(np.unique(labels)) <= {0, 1, 2, 255} and labels.shape == open_mask(path).size[::-1]


@FEW
@given(data=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode), spoilt(GOOD.encode())))
def test_any_bytes_as_a_table(tmp_path, data):
    place(tmp_path, "a.png", PNG)
    place(tmp_path, "tags.csv", data)
    place(tmp_path / "prepared", "classes.json", json.dumps([info.model_dump() for info in CLASSES]).encode())
    place(tmp_path / "prepared", "train.csv", data)
    for door in (lambda: find_folder(tmp_path), lambda: Manifest.load(tmp_path / "prepared")):
        try:
            door()
        except DataError as error:
            assert str(tmp_path) in str(error)


@FEW
@given(data=st.one_of(st.binary(max_size=200), JSON.map(json.dumps).map(str.encode)))
def test_any_bytes_as_classes(tmp_path, data):
    place(tmp_path, "classes.json", data)
    place(tmp_path, "train.csv", b"image,tags\na.png,cat\n")
    with pytest.raises(DataError, match="json|train.csv"):
        Manifest.load(tmp_path)


@FEW
@given(data=st.data())
def test_any_bytes_as_a_checkpoint(tmp_path, weights, data):
    whole = weights.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    found = data.draw(
        st.one_of(st.binary(max_size=200), spoilt(whole[:header]).map(lambda head: head + whole[header:]))
    )
    for name, door in (("any.safetensors", load_snapshot), ("any.pth", load_network)):
        path = place(tmp_path, name, found)
        try:
            door(path)
        except (CheckpointError, ValueError) as error:
            assert name in str(error) and type(error).__module__.startswith("wsfcn_lib")
