"""Anyone's masks scored and compared: against sums over repeated images, from every kind of source, and refused by name."""

import csv
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as outlines

from factories import CLASSES, ID_OF, NAMES, QUICK, Painter, folder_of
from oracles import confusion
from wsfcn_lib.data.classes import voc_palette
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import encode_mask, save_mask
from wsfcn_lib.data.manifest import Manifest, Sample, write_manifest
from wsfcn_lib.evaluation import comparison, mask_sources
from wsfcn_lib.evaluation.compare_command import run, short_names
from wsfcn_lib.evaluation.comparison import as_text, compare, count_masks, images_to_compare
from wsfcn_lib.evaluation.image_counts import WORDS
from wsfcn_lib.evaluation.mask_sources import MaskSource, classes_of, open_masks, read_ids
from wsfcn_lib.evaluation.scoring import evaluate
from wsfcn_lib.runs.paths import ROOT

COUNT, SIZE = 9, (24, 30)
MANIFEST = Manifest(Path("here"), CLASSES)


def answer(truth, rng, share):
    """A truth with so many wrong pixels, in patches; what it ignores gets a class."""
    labels = np.where(truth == 255, 1, truth)
    for _ in range(round(share * 20)):
        y, x = rng.integers(0, SIZE[0] - 5), rng.integers(0, SIZE[1] - 5)
        labels[y : y + 5, x : x + 5] = rng.integers(0, 4)
    return labels.astype(np.uint8)


