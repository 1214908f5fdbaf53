"""Files of strangers: none runs code, writes outside its folder, or fills the memory; names are shown as they are written."""

import io
import json
import os
import pickle
import tarfile
import zipfile
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from bad_files import PNG, mask
from factories import released_file
from wsfcn_lib.checkpoints import CheckpointError, Progress, load_snapshot, save_snapshot
from wsfcn_lib.config import NetConfig, TrainConfig
from wsfcn_lib.data.coco import find_coco
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.folder import find_folder
from wsfcn_lib.data.manifest import ClassInfo, Manifest, Sample, write_manifest
from wsfcn_lib.data.model_zoo import WeightsError
from wsfcn_lib.data.preparation import SourceSettings, prepare
from wsfcn_lib.data.voc import find_voc
from wsfcn_lib.evaluation.export import export_training
from wsfcn_lib.evaluation.mask_archives import score_archive
from wsfcn_lib.evaluation.report import write_report
from wsfcn_lib.evaluation.scoring import EvalSettings, evaluate
from wsfcn_lib.infer import segment
from wsfcn_lib.network import build_network
from wsfcn_lib.plots.charts import class_bars
from wsfcn_lib.plots.saving import save_figure, to_png
from wsfcn_lib.plots.tiles import tile
from wsfcn_lib.runs.storage import checksum
from wsfcn_lib.train import build_optimiser
from wsfcn_lib.weights import load_network, load_published

CLASSES = (
    ClassInfo(name="cat", mask_id=1, colour=(1, 2, 3)),
    ClassInfo(name="dog", mask_id=2, colour=(4, 5, 6)),
)
TINY = NetConfig(backbone="tiny", width=16, dilations=(1, 2, 3, 4), num_classes=3)
NASTY = '<script>alert("x")</script><img src=x onerror=alert(1)>'


