import base64
import json
from html.parser import HTMLParser

import numpy as np
import pytest

from wsfcn_lib.evaluation.report import write_report
from wsfcn_lib.plots.saving import to_png
from wsfcn_lib.plots.tiles import tile

PNG = to_png(tile([[np.full((8, 8, 3), 90, np.uint8)]]))
NASTY = "<script>alert('x')</script> & \"Co\""
METRICS = {
    "mean_iou": 0.6312,
    "mean_iou_crf": 0.6581,
    "mean_iou_true_tags": 0.7022,
    "per_class_iou": {"background": 0.9, "knight": 0.3624, NASTY: None},
    "precision": {"background": 0.95, "knight": 0.4, NASTY: None},
    "mean_ap": 0.95123,
    "images": 240,
    "recipe": "wsfcn",
    "variants": [
        {"recipe": recipe, "crf": crf, "tags": "predicted", "mean_iou": value}
        for recipe, crf, value in (
            ("wsfcn", False, 0.6312),
            ("1stage", False, 0.4444),
            ("1stage", True, 0.4747),
        )
    ],
    "split": "test",
    "note": NASTY,
    "details": {
        "mean_iou": 0.6312,
        "boundary_iou": 0.4321,
        "recall_small": None,
        "false_positive": 0.1234,
        "per_class": {NASTY: {"boundary_iou": 0.2121, "false_positive": None, "false_negative": 0.3131}},
    },
    "companions": [
        {"class": NASTY, "companion": "rails", "together": 17, "alone": 29, "painted": {"details": 23}}
    ],
    "tag_calibration": {
        "calibration_error": 0.0617,
        "brier": 0.0412,
        "mean_probability": 0.2012,
        "present": 0.1513,
    },
    "training": {
        "cuts": {
            "cam": {
                "cut": 0.37,
                "mean_iou": 0.4747,
                "fixed_cut": 0.25,
                "mean_iou_fixed": 0.4545,
                "peak_cut": 0.41,
                "peak": 0.4848,
            },
            "refined_cam": None,
        }
    },
}
TRAINED = {
    "settings": {"epochs": 12, "dilations": [1, 2, 4]},
    "seconds": 171.9,
    "peak_memory_mb": 2210.4,
    "finished": True,
}
RECORD = {
    "stages": {"02_train": TRAINED, "05_evaluate": {"settings": {"note": NASTY}}},
    "provenance": {"versions": {"torch": "2.14.1"}},
}
SECTIONS = [
    "Gallery",
    "Classes",
    "Details",
    "Ablation",
    "Figures",
    "Growth",
    "Stages",
    "Settings",
    "Notebooks",
]
JPEG = b"\xff\xd8\xff\xe0 a picture"