def write(path, labels, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    ids = np.vectorize(ID_OF.get)(labels).astype(np.uint8)
    Image.fromarray(ids).save(path, **how)


@pytest.fixture
def case(tmp_path):
    """{kind: {name: labels}} of the truth, A and B, which lie in folders of these names."""
    rng, kinds = np.random.default_rng(5), {"truth": {}, "A": {}, "B": {}}
    for number in range(COUNT):
        truth = np.zeros(SIZE, np.uint8)
        truth[3:18, 2 : 9 + number] = rng.integers(1, 3 + (number > 6))
        truth[19:23, 20:28], truth[:2] = 2, 255
        labels = (truth, answer(truth, rng, 0.3), answer(truth, rng, 0.2))
        for kind, each in zip(kinds, labels):
            kinds[kind][f"p{number}"] = each
            write(tmp_path / kind / f"p{number}.png", each)
    return kinds


def prepare(case, place, name, classes=CLASSES):
    """A folder as 01_prepare_data writes it: all of the truth to train, the first four to test."""
    samples = []
    for image in case["truth"]:
        path = place / f"{image}.jpg"
        Image.new("RGB", SIZE[::-1]).save(path)
        tags = (True, *[False] * (len(classes) - 1))
        samples.append(Sample(image, path, tags, place / "truth" / f"{image}.png"))
    return write_manifest(place / name, classes, {"train": samples, "test": samples[:4]})


def opened(place, split="val", **sources):
    truth = open_masks(str(place / "truth"), MANIFEST, split=split)
    return truth, {
        name: open_masks(f"{place}/{path}", MANIFEST, truth).spelt_like(truth.places)
        for name, path in sources.items()
    }


def result_of(place, draws=50, seed=3, common=False, processes=1, **sources):
    truth, found = opened(place, **sources)
    names = images_to_compare(truth, found, None, common)
    return compare(count_masks(truth, found, names, MANIFEST, processes), NAMES, draws, seed)


def row(result, measure):
    (found,) = [each for each in result["rows"] if each["measure"] == measure]
    return found


def slow_means(matrices):
    """mIoU and the IoU of each class of summed confusion matrices, class by class."""
    total, ious = sum(matrices), []
    for k in range(4):
        union = total[k].sum() + total[:, k].sum() - total[k, k]
        ious.append(total[k, k] / union if union else np.nan)
    return [np.nanmean(ious), *ious]


def test_intervals_are_those_of_repeated_images(case, tmp_path):
    """The bootstrap as a loop: lists of images with repetitions, their confusion matrices summed one by one."""
    result = result_of(tmp_path, A="A", B="B")
    matrices = {
        kind: [confusion(case[kind][name], case["truth"][name], 4) for name in sorted(case["truth"])]
        for kind in "AB"
    }
    generator, differences = np.random.default_rng(3), []
    for _ in range(50):
        times = generator.multinomial(COUNT, np.full(COUNT, 1 / COUNT))
        drawn = [image for image, count in enumerate(times) for _ in range(count)]
        a, b = (slow_means([matrices[kind][image] for image in drawn]) for kind in "AB")
        differences.append(np.subtract(b, a))
    a, b = (slow_means(matrices[kind]) for kind in "AB")
    for place, measure in enumerate(["mean_iou", *(f"iou_{name}" for name in NAMES)]):
        found, column = row(result, measure), np.array(differences)[:, place]
        low, high = np.quantile(column[~np.isnan(column)], (0.025, 0.975))
        assert (found["a"], found["b"]) == pytest.approx((a[place], b[place]))
        assert found["difference"] == pytest.approx(b[place] - a[place])
        assert (found["low"], found["high"]) == pytest.approx((low, high))
    mean_of_images = np.mean([slow_means([each])[0] for each in matrices["A"]])
    assert row(result, "image_iou")["a"] == pytest.approx(mean_of_images) != pytest.approx(a[0])
    narrow = row(result, "mean_iou")
    alone = row(result_of(tmp_path, B="B"), "mean_iou")
    assert narrow["high"] - narrow["low"] < 2 * (alone["high"] - alone["low"]), (
        "paired: hard images are so for both"
    )
    own = {
        name: [slow_means([confusion(case[k][name], case["truth"][name], 4)])[0] for k in "AB"]
        for name in case["A"]
    }
    apart = sorted(own, key=lambda name: -abs(own[name][1] - own[name][0]))
    assert [each["image"] for each in result["images_apart"]] == apart
    assert result["images_apart"][0]["a"] == pytest.approx(own[apart[0]][0])


def test_one_source_is_measured_alone(case, tmp_path):
    result = result_of(tmp_path, A="A")
    found = row(result, "mean_iou")
    assert found["low"] < found["a"] < found["high"] and "b" not in found and "difference" not in found
    assert result["sentence"].startswith(f"A has {100 * found['a']:.1f} % mIoU (95 % over images")
    assert [each["a"] for each in result["images_apart"]] == sorted(
        each["a"] for each in result["images_apart"]
    )


def test_seeds_and_processes(case, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "FEW", 2)
    monkeypatch.setattr(comparison, "BATCH", 2)
    result = result_of(tmp_path, A="A", B="B")
    assert result == result_of(tmp_path, A="A", B="B", processes=2)
    other = result_of(tmp_path, A="A", B="B", seed=4)
    assert row(other, "mean_iou")["low"] != row(result, "mean_iou")["low"]
    assert row(other, "mean_iou")["difference"] == row(result, "mean_iou")["difference"]


@pytest.mark.parametrize("kind", ["tar", "tgz", "zip", "zip stored", "tar.xz"])
def test_archives_equal_folders(case, tmp_path, kind):
    """With nested folders and what macOS leaves in archives; nothing is unpacked beside them."""
    expected, files = result_of(tmp_path, A="A", B="B"), {}
    for path in (tmp_path / "B").iterdir():
        files[f"results/val/{path.name}"] = path.read_bytes()
        files[f"__MACOSX/results/val/._{path.name}"] = b"resource fork"
        files[f"__MACOSX/results/val/{path.name}"] = b"fork"
    files |= {"results/val/.DS_Store": b"x", "results/readme.txt": b"x", "results/val/crf/p0.png": b"other"}
    archive = tmp_path / f"B.{kind.split()[0]}"
    if kind.startswith("zip"):
        with zipfile.ZipFile(
            archive, "w", zipfile.ZIP_DEFLATED if kind == "zip" else zipfile.ZIP_STORED
        ) as out:
            out.mkdir("results")
            for name, content in files.items():
                out.writestr(name, content)
    else:
        with tarfile.open(archive, {"tar": "w", "tgz": "w:gz", "tar.xz": "w:xz"}[kind]) as out:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                out.addfile(member, io.BytesIO(content))
    before = sorted(tmp_path.rglob("*"))
    assert result_of(tmp_path, A="A", B=f"{archive.name}/val")["rows"] == expected["rows"]
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(
        DataError,
        match=r"results/val/p0\.png and results/val/crf/p0\.png are masks of one image; name "
        r"the folder of the right ones, such as .*/results/val/crf",
    ):
        opened(tmp_path, B=archive.name)


def test_the_top_folder_alone(case, tmp_path):
    write(tmp_path / "A" / "crf" / "p0.png", case["B"]["p0"])
    with pytest.raises(
        DataError, match=r"crf/p0\.png and p0\.png are masks of one image.*/\. for the top alone"
    ):
        opened(tmp_path, A="A")
    assert opened(tmp_path, A="A/.")[1]["A"].places.keys() == case["A"].keys()
    assert opened(tmp_path, A="A/crf")[1]["A"].places.keys() == {"p0"}


def rle(mask):
    found = outlines.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(found["size"]), "counts": found["counts"].decode()}


CATEGORY_OF = {1: 18, 2: 17, 3: 90}  # class index: id as COCO's files have them, unlike those of masks


def coco_file(path, names, first=70, **more):
    """An annotation file that lists images, from id `first` on; returns its categories."""
    categories = [{"id": CATEGORY_OF[k], "name": NAMES[k]} for k in (3, 1, 2)]
    images = [
        {"id": first + number, "file_name": f"{name}.jpg", "height": SIZE[0], "width": SIZE[1]}
        for number, name in enumerate(names)
    ]
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": categories} | more))
    return categories


def coco_result(image, mask, category=18, **more):
    return {"image_id": image, "category_id": category, "segmentation": rle(mask)} | more


def coco_results(masks, first=70):
    entries = []
    for number, labels in enumerate(masks.values()):
        for k in (1, 2, 3):
            if (labels == k).any():
                entries.append(coco_result(first + number, labels == k, CATEGORY_OF[k], score=0.5))
    return entries


BOX = np.zeros(SIZE, bool)
BOX[5:15, 5:15] = True