class Bait:
    """Touches a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mknod, (str(self.path),)


def tree(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


@pytest.fixture
def net():
    return build_network(TINY)


@pytest.mark.parametrize("wrapped", [False, True], ids=["pickle", "torch"])
def test_weights_run_no_code(tmp_path, net, wrapped):
    trap, path = tmp_path / "sprung", tmp_path / "weights.pth"
    content = {"state_dict": {"conv.weight": torch.zeros(1)}, "more": Bait(trap)}
    torch.save(content, path) if wrapped else path.write_bytes(pickle.dumps(Bait(trap)))
    doors = {
        WeightsError: (
            lambda: load_published(net, path),
            lambda: load_network(path),
            lambda: segment(PNG, path),
        )
    }
    for error, calls in doors.items():
        for call in calls:
            with pytest.raises(
                error, match="weights.pth is not a readable file of tensors: it holds more than tensors"
            ):
                call()
    assert not trap.exists()
    torch.load(path, weights_only=False) if wrapped else pickle.loads(path.read_bytes())
    assert trap.exists(), "the trap works where somebody trusts"


def test_a_resume_state_runs_no_code(tmp_path, net, capsys):
    torch.save(Bait(tmp_path / "sprung"), tmp_path / "part")
    path = (tmp_path / "part").rename(tmp_path / f"state-00000008-{checksum(tmp_path / 'part')[:16]}.pt")
    config = TrainConfig(data="x", backbone="tiny", width=16)
    assert Progress.restore(tmp_path, net, build_optimiser(net, config)).step == 0
    assert f"{path.name} is damaged" in capsys.readouterr().out and not (tmp_path / "sprung").exists()


def test_a_snapshot_runs_no_code_and_keeps_to_its_sizes(tmp_path, net):
    path = tmp_path / "net.safetensors"
    for size in (2**31, 2**62, 10**8 + 1):  # a header that claims to be so long
        path.write_bytes(size.to_bytes(8, "little") + b"{}" + bytes(100))
        with pytest.raises(CheckpointError, match="net.safetensors is not a snapshot of this kit"):
            load_snapshot(path)
    head = json.dumps(
        {"a": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}
    ).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head)
    with pytest.raises(CheckpointError, match="is not a snapshot"):
        load_snapshot(path)
    path.write_bytes(pickle.dumps(Bait(tmp_path / "sprung")))
    with pytest.raises(CheckpointError, match="is not a snapshot"):
        load_snapshot(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "classes",
    [
        [],
        [{"name": "cat"}],
        [{"name": "cat", "mask_id": 1, "colour": [1, 2, 3]}],
        [3],
        "cat",
        {"cat": 1},
        None,
    ],
)
def test_classes_of_a_snapshot_are_checked(tmp_path, net, classes):
    with pytest.raises(CheckpointError, match="is not a snapshot of this kit"):
        load_snapshot(save_snapshot(net, tmp_path / "net.safetensors", classes))


@pytest.mark.parametrize(
    "facts", [{"scales": [1e6]}, {"scales": [1.0] * 1000}, {"canvas": 10**6}, {"recipe": "x"}, {"scales": []}]
)
def test_facts_of_a_snapshot_are_checked(tmp_path, net, facts):
    """Else a view of a picture could be as large as a stranger likes."""
    path = save_snapshot(net, tmp_path / "net.safetensors", [info.model_dump() for info in CLASSES], **facts)
    with pytest.raises(
        CheckpointError,
        match=f"(?s)the facts in this file of weights are none of this kit's: .*{next(iter(facts))}",
    ):
        segment(np.zeros((9, 9, 3), np.uint8), path)


def test_compressed_weights_are_refused(tmp_path, net):
    """A thousandth of what they unpack to."""
    torch.save({"a": torch.zeros(5_000_000)}, tmp_path / "whole.pth")
    with (
        zipfile.ZipFile(tmp_path / "whole.pth") as whole,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for part in whole.infolist():
            bomb.writestr(part.filename, whole.read(part))
    assert (tmp_path / "bomb.pth").stat().st_size < 1e5 and torch.load(
        tmp_path / "bomb.pth", weights_only=True
    )
    with pytest.raises(WeightsError, match="its content is compressed, and might fill the memory"):
        load_published(net, tmp_path / "bomb.pth")


def test_weights_of_endless_shape_are_refused(tmp_path, net):
    """A view of one number, as large as one likes."""
    path = released_file(tmp_path / "wide.pth", "vgg16", "1stage")
    state = torch.load(path, weights_only=True)
    name = next(name for name in state if name.endswith("last_conv.0.weight"))
    torch.save(state | {name: torch.zeros(1, 1, 1, 1).expand(10**6, 10**6, 3, 3)}, path)
    with pytest.raises(WeightsError, match="wide.pth holds a network of a size that nobody published"):
        load_network(path)
    with pytest.raises(WeightsError, match="wide.pth"):
        load_published(build_network(NetConfig(backbone="vgg16", context="aspp", fusion="gci")), path)


@pytest.mark.parametrize(
    "place", ["../../outside/evil.png", "/ABSOLUTE/outside/evil.png", "..", "../outside/../outside/evil.png"]
)
def test_a_manifest_writes_nowhere_else(tmp_path, net, place):
    """Its pictures may lie anywhere; what is made of them stays in the run."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "evil.png").write_bytes(PNG)
    place = place.replace("/ABSOLUTE", str(tmp_path))
    folder = write_manifest(
        tmp_path / "in" / "data", CLASSES, {"train": [Sample("x", tmp_path / "x.png", (True, True))]}
    ).folder
    (folder / "val.csv").write_text(f"image,tags,mask\n{place},cat,\n")
    (folder / "train.csv").write_text(f"image,tags\n{place},cat\n")
    before, manifest = tree(tmp_path), Manifest.load(folder)
    chosen = EvalSettings(images="val", scales=(1.0,), use_crf=False)
    works = [lambda: evaluate(net.eval(), manifest, chosen, tmp_path / "run")]
    works += [lambda: export_training(net.eval(), manifest, chosen, tmp_path / "run" / "export")]
    for work in works:
        try:
            work()
        except DataError as error:
            assert "the file is missing" in str(error)
    assert {
        path: data for path, data in tree(tmp_path).items() if tmp_path / "run" not in [path, *path.parents]
    } == before


@pytest.mark.parametrize(
    "place", ["../outside/evil.png", "/ABSOLUTE/outside/evil.png", "..\\outside\\evil.png"]
)
def test_a_table_of_tags_writes_nowhere_else(tmp_path, place):
    root = tmp_path / "own"
    for path in (root / "a.png", tmp_path / "outside" / "evil.png", root / "evil.png"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(PNG)
    place = place.replace("/ABSOLUTE", str(tmp_path))
    (root / "tags.csv").write_text(
        f"image,tags,split\na.png,cat,val\n{place},../../cat,train\nevil.png,dog,train\n"
    )
    before = tree(tmp_path)
    prepare(SourceSettings(dataset="folder", root=str(root), max_side=9), tmp_path / "data")
    assert {
        path: data for path, data in tree(tmp_path).items() if tmp_path / "data" not in [path, *path.parents]
    } == before
    assert len(find_folder(root).splits["train"]) == 2


def test_lists_of_voc_and_coco_write_nowhere_else(tmp_path):
    base, out = tmp_path / "voc", tmp_path / "out"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True)
    for path in (tmp_path / "evil.jpg", base / "JPEGImages/evil.jpg"):
        path.write_bytes(PNG)
    (base / "SegmentationClass/evil.png").write_bytes(mask(1))
    for split in ("train", "val"):
        (base / f"ImageSets/Segmentation/{split}.txt").write_text("../../evil\n")
    (sample,) = find_voc(base).splits["train"]
    assert sample.name == "evil" and sample.image == base / "JPEGImages/evil.jpg"
    image = {"id": 1, "file_name": "../../evil.jpg", "height": 20, "width": 30}
    thing = {"image_id": 1, "area": 4, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]}
    content = {"categories": [{"id": 1, "name": "../../cat"}], "images": [image], "annotations": [thing]}
    (base / "annotations").mkdir()
    for split in ("train", "val"):
        (base / f"annotations/instances_{split}2014.json").write_text(json.dumps(content))
        (base / f"{split}2014").mkdir()
        (base / f"{split}2014/evil.jpg").write_bytes(PNG)
    before = tree(base)
    find_coco(base, out)
    assert tree(base) == before and {path.name for path in out.rglob("*.png")} == {"evil.png"}
    content["images"][0] |= {"height": 10**6, "width": 10**6}
    (base / "annotations/instances_train2014.json").write_text(json.dumps(content))
    with pytest.raises(
        DataError, match="instances_train2014.json: .*evil.jpg has no size that a picture can have"
    ):
        find_coco(base, tmp_path / "more")