class Page(HTMLParser):
    """Tags, attributes, and the words of a page; complains of tags that are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    def of(self, wanted):
        return [attributes for tag, attributes in self.tags if tag == wanted]


def words(path):
    return " ".join(Page(path.read_text(encoding="utf-8")).words)


@pytest.fixture
def run(tmp_path):
    """A finished run, whose class and file names are unkind to HTML."""
    for folder in ("figures", "panels", "notebooks"):
        (tmp_path / folder).mkdir()
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    (tmp_path / "run.json").write_text(json.dumps(RECORD))
    (tmp_path / "ablation.csv").write_text(
        f'variant,seed,mean_iou\n"{NASTY.replace(chr(34), chr(34) * 2)}",0,0.51239\n'
    )
    for name in ("b.png", "a.png", "scene & truth.png"):
        (tmp_path / "figures" / name).write_bytes(PNG)
    captions = {
        "b.png": {"title": "First", "caption": NASTY, "order": 0},
        "a.png": {"title": "Second", "order": 1},
    }
    (tmp_path / "figures" / "captions.json").write_text(json.dumps(captions))
    for epoch in (0, 2, 9, 10, 11):
        (tmp_path / "panels" / f"epoch_{epoch}.png").write_bytes(PNG)
    (tmp_path / "notebooks" / "02_train & more.ipynb").write_text("{}")
    (tmp_path / "gallery").mkdir()
    (tmp_path / "gallery" / "0000.jpg").write_bytes(JPEG)
    entry = {"file": "0000.jpg", "name": NASTY, "caption": "cat · IoU 0.50"}
    content = {"title": "test", "of": 7, "pictures": [entry, entry | {"file": "../run.json"}]}
    (tmp_path / "gallery" / "pictures.json").write_text(json.dumps(content))
    return tmp_path


def test_page_is_whole_and_self_contained(run):
    path = write_report(run)
    assert path == run / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.of("script") and not page.of("link") and not page.of("iframe")
    first, *images = [image["src"] for image in page.of("img")]
    assert base64.b64decode(first.removeprefix("data:image/jpeg;base64,")) == JPEG
    assert len(images) == 6, "what lies outside the gallery is not in it"
    for source in images:
        assert base64.b64decode(source.removeprefix("data:image/png;base64,")) == PNG
    links = [link["href"] for link in page.of("a")]
    assert links[-1] == "notebooks/02_train%20%26%20more.ipynb"
    assert (
        [link.removeprefix("#") for link in links[:-1]]
        == [section["id"] for section in page.of("section")]
        == SECTIONS
    )
    assert "url(" not in path.read_text(encoding="utf-8")


def test_numbers_and_names_are_shown(run):
    text = words(write_report(run))
    for shown in (
        "63.1",
        "65.8",
        "70.2",
        "36.2",
        "0.512",
        "240",
        "0:02:52",
        "2,210 MB",
        "1, 2, 4",
        "versions.torch",
        "0.9512",
    ):
        assert shown in text, shown
    assert text.index("63.1") < text.index("First") < text.index("Second") < text.index("scene & truth")
    assert NASTY in text  # escaped, so that it reads as it was written
    assert text.count("Epoch") == 3
    assert text.index("Epoch 0") < text.index("Epoch 9") < text.index("Epoch 11")
    assert "Not in this report" not in text
    assert "1 of the 7 pictures of test, worst first" in text and text.index("63.1") < text.index("IoU 0.50")


def test_details_are_folded_and_told_in_words(run):
    page = Page(write_report(run).read_text("utf-8"))
    text = " ".join(" ".join(page.words).split())
    section = text.split("borders, sizes, what is painted wrongly")[1].split("FCA")[0]
    for shown in ("Boundary IoU 43.2", "found of small objects –", "false positives 12.3"):
        assert shown in section, shown
    assert f"{NASTY} 21.2 – 31.3" in section and f"{NASTY} rails 29 23 17" in section
    assert "off by 6.2 points on average" in section and "Brier score 0.041" in section
    assert "CAM on training images: mIoU 47.5 % at the cut 0.37" in section and "refined" not in section
    assert "45.5 % at the fixed 0.25; at best 48.5 % (0.41)" in section
    place = [tag for tag, attributes in page.tags if tag in ("section", "details")]
    opening = [attributes for tag, attributes in page.tags if tag == "details"]
    assert place.count("section") == len(SECTIONS) and "open" not in opening[SECTIONS.index("Details")]


def test_runs_measured_before_there_were_details_say_so(run):
    old = {
        key: value
        for key, value in METRICS.items()
        if key not in ("details", "companions", "tag_calibration")
    }
    (run / "metrics.json").write_text(json.dumps(old))
    page = Page(write_report(run).read_text("utf-8"))
    assert "Details" not in [section["id"] for section in page.of("section")]
    assert "Details (05_evaluate measures them)" in " ".join(page.words)


def test_the_other_recipe_is_listed_with_and_without_crf(run):
    others = words(write_report(run)).split("the other recipe")[1].split()
    assert others[:5] == ["recipe", "tags", "CRF", "mIoU,", "%"]
    assert others[5:13] == ["1stage", "predicted", "no", "44.4", "1stage", "predicted", "yes", "47.5"]


def test_large_pictures_become_jpeg_where_that_halves_them(run):
    noise = np.random.default_rng(0).integers(0, 256, (260, 260, 3), np.uint8)
    (run / "figures" / "noise.png").write_bytes(to_png(tile([[noise] * 2]), dpi=200))
    kinds = [image["src"].split(";")[0] for image in Page(write_report(run).read_text("utf-8")).of("img")]
    assert kinds.count("data:image/jpeg") == 1 + 1 and set(kinds) == {"data:image/jpeg", "data:image/png"}


def test_without_true_tags_that_row_is_left_out(run):
    (run / "metrics.json").write_text(json.dumps({"mean_iou": 0.5}))
    text = words(write_report(run))
    assert "50.0" in text and "upper bound" not in text


def test_missing_parts_are_said_in_words(tmp_path):
    page = Page(write_report(tmp_path).read_text("utf-8"))
    text = " ".join(page.words)
    assert [section["id"] for section in page.of("section")] == ["Absent"] and len(page.of("li")) == 9
    assert "Result (metrics.json is missing or unreadable: 05_evaluate measures the network)" in text


def test_a_run_on_pictures_without_masks_opens_with_all_of_them(run):
    metrics = {"images": 40, "split": "holiday", "mean_iou": None, "mean_iou_crf": None, "mean_ap": 0.81}
    (run / "metrics.json").write_text(json.dumps(metrics | {"nothing_painted": 3}))
    (run / "figures" / "best-worst.png").write_bytes(PNG)
    (run / "ablation.csv").unlink()
    page = Page(write_report(run).read_text("utf-8"))
    text = " ".join(page.words)
    assert "None of these pictures has a mask" in text and "nothing painted 3" in " ".join(text.split())
    assert page.of("img")[0]["src"].startswith("data:image/jpeg"), "the gallery comes first"
    assert "open" in page.of("details")[0] and "–" not in text.partition("Stages")[0]
    assert "Ablation (04_ablations makes it, where pictures have a mask)" in text


def test_measured_pictures_open_with_the_best_and_the_worst(run):
    (run / "figures" / "best-worst.png").write_bytes(PNG)
    captions = json.loads((run / "figures" / "captions.json").read_text())
    captions["best-worst.png"] = {"title": "Both ends", "caption": "of five", "order": 52}
    (run / "figures" / "captions.json").write_text(json.dumps(captions))
    page = Page(write_report(run).read_text("utf-8"))
    text = " ".join(page.words)
    assert (
        text.index("63.1") < text.index("Both ends") < text.index("worst first")
        and text.count("Both ends") == 1
    )
    assert page.of("img")[0]["alt"] == "Both ends" and "open" not in page.of("details")[0], (
        "the gallery is folded"
    )


def test_a_gallery_says_of_which_prediction_its_order_is(run):
    assert "worst first; white" in words(write_report(run))
    content = json.loads((run / "gallery" / "pictures.json").read_text())
    (run / "gallery" / "pictures.json").write_text(json.dumps(content | {"crf": True}))
    assert "worst first, after the CRF; white" in words(write_report(run))


def test_a_ceiling_is_not_called_learned_from_tags(run):
    assert "learned from image tags alone" in words(write_report(run))
    record = json.loads((run / "run.json").read_text())
    record["stages"]["02_train"]["settings"]["supervision"] = "masks"
    (run / "run.json").write_text(json.dumps(record))
    text = words(write_report(run))
    assert "Trained with the true masks" in text and "image tags alone" not in text
    (run / "run.json").unlink()
    assert "learned from image tags alone" in words(write_report(run))


def test_a_gallery_of_other_pictures_than_the_numbers_does_not_claim_their_truth(run):
    content = json.loads((run / "gallery" / "pictures.json").read_text())
    (run / "gallery" / "pictures.json").write_text(json.dumps(content | {"title": "holiday"}))
    text = words(write_report(run))
    assert "63.1" in text and "pictures of holiday" in text and "worst first" not in text
    (run / "metrics.json").unlink()
    text = words(write_report(run))
    assert "Pictures of holiday, painted" in text and "Result (" not in text


def test_executed_notebooks_are_linked_as_pages_where_there_are_some(run):
    (run / "notebooks" / "02_train & more.html").write_text("<p>page</p>")
    links = [link["href"] for link in Page(write_report(run).read_text("utf-8")).of("a")]
    assert links[-1] == "notebooks/02_train%20%26%20more.html"


def test_damaged_files_are_said_in_words(run):
    (run / "metrics.json").write_text('{"mean_iou": 0.')
    (run / "run.json").write_text("[]")
    (run / "ablation.csv").write_text("")
    (run / "figures" / "captions.json").write_text("no json")
    (run / "figures" / "a.png").write_bytes(b"")
    noise = np.random.default_rng(0).integers(0, 256, (260, 260, 3), np.uint8)
    (run / "figures" / "b.png").write_bytes(to_png(tile([[noise] * 2]), dpi=200)[:-9000])
    text = words(write_report(run))
    assert [text.count(f"{part} (") for part in ("Result", "Classes", "Ablation", "Stages", "Settings")] == [
        1
    ] * 5
    assert "a.png is damaged" in text and "b.png is damaged" in text


def test_the_conclusion_stands_above_the_table(run):
    stages = RECORD["stages"] | {"04_ablations": {"conclusion": f"One seed: {NASTY}"}}
    (run / "run.json").write_text(json.dumps({"stages": stages}))
    text = words(write_report(run))
    assert text.index(f"One seed: {NASTY}") < text.index("0.512"), "before the table"


def test_long_ablation_is_folded(run):
    (run / "ablation.csv").write_text("variant,mean_iou\n" + "FCA,0.5\n" * 13)
    assert "all 13 rows" in words(write_report(run))


def test_several_seeds_are_shown_as_mean_and_deviation(run):
    lines = [
        "FCA,0,0.5,0.1,1000",
        "FCA,1,0.6,,1000",
        "ASPP,0,0.4,,900",
        "ASPP,1,0.4,,900",
        f"{NASTY.replace(chr(34), '')},0,0.25,0.2,1",
    ]
    (run / "ablation.csv").write_text("variant,seed,mean_iou,recall_small,parameters\n" + "\n".join(lines))
    page = Page(write_report(run).read_text(encoding="utf-8"))
    text = " ".join(page.words)
    assert (
        "55.0 ± 7.1" in text and "40.0 ± 0.0" in text and "mean ± standard deviation over the seeds" in text
    )
    assert text.index("55.0 ± 7.1") < text.index("all 5 rows"), "each training is still there, folded"
    assert " nan" not in text and not page.of("script")


def test_one_seed_has_no_deviation(run):
    (run / "ablation.csv").write_text("variant,seed,mean_iou\nFCA,0,0.5\nASPP,0,0.4\n")
    assert "±" not in words(write_report(run))


def test_folder_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere is no run folder.*run_all.py --run-name nowhere"):
        write_report(tmp_path / "nowhere")