def read_results(place, entries, truth="truth", categories="only.json"):
    """The source that a list of results is, under the ids of a file."""
    (place / "r.json").write_text(json.dumps(entries))
    ids = read_ids(place / categories) if categories else None
    known = open_masks(str(place / truth), MANIFEST, split="test")
    return open_masks(str(place / "r.json"), MANIFEST, known, ids=ids)


@pytest.fixture
def categories(case, tmp_path):
    """only.json tells categories alone, listed.json the images too, in an order that no digit follows."""
    coco_file(tmp_path / "only.json", [], images=[])
    coco_file(tmp_path / "listed.json", [*case["B"]][::-1])


def test_coco_annotations_and_results_equal_folders(case, tmp_path):
    """By the images of the truth, by those of another annotation file, and by digits where neither lists any."""
    expected = result_of(tmp_path, A="A", B="B")["rows"]
    annotations = [entry | {"area": 1} for entry in coco_results(case["B"])]
    coco_file(tmp_path / "B.json", case["B"], annotations=annotations)
    assert result_of(tmp_path, A="A", B="B.json")["rows"] == expected
    backwards = dict([*case["B"].items()][::-1])
    for entries, categories in (
        (coco_results(backwards), "listed.json"),
        (coco_results(case["B"], first=0), "only.json"),
    ):
        coco_file(tmp_path / "listed.json", backwards)
        coco_file(tmp_path / "only.json", [], images=[])
        source = read_results(tmp_path, entries, categories=categories)
        for name, labels in case["B"].items():
            assert (source.mask(name).read(MANIFEST, SIZE) == labels).all(), (categories, name)
    truth = [entry | {"area": 1} for entry in coco_results({name: case["A"][name] for name in backwards})]
    coco_file(tmp_path / "truth.json", backwards, annotations=truth)
    source = read_results(tmp_path, coco_results(backwards), "truth.json", None)
    for name, labels in case["B"].items():
        assert (source.mask(name).read(MANIFEST, SIZE) == labels).all(), name


def test_the_annotation_file_says_which_image_an_id_is_not_the_digits(case, tmp_path, categories):
    """Ids 0, 1, 2, ... fit the digits of p0, p1, p2, ... as well, but the file gives them to others."""
    coco_file(tmp_path / "turned.json", [*case["B"]][::-1], first=0)
    source = read_results(tmp_path, [coco_result(0, BOX)], categories="turned.json")
    assert (source.mask("p8").read(MANIFEST, SIZE) == BOX).all()
    assert not source.mask("p0").read(MANIFEST, SIZE).any()
    for identity in ("08", 8.0, "p0"):
        source = read_results(tmp_path, [coco_result(identity, BOX)], categories="turned.json")
        assert (source.mask("p0").read(MANIFEST, SIZE) == BOX).all()
    by_truth = read_results(tmp_path, [coco_result(0, BOX)], "turned.json", None)
    assert (by_truth.mask("p8").read(MANIFEST, SIZE) == BOX).all()
    with pytest.raises(DataError, match="not one of its 1 results is of an image of the truth"):
        read_results(tmp_path, [coco_result(3, BOX)], categories="listed.json")


def test_the_file_that_is_given_goes_before_the_truth(case, tmp_path):
    coco_file(tmp_path / "truth.json", case["B"])
    coco_file(tmp_path / "turned.json", [*case["B"]][::-1])
    source = read_results(tmp_path, [coco_result(70, BOX)], "truth.json", "turned.json")
    assert [name for name in source.places if source.mask(name).read(MANIFEST, SIZE).any()] == ["p8"]


def test_of_names_that_differ_in_case_the_one_as_written_is_meant(tmp_path):
    coco_file(tmp_path / "listed.json", ["p3", "P4"])
    truth = MaskSource(tmp_path, {"P3": Path("a"), "p3": Path("b"), "p4": Path("c")})
    meant = mask_sources._listed_images(read_ids(tmp_path / "listed.json"), truth)
    assert meant == {"70": ["p3"], "71": ["p4"]}


def test_files_of_the_annotations_mean_images_of_the_truth_by_folder_and_case(case, tmp_path):
    images = [
        {"id": number, "file_name": file, "height": SIZE[0], "width": SIZE[1]}
        for number, file in enumerate(["val/P3.JPG", "a/p4.jpg", "train/x.jpg"])
    ]
    coco_file(tmp_path / "some.json", [], images=images)
    source = read_results(tmp_path, [coco_result(k, BOX) for k in (0, 1, 2)], categories="some.json")
    painted = [name for name in case["truth"] if source.mask(name).read(MANIFEST, SIZE).any()]
    assert painted == ["p3", "p4"]
    assert "r.json: 1 results are of images that the truth lacks, first 2" in source.notes
    images.append(images[1] | {"id": 9, "file_name": "b/p4.jpg"})
    coco_file(tmp_path / "some.json", [], images=images)
    with pytest.raises(
        DataError, match=r"some\.json: a/p4\.jpg and b/p4\.jpg may both be p4 of the truth; name"
    ):
        read_results(tmp_path, [coco_result(0, BOX)], categories="some.json")