def test_a_bomb_in_an_archive_is_not_unpacked(tmp_path):
    """A mask of 400 MB in a tar of 400 kB."""
    (tmp_path / "p.png").write_bytes(PNG)
    Image.new("L", (30, 20)).save(tmp_path / "m.png")
    sample = Sample("p", tmp_path / "p.png", (True, False), tmp_path / "m.png")
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("p.png")
        member.size = 4 * 10**8
        archive.addfile(member, _Zeros(member.size))
    assert (tmp_path / "bomb.tar.gz").stat().st_size < 1e6
    with pytest.raises(DataError, match="p.png has 400,000,000 bytes, a mask at most"):
        score_archive(tmp_path / "bomb.tar.gz", Manifest(tmp_path, CLASSES), [sample])


class _Zeros(io.RawIOBase):
    def __init__(self, size):
        self.left = size

    def read(self, size=-1):
        size = self.left if size < 0 else min(size, self.left)
        self.left -= size
        return bytes(size)


class Tags(HTMLParser):
    """The tags of a page."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_report_and_tables_show_names_as_they_are(tmp_path):
    """Of classes, files, captions, settings and runs; no tag and no attribute of a page comes from them."""
    page, run = tile([[np.zeros((8, 8, 3), np.uint8)]], [NASTY, NASTY]), tmp_path / NASTY.replace("/", "∕")
    save_figure(run, NASTY.replace("/", "∕"), page, NASTY, NASTY, 1)
    iou = {"background": 0.5, NASTY: 0.5}
    (run / "metrics.json").write_text(
        json.dumps({"mean_iou": 0.5, "split": NASTY, NASTY: NASTY, "per_class_iou": iou})
    )
    (run / "run.json").write_text(
        json.dumps(
            {"stages": {NASTY: {"settings": {NASTY: NASTY}, "started": NASTY, "files": {NASTY: NASTY}}}}
        )
    )
    (run / "ablation.csv").write_text(
        f"{NASTY.replace(',', ' ').replace(chr(34), '')},seed\n{NASTY.replace(chr(34), '')},0\n"
    )
    (run / "notebooks").mkdir()
    (run / "notebooks" / f"{NASTY.replace('/', '∕')}.ipynb").write_text("{}")
    text = write_report(run).read_text("utf-8")
    tags = Tags(text).found
    assert "script" not in {tag for tag, _ in tags} and not any(
        "onerror" in attributes for _, attributes in tags
    )
    assert text.count("&lt;script&gt;") >= 10 and len([1 for tag, _ in tags if tag == "img"]) == 1
    for table in (pd.DataFrame({NASTY: [1]}, [NASTY]), pd.DataFrame([(NASTY, 1)], columns=["image", NASTY])):
        assert "script" not in {tag for tag, _ in Tags(table._repr_html_()).found}, "as notebooks show tables"


@pytest.mark.parametrize("name", ["$\\frac$", "a $ b", "$x^2$", "100 % {sure}", "\\n", "_a_", NASTY])
def test_names_are_no_formulas(name):
    """matplotlib would read what stands between two $ as mathematics, and fail."""
    assert to_png(tile([[np.zeros((8, 8, 3), np.uint8)]], [name], [name], {name: (1, 2, 3)})).startswith(
        b"\x89PNG"
    )
    assert to_png(
        class_bars(np.array([0.1, 0.2]), ("background", name), np.zeros((256, 3), np.uint8))
    ).startswith(b"\x89PNG")