def test_digits_that_may_be_two_images_or_none_are_refused(case, tmp_path, categories):
    write(tmp_path / "truth" / "q_03.png", case["truth"]["p3"])
    read_results(tmp_path, [coco_result(4, BOX)])
    with pytest.raises(
        DataError,
        match=r"r\.json: the image_id 3 may be (p3 or q_03|q_03 or p3) of the truth; give an annotation file .*--categories",
    ):
        read_results(tmp_path, [coco_result(4, BOX), coco_result(3, BOX)])
    with pytest.raises(
        DataError,
        match=r"r\.json: 2 of its 3 results have an image_id that fits no image of the truth, neither its name nor "
        r"its digits, first 77; give an annotation file .*--categories",
    ):
        read_results(tmp_path, [coco_result(4, BOX), coco_result(77, BOX), coco_result("x", BOX)])
    coco_file(tmp_path / "listed.json", [*case["truth"], "q_03"], first=0)
    source = read_results(tmp_path, [coco_result(9, BOX), coco_result(3, BOX)], categories="listed.json")
    painted = [name for name in source.places if source.mask(name).read(MANIFEST, SIZE).any()]
    assert sorted(painted) == ["p3", "q_03"]


def test_ids_of_results_are_names_or_their_numbers():
    names = ["COCO_val2014_000000000042", "COCO_val2014_000000000100", "2008_000003", "2009_000003"]
    found = mask_sources._images_by_digits(names)
    assert (found["42"], found["100"], found["2008000003"]) == ([names[0]], [names[1]], [names[2]])
    assert found["3"] == names[2:], "two images end so"
    assert mask_sources._images_by_digits(["000000000042", "000000000000"]) == {
        "42": ["000000000042"],
        "0": ["000000000000"],
    }


@pytest.mark.parametrize("kind", ["png", "prepared"])
def test_categories_are_never_taken_for_ids_of_masks(case, tmp_path, categories, kind):
    """3, 7 and 200 are ids of the masks; COCO's 3 is a car."""
    truth = "truth"
    if kind == "prepared":
        truth = prepare(case, tmp_path, "prepared").folder.name
    with pytest.raises(
        DataError,
        match=rf"r\.json: its category_id are ids of COCO's categories, not of masks, and the truth \S+{truth} does "
        "not tell their names; give the annotation file by --categories, or name it as --truth",
    ):
        read_results(tmp_path, [coco_result(4, BOX, 3)], truth, None)
    source = read_results(tmp_path, [coco_result(2, BOX, 90)], truth)
    assert (source.mask("p2").read(MANIFEST, SIZE) == 3 * BOX).all()


def test_categories_that_are_no_class_matter_where_they_are_used(case, tmp_path):
    rows = [{"id": 18, "name": "cat"}, {"id": 3, "name": "car"}]
    coco_file(tmp_path / "only.json", [], images=[], categories=rows)
    read_results(tmp_path, [coco_result(4, BOX)])
    with pytest.raises(DataError, match=r"r\.json: its category 'car' is no class; known are cat, dog, cow"):
        read_results(tmp_path, [coco_result(4, BOX, 3)])


@pytest.mark.parametrize(
    "content, says",
    [
        ([], "it has no categories; name a COCO annotation file"),
        ({"images": []}, "it has no categories; name a COCO annotation file"),
        ({"categories": ["cat"]}, "categories is no list of entries with names"),
        ({"categories": [{"id": 1, "name": "cat"}], "images": 5}, "images is no list of entries with names"),
        ({"categories": [{"id": 1}]}, "its 1 categories cannot be used"),
        (
            {"categories": [{"id": 1, "name": "cat"}], "images": [{"id": 1}]},
            "an entry does not fit the others",
        ),
    ],
)
def test_files_that_tell_no_ids(tmp_path, content, says):
    (tmp_path / "ids.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"ids\.json: {says}"):
        read_ids(tmp_path / "ids.json")
    with pytest.raises(DataError, match=r"--categories .*absent\.json: there is no such file; name a COCO"):
        read_ids(tmp_path / "absent.json")


def test_higher_scores_lie_on_top_and_images_without_results_are_background(case, tmp_path, categories):
    entries = [coco_result("p0", BOX, 18, score=0.9), coco_result("p0", BOX, 17, score=0.2)]
    for order in (entries, entries[::-1]):
        source = read_results(tmp_path, [*order, {**entries[0], "image_id": 700}], categories="listed.json")
        assert (source.mask("p0").read(MANIFEST, SIZE) == np.where(BOX, 1, 0)).all()
        assert not source.mask("p5").read(MANIFEST, SIZE).any()
        assert source.notes == (
            "r.json: 8 images have no result, so they are background",
            "r.json: 1 results are of images that the truth lacks, first 700",
        )


@pytest.mark.parametrize(
    "content, says",
    [
        (
            [{"image_id": 0, "category_id": 5, "segmentation": {}}],
            r"an entry is no result \(KeyError: 5\).*category_id of \[17, 18, 90\]",
        ),
        (
            [{"image_id": 99, "category_id": 18, "segmentation": {}}],
            "1 of its 1 results have an image_id that fits no image of the truth",
        ),
        ([], "not one of its 0 results is of an image of the truth"),
        ("torn", "not a whole JSON file"),
        ({"images": []}, "is no whole file of COCO instances"),
    ],
)
def test_bad_coco_files(case, tmp_path, categories, content, says):
    (tmp_path / "b.json").write_text("[" if content == "torn" else json.dumps(content))
    known = open_masks(str(tmp_path / "truth"), MANIFEST)
    with pytest.raises(DataError, match=r"b\.json.*" + says):
        open_masks(str(tmp_path / "b.json"), MANIFEST, known, ids=read_ids(tmp_path / "only.json"))
    with pytest.raises(DataError, match="a list of results has no names"):
        (tmp_path / "t.json").write_text("[]")
        open_masks(str(tmp_path / "t.json"), MANIFEST)


def test_outlines_of_another_size_are_refused(case, tmp_path, categories):
    source = read_results(tmp_path, [coco_result(4, np.ones((5, 6)))])
    with pytest.raises(DataError, match=r"r\.json: the mask of p4 is \(6, 5\), its image \(30, 24\)"):
        source.mask("p4").read(MANIFEST, SIZE)


def break_size(path):
    write(path, np.zeros((20, 30), int))


def break_ids(path):
    Image.fromarray(np.full(SIZE, 9, np.uint8)).save(path)


def break_wide(path):
    Image.fromarray(np.full(SIZE, 300, np.uint16)).save(path)


def break_jpeg(path):
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(path, "JPEG")


def break_colours(path):
    Image.new("RGB", SIZE[::-1], (1, 2, 3)).save(path)


def break_file(path):
    path.write_bytes(path.read_bytes()[:60])


def break_ignored(path):
    Image.fromarray(np.full(SIZE, 255, np.uint8)).save(path)


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize(
    "fault, says",
    [
        (break_size, r"the mask is \(30, 20\), its image \(30, 24\) \(width, height\)"),
        (break_ids, r"the mask ids \[9\] belong to no class, allowed are \[0, 3, 7, 200, 255\]"),
        (break_wide, "a mask of 16 bits whose ids reach 300"),
        (break_jpeg, "a mask stored as JPEG is not exact"),
        (break_colours, r"a mask in colours, of which 1 are no class's: \(1, 2, 3\)"),
        (break_file, "not a readable picture"),
        (break_ignored, "the id 255 is no answer where the truth has a class"),
    ],
)
def test_a_bad_mask_is_named(case, tmp_path, kind, fault, says):
    path = tmp_path / "B" / "p4.png"
    fault(path)
    named = r"B/p4\.png"
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "B.zip", "w") as out:
            for file in (tmp_path / "B").iterdir():
                out.write(file, f"b/{file.name}")
        named = r"B\.zip: b/p4\.png"
    with pytest.raises(DataError, match=f"{named}: {says}"):
        result_of(tmp_path, A="A", B="B.zip" if kind == "zip" else "B")


def test_colours_palettes_and_16_bits_are_read_as_ids(case, tmp_path):
    expected = result_of(tmp_path, A="A", B="B")
    for name, labels in case["B"].items():
        save_mask(tmp_path / "palette" / f"{name}.png", labels, MANIFEST)
        colours = tmp_path / "colours" / f"{name}.PNG"
        colours.parent.mkdir(exist_ok=True)
        Image.fromarray(MANIFEST.palette[labels]).save(colours)
        wide = tmp_path / "wide" / f"{name.upper()}.png"
        wide.parent.mkdir(exist_ok=True)
        Image.fromarray(np.vectorize(ID_OF.get)(labels).astype(np.uint16)).save(wide)
    for folder in ("palette", "colours", "wide"):
        assert result_of(tmp_path, A="A", B=folder)["rows"] == expected["rows"], folder


@pytest.mark.parametrize(
    "names, own, expected",
    [
        (["P0"], ["p0"], ["P0"]),
        (["Stra\u00dfe"], ["STRASSE"], ["Stra\u00dfe"]),
        (["caf\u00e9"], ["cafe\u0301"], ["caf\u00e9"]),
        (["p0", "P0"], ["p0"], ["p0"]),
        (["Pa", "pA"], ["pa"], ["pa"]),  # may be either
        (["Ab"], ["ab", "AB"], ["ab", "AB"]),  # either may be it
        (["p0"], ["p0", "P0"], ["p0", "P0"]),
        (["p0"], ["p1", "p0x"], ["p1", "p0x"]),
        ([], ["p0"], ["p0"]),
    ],
)
def test_names_are_spelt_like_those_of_the_truth_where_one_is_meant(names, own, expected):
    places = {name: Path(f"{number}.png") for number, name in enumerate(own)}
    source = MaskSource(Path("A"), places, notes=("kept",))
    found = source.spelt_like(names)
    assert [*found.places.items()] == [*zip(expected, places.values())]
    assert (found.path, found.notes) == (Path("A"), ("kept",)) and [*source.places] == own


def test_masks_that_one_lacks_are_counted_and_named(case, tmp_path):
    for name in ("p1", "p3", "p5", "p7"):
        (tmp_path / "A" / f"{name}.png").unlink()
    (tmp_path / "truth" / "p8.png").unlink()
    truth, sources = opened(tmp_path, A="A", B="B")
    says = (
        r"A lacks 4 \(p1, p3, p5, …\) of the 8 images of the truth; A has 1 \(p8\) that the truth lacks; "
        r"B has 1 \(p8\) that the truth lacks\. .*--common to score the 4 that all have"
    )
    with pytest.raises(DataError, match=says):
        images_to_compare(truth, sources)
    assert images_to_compare(truth, sources, common=True) == ["p0", "p2", "p4", "p6"]
    assert images_to_compare(truth, sources, ["p4", "p0"]) == ["p0", "p4"]
    with pytest.raises(DataError, match=r"A lacks 1 \(p1\) of the 2 images"):
        images_to_compare(truth, sources, ["p1", "p0"])
    with pytest.raises(DataError, match=r"the truth lacks 1 \(p9\) of the 2 images in the list"):
        images_to_compare(truth, sources, ["p9", "p0"])
    for path in (tmp_path / "B").iterdir():
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(DataError, match="no image has a mask everywhere: .*Masks are called as their images"):
        images_to_compare(*opened(tmp_path, A="A", B="B"), common=True)


def test_folders_without_masks(case, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="none: no PNG mask lies there, only nothing; name the folder"):
        opened(tmp_path, B="none")
    for name in ("p0", "p1"):
        Image.new("L", (3, 3)).save(tmp_path / "none" / f"{name}.jpg")
    with pytest.raises(DataError, match=r"only 2 \.jpg; a mask stored as JPEG is not exact"):
        opened(tmp_path, B="none")
    with pytest.raises(DataError, match="nowhere: there is no such folder or archive"):
        opened(tmp_path, B="nowhere")
    (tmp_path / "torn.tgz").write_bytes(b"\x1f\x8b\x08" + bytes(50))
    with pytest.raises(DataError, match=r"torn\.tgz: cannot be read to its end"):
        opened(tmp_path, B="torn.tgz")
    with zipfile.ZipFile(tmp_path / "large.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("p0.png", bytes(17 << 20))
    with pytest.raises(DataError, match="p0.png has 17,825,792 bytes, a mask at most"):
        opened(tmp_path, B="large.zip")


def test_a_truth_that_ignores_everything(case, tmp_path):
    ignored = [tmp_path / "truth" / f"{name}.png" for name in case["truth"]]
    for path in ignored[:2]:
        break_ignored(path)
    result = result_of(tmp_path, A="A", B="B")
    assert result["notes"] == ["the truth of 2 (p0, p1) holds 255 only: such images count nothing"]
    for listed in (result, result_of(tmp_path, A="A")):
        assert {each["image"] for each in listed["images_apart"]} == case["A"].keys() - {"p0", "p1"}
    for path in ignored:
        break_ignored(path)
    with pytest.raises(
        DataError, match="truth of all 9 images holds 255 only, which is ignored, so there is nothing"
    ):
        result_of(tmp_path, A="A", B="B")


def test_the_truth_compared_with_itself_is_perfect(case, tmp_path):
    """255 is an answer where the truth ignores the pixel anyway."""
    result = result_of(tmp_path, A="truth", B="truth")
    for measure in ("mean_iou", "boundary_iou", "border_iou", "recall_small", "image_iou"):
        assert (
            row(result, measure)["a"] == 1
            and row(result, measure)["low"] == 0 == row(result, measure)["high"]
        )
    assert "B is as good as A in every image and class: no mIoU differs (9 images)." == result["sentence"]


def test_the_sentence_says_what_can_be_said(case, tmp_path):
    forth, back = result_of(tmp_path, A="A", B="truth"), result_of(tmp_path, A="truth", B="A")
    points = f"{100 * row(forth, 'mean_iou')['difference']:.1f}"
    low, high = (f"{100 * row(forth, 'mean_iou')[key]:.1f}" for key in ("low", "high"))
    interval = f"(95 % over images {low} to {high}; 9 images)."
    assert forth["sentence"] == f"B is {points} points mIoU above A {interval}"
    assert back["sentence"] == f"B is {points} points mIoU below A {interval}"
    for number, name in enumerate(case["A"]):  # as many images that B wins as it loses
        write(tmp_path / "C" / f"{name}.png", case["truth" if number % 2 else "A"][name] % 255)
        write(tmp_path / "D" / f"{name}.png", case["A" if number % 2 else "truth"][name] % 255)
    assert "an interval that holds 0 shows no difference" in result_of(tmp_path, A="C", B="D")["sentence"]


def test_the_command_prints_and_writes(case, tmp_path, capsys):
    places = [str(tmp_path / name) for name in ("A", "B")]
    classes = tmp_path / "classes.json"
    classes.write_text(json.dumps([info.model_dump() for info in CLASSES]))
    options = ["--truth", str(tmp_path / "truth"), "--classes", str(classes), "--draws", "40", "--seed", "3"]
    files = ["--csv", str(tmp_path / "out.csv"), "--json", str(tmp_path / "out.json")]
    assert run(["compare", *places, *options, *files]) == 0
    text = capsys.readouterr().out
    result = json.loads((tmp_path / "out.json").read_text())
    expected = result_of(tmp_path, draws=40, A="A", B="B")
    assert result["rows"] == expected["rows"] and text.endswith(f"{expected['sentence']}\n")
    table = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert list(table[0]) == ["measure", "A", "B", "difference", "low", "high"]
    assert float(table[0]["B"]) == pytest.approx(row(expected, "mean_iou")["b"], abs=1e-6)
    line = next(line for line in text.splitlines() if line.startswith("IoU cow"))
    found = row(expected, "iou_cow")
    assert line.split()[2:5] == [
        f"{100 * found['a']:.1f}",
        f"{100 * found['b']:.1f}",
        f"{100 * found['difference']:+.1f}",
    ]
    widths = {len(line) for line in text.split("\n\n")[0].splitlines()}
    assert len(widths) == 1, "numbers stand below each other"
    assert run(["score", places[0], *options]) == 0
    assert capsys.readouterr().out.rstrip().endswith("9 images).")


def test_masks_of_a_run_score_as_its_evaluation_says(tmp_path, capsys):
    """The command on masks/<split> of a run folder, beside metrics.json, by python -m."""
    manifest = folder_of(tmp_path)
    metrics = evaluate(Painter().eval(), manifest, QUICK, tmp_path / "run").metrics()
    command = [
        sys.executable,
        "-m",
        "wsfcn_lib.evaluation",
        "score",
        str(tmp_path / "run" / "masks" / "test"),
    ]
    options = ["--truth", str(manifest.folder), "--split", "test", "--json", "out.json"]
    done = subprocess.run(
        [*command, *options],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    for key in WORDS:
        assert row(result, key)["a"] == pytest.approx(metrics["details"][key]), key
    for name, value in metrics["per_class_iou"].items():
        assert row(result, f"iou_{name}")["a"] == pytest.approx(value)
    assert done.stdout.splitlines()[-1] == result["sentence"]
    wrong = subprocess.run([*command[:-1], "nowhere", *options], capture_output=True, text=True, cwd=ROOT)
    assert wrong.returncode == 1 and wrong.stderr.startswith("nowhere: there is no such folder or archive")
    assert "Traceback" not in wrong.stderr


def test_exit_codes(case, tmp_path, capsys):
    places = [str(tmp_path / name) for name in ("A", "B")]
    options = ["--truth", str(tmp_path / "truth"), "--classes", "cat,dog,cow"]
    assert run(["compare", *places, *options]) == 1
    told = capsys.readouterr()
    assert "belong to no class, allowed are [0, 1, 2, 3, 255]" in told.err and not told.out
    for wrong in (
        ["compare", places[0], *options],
        ["compare", places[0], f"{places[0]}/", *options],
        ["score", *places, *options],
        ["compare", *places, *options, "--draws", "0"],
    ):
        with pytest.raises(SystemExit) as left:
            run(wrong)
        assert left.value.code == 2
    assert short_names(["x/A/", "y/A"]) == ["x/A/", "y/A"] and short_names(["x/A/", "y/B.zip"]) == [
        "A",
        "B.zip",
    ]


@pytest.fixture
def options(case, tmp_path):
    """Of a command that scores by the truth in `case`, and writes o.json."""
    classes = tmp_path / "classes.json"
    classes.write_text(json.dumps([info.model_dump() for info in CLASSES]))
    places = {"truth": tmp_path / "truth", "classes": classes, "json": tmp_path / "o.json"}
    return [word for name, place in places.items() for word in (f"--{name}", str(place))]


def test_the_top_of_a_folder_is_compared_with_the_whole(tmp_path, options, capsys):
    place = str(tmp_path / "A")
    assert run(["compare", place, f"{place}/.", *options]) == 0
    result = json.loads((tmp_path / "o.json").read_text())
    assert result["variants"] == [place, f"{place}/."]
    assert "is as good as" in result["sentence"]
    (tmp_path / "A" / "crf").mkdir()
    (tmp_path / "A" / "p8.png").rename(tmp_path / "A" / "crf" / "p8.png")
    assert run(["compare", place, f"{place}/.", *options]) == 1
    assert f"{place}/. lacks 1 (p8) of the 9 images of the truth" in capsys.readouterr().err
    assert run(["compare", f"{place}/.", place, *options, "--common"]) == 0
    assert json.loads((tmp_path / "o.json").read_text())["images"] == 8
    for pair in ((f"{place}/.", f"{place}/."), (place, f"{place}/"), (f"{place}/.", f"{place}/../A/.")):
        with pytest.raises(SystemExit) as left:
            run(["compare", *pair, *options])
        assert left.value.code == 2 and "name two" in capsys.readouterr().err


def test_results_are_read_by_the_categories_that_are_given(case, tmp_path, options, categories, capsys):
    backwards = dict([*case["B"].items()][::-1])
    (tmp_path / "r.json").write_text(json.dumps(coco_results(backwards)))
    places = [str(tmp_path / name) for name in ("B", "r.json")]
    assert run(["compare", *places, *options]) == 1
    assert "give the annotation file by --categories" in capsys.readouterr().err
    assert run(["compare", *places, *options, "--categories", str(tmp_path / "listed.json")]) == 0
    assert "is as good as B in every image" in json.loads((tmp_path / "o.json").read_text())["sentence"]
    assert run(["compare", *places, *options, "--categories", str(tmp_path / "nowhere.json")]) == 1
    assert "nowhere.json: there is no such file; name a COCO" in capsys.readouterr().err


def test_a_prepared_folder_is_a_truth_and_knows_its_classes(case, tmp_path, capsys):
    prepare(case, tmp_path, "prepared")
    places = [str(tmp_path / name) for name in ("A", "B")]
    options = ["--truth", str(tmp_path / "prepared"), "--split", "test", "--common"]
    assert run(["compare", *places, *options, "--json", str(tmp_path / "o.json")]) == 0
    result = json.loads((tmp_path / "o.json").read_text())
    assert result["images"] == 4 and result["classes"] == list(NAMES)
    assert run(["compare", *places, *options[:2]]) == 1
    assert "prepared: there is no list of 'val'; name another --split" in capsys.readouterr().err


def write_classes(path, **changed):
    """A classes.json of CLASSES with other values of some field, in their order."""
    entries = [info.model_dump() for info in CLASSES]
    for field, values in changed.items():
        for entry, value in zip(entries, values):
            entry[field] = value
    path.write_text(json.dumps(entries))


@pytest.mark.parametrize(
    "classes, gives",
    [
        ("cat,dog,cow", "1 cat, 2 dog, 3 cow"),
        ("cat,dog", "1 cat, 2 dog"),
        ("swapped.json", "3 dog, 7 cat, 200 cow"),
    ],
)
def test_classes_that_a_prepared_truth_does_not_have_are_refused(case, tmp_path, capsys, classes, gives):
    prepare(case, tmp_path, "prepared")
    write_classes(tmp_path / "swapped.json", name=["dog", "cat", "cow"])
    if classes.endswith(".json"):
        classes = str(tmp_path / classes)
    options = ["--truth", str(tmp_path / "prepared"), "--split", "test", "--common", "--classes", classes]
    assert run(["compare", str(tmp_path / "A"), str(tmp_path / "B"), *options]) == 1
    assert (
        f"prepared: its classes.json has 3 cat, 7 dog, 200 cow, but --classes or the truth gives {gives}; "
        "leave --classes out where the truth is prepared, or prepare the folder anew with these classes"
    ) in capsys.readouterr().err


def test_classes_that_a_prepared_truth_has_may_be_given_in_other_colours(case, tmp_path):
    prepare(case, tmp_path, "prepared")
    for name, labels in case["truth"].items():
        Image.fromarray(MANIFEST.palette[labels]).save(tmp_path / "truth" / f"{name}.png")
    write_classes(tmp_path / "turned.json", colour=[CLASSES[k].colour for k in (1, 2, 0)])
    options = [str(tmp_path / "A"), "--truth", str(tmp_path / "prepared"), "--split", "test", "--common"]
    rows = []
    for classes in ("prepared", "prepared/classes.json", "turned.json"):
        more = ["--classes", str(tmp_path / classes), "--json", str(tmp_path / "o.json")]
        assert run(["score", *options, *more]) == 0
        rows.append(json.loads((tmp_path / "o.json").read_text())["rows"])
    assert rows[0] == rows[1] == rows[2] and rows[0][0]["a"] > 0.3


def test_masks_of_a_prepared_folder_need_the_classes_of_the_truth(case, tmp_path, capsys):
    prepare(case, tmp_path, "prepared")
    prepare(case, tmp_path, "other", CLASSES[:2])
    options = ["--truth", str(tmp_path / "prepared"), "--split", "test"]
    assert run(["score", str(tmp_path / "other"), *options]) == 1
    assert (
        "other: its classes.json has 3 cat, 7 dog, but --classes or the truth gives 3 cat, 7 dog, 200 cow"
    ) in capsys.readouterr().err


def test_classes_by_name_file_and_run(tmp_path):
    assert classes_of("voc").names[8] == "cat" and classes_of("VOC").num_classes == 21
    named = classes_of("background, cat,dog")
    assert named.names == ("background", "cat", "dog") and named.mask_ids == (0, 1, 2)
    data = write_manifest(
        tmp_path / "data", CLASSES, {"train": [Sample("a", tmp_path / "a.jpg", (True, False, False))]}
    )
    (tmp_path / "run").mkdir()
    stages = {"02_train": {"settings": {"data": str(data.folder)}}}
    (tmp_path / "run" / "run.json").write_text(json.dumps({"stages": stages}))
    for place in ("data", "run", "data/classes.json"):
        assert classes_of(str(tmp_path / place)).mask_ids == (0, 3, 7, 200)
    for wrong, says in {
        "cat,,dog": "a name is empty",
        "cat,cat": "must occur once",
        f"{tmp_path}/absent.json": "is missing; name voc, names with commas",
    }.items():
        with pytest.raises(DataError, match=says):
            classes_of(wrong)


def test_an_archive_holds_no_masks_in_memory(case, tmp_path):
    with zipfile.ZipFile(tmp_path / "B.zip", "w") as out:
        for file in (tmp_path / "B").iterdir():
            out.write(file, file.name)
    source = opened(tmp_path, B="B.zip")[1]["B"]
    assert all(isinstance(place, mask_sources.Member) for place in source.places.values())
    assert source.mask("p3").content == (tmp_path / "B" / "p3.png").read_bytes()


def test_classes_that_are_nowhere_are_told_once(case, tmp_path):
    for kind in ("truth", "A"):
        for path in (tmp_path / kind).iterdir():
            path.write_bytes(encode_mask(np.zeros(SIZE, np.uint8), voc_palette()))
    text = as_text(result_of(tmp_path, A="A"))
    assert "nothing to measure: found of small objects" in text and text.count("cow") == 1
