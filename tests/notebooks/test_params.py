"""The parameter files: only differences, each with its source; and every one of them trains two steps on data it asks for."""

import ast
import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import run_all
from wsfcn_lib import supervision as objective
from wsfcn_lib import train as train_module
from wsfcn_lib.ablation.grid import configurations
from wsfcn_lib.checkpoints import Progress
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.classes import VOC_CLASSES, voc_palette
from wsfcn_lib.data.files import read_list
from wsfcn_lib.data.manifest import validate
from wsfcn_lib.data.model_zoo import ARTEFACTS
from wsfcn_lib.data.preparation import prepare
from wsfcn_lib.evaluation.scoring import EvalSettings
from wsfcn_lib.network import build_network
from wsfcn_lib.protocol import protocol_of
from wsfcn_lib.runs.log import RATES
from wsfcn_lib.runs.notebook import NOTEBOOKS, known_settings, merged
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.runs.run_diff import plain
from wsfcn_lib.train import WITHOUT_EFFECT, lr_factor, train
from wsfcn_lib.weights import published_names

FILES = {path.stem: path for path in sorted((ROOT / "notebooks/params").glob("*.yaml"))}
OURS = ["voc_animals_mobilenet", "voc_animals_mobilenet_1stage"]  # chosen here, as their headers say
ABLATIONS = ["ablation_glyphs", "ablation_voc_animals"]  # built-in scenes; the animals once more
LITE = "voc_animals"  # chosen here too; its trunk is one of timm's
ANIMALS = [*OURS, LITE, "ablation_voc_animals"]
OBVIOUS = {"run", "dataset", "data"}
SOURCES = re.compile(r"program|paper|1-stage|published|fitted|a quarter of|as with")


def values_of(name):
    given = run_all.read_parameters(FILES[name])
    return {notebook: run_all.parameters_of(notebook, given) for notebook in NOTEBOOKS}


def built(stage, values, *names, **known):
    """What a notebook makes of its parameters: its own imports, and its own first lines that assign `names`."""
    configurations = json.loads(NOTEBOOKS[stage].read_text("utf-8"))["cells"]
    lines = ast.parse(
        "\n".join("".join(cell["source"]) for cell in configurations if cell["cell_type"] == "code")
    ).body
    assigned = [
        line for line in lines if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)
    ]
    chosen = [next(line for line in assigned if line.targets[0].id == name) for name in names]
    imports = [line for line in lines if isinstance(line, ast.ImportFrom)]
    space = values[stage] | {"own": values[stage]} | known
    exec(compile(ast.Module([*imports, *chosen], []), stage, "exec"), space)
    return space[names[-1]]


def training(name):
    return built("02_train", values_of(name), "config")


def evaluation(name):
    """A network trained here asks for no protocol of its own but the notebook's."""
    own = SimpleNamespace(protocol=protocol_of({}))
    return built("05_evaluate", values_of(name), "given", "unsaid", "chosen", "settings", trained=own)


@pytest.mark.parametrize("name", FILES)
def test_a_file_holds_only_differences(name):
    given, defaults = (
        run_all.read_parameters(FILES[name]),
        [known_settings(path) for path in NOTEBOOKS.values()],
    )
    settings = merged(given)
    same = {
        key for key, value in settings.items() if all(own[key][1] == value for own in defaults if key in own)
    }
    assert not same, "these are the notebooks' defaults"
    assert given["run"] == f"data/runs/{name}"


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"smoke", LITE, *OURS, *ABLATIONS}))
def test_each_value_has_its_source(name):
    lines = FILES[name].read_text("utf-8").splitlines()
    assert lines[0].startswith("# ") and len(lines[0]) > 60, "a header says what it is for"
    values = [line.partition("  # ") for line in lines if not line.startswith("#")]
    assert {value.split(":")[0] for value, _, source in values if not SOURCES.search(source)} <= OBVIOUS


CROP, MAP = (
    {"crop": 448, "warmup_epochs": 5},
    {"dilations": (1, 8, 16, 24)},
)  # 1-stage-wseg's; fitted to 28 x 28 places
CANVAS, VIEWS = {"canvas": 1024}, {"canvas": 768, "scales": (1, 0.75, 1.25, 1.5), "score_cut": 0.3}
UNLIKE_PAPER = {  # what differs from WS-FCN's training on VOC with ResNet38, and from its protocol on views of their own size
    "voc_resnet38": ({"accumulate": 2}, CANVAS),
    "voc_resnet38_1stage": (
        {
            "context": "aspp",
            "fusion": "gci",
            "epochs": 24,
            "warmup_epochs": 5,
            "snapshots_kept": 5,
            "crop_rule": "published-2019",
            "accumulate": 2,
        },
        CANVAS | {"recipe": "1stage"},
    ),
    "voc_resnet50": (CROP | MAP | {"backbone": "resnet50", "lr": 5e-4, "epochs": 20}, VIEWS),
    "voc_resnet101": (CROP | MAP | {"backbone": "resnet101", "epochs": 20}, VIEWS),
    "voc_vgg16": (CROP | MAP | {"backbone": "vgg16", "epochs": 32}, VIEWS),
    "coco_resnet38": (
        {
            "size_offset": 0.1,
            "background_cut": 0.8,
            "floor": 0.1,
            "pamr_iterations": 5,
            "accumulate": 2,
            "data": "data/prepared/coco",
        },
        {"canvas": 1304},
    ),
}


@pytest.mark.parametrize("name", UNLIKE_PAPER)
def test_published_settings_arrive_whole(name):
    """Nothing of the notebooks' defaults, which are those of the glyph scenes, is left over."""
    config, (changed, evaluated) = training(name), UNLIKE_PAPER[name]
    paper = TrainConfig(initial_weights=config.backbone, log_every=config.log_every, **changed)
    assert config == paper
    settings = evaluation(name)
    assert settings == EvalSettings(use_crf=settings.use_crf, long_side=settings.long_side, **evaluated)
    longest = 640 if name.startswith("coco") else 500  # pixels, the longer side of the largest photographs
    assert max(settings.scales) * longest <= settings.canvas, "a larger view does not fit"
    assert settings.long_side >= longest, "photographs are seen at their own size"


def test_every_file_but_the_smallest_is_accounted_for():
    assert FILES.keys() == {"smoke", LITE, *OURS, *ABLATIONS, *UNLIKE_PAPER}


@pytest.mark.parametrize("name", FILES)
def test_the_ablation_has_a_budget(name):
    given, whole = values_of(name)["04_ablations"], training(name)
    short = TrainConfig(
        **whole.model_dump() | {"epochs": given["ablation_epochs"], "warmup_epochs": given["ablation_warmup"]}
    )
    assert short.warmup_epochs < short.epochs, "masks are learnt too"
    if name in UNLIKE_PAPER:
        assert (short.epochs, short.warmup_epochs) == (
            round(whole.epochs / 4),
            round(whole.warmup_epochs / 4),
        )


def test_the_animals_differ_in_the_two_modules_alone():
    full, corner = (run_all.read_parameters(FILES[name]) for name in OURS)
    assert corner == full | {"run": f"data/runs/{OURS[1]}", "context": "aspp", "fusion": "gci"}
    assert not full.keys() & {"context", "fusion", "recipe"}


def cells_of(name):
    """{cell: its training}, as notebook 04 makes them for a parameter file."""
    given, whole = values_of(name)["04_ablations"], training(name)
    budget = {"epochs": given["ablation_epochs"], "warmup_epochs": given["ablation_warmup"]}
    base = TrainConfig(**whole.model_dump() | budget)
    changes = configurations(
        range(base.seed, base.seed + given["seeds"]), given["baseline"], given["details"]
    )
    return {cell: TrainConfig(**base.model_dump() | change) for cell, change in changes.items()}


def test_the_animals_ablation_has_the_finished_trainings_for_cells():
    """Each cell is a training that another file asks for, or the like of one, down to every setting that changes a result."""
    found, files = cells_of("ablation_voc_animals"), {"fca-sf2-s0": OURS[0], "aspp-gci-s0": OURS[1]}
    assert list(found) == ["aspp-gci-s0", "aspp-sf2-s0", "fca-gci-s0", "fca-sf2-s0"]
    for cell, name in files.items():
        assert found[cell] == training(name)
        then = json.loads((ROOT / "data/results" / name / "run.json").read_text())["stages"]["02_train"][
            "settings"
        ]
        assert not then.keys() - TrainConfig.model_fields.keys()
        now = plain(found[cell].model_dump(exclude=set(WITHOUT_EFFECT)))
        assert {
            key: value for key, value in (TrainConfig().model_dump() | then).items() if key in now
        } == now, "it counts as equal"
    given = values_of("ablation_voc_animals")
    assert (
        given["04_ablations"]["ablation_scales"]
        == given["05_evaluate"]["scales"]
        == run_all.read_parameters(FILES[OURS[0]])["scales"]
    )
    assert [given["04_ablations"][f"ablation_{key}"] for key in ("images", "snapshot")] == [
        evaluation(OURS[0]).images,
        "best",
    ]
    assert given["04_ablations"]["ablation_images"] == "test" and given["04_ablations"]["ablation_crf"]
    same = {key: value for key, value in given["01_prepare_data"].items() if key != "run"}
    assert same.items() <= values_of(OURS[0])["01_prepare_data"].items()


def test_the_glyph_ablation_is_the_whole_grid():
    found, given = cells_of("ablation_glyphs"), values_of("ablation_glyphs")["04_ablations"]
    assert len(found) == 3 * 5 + 8 * given["details"] and {config.seed for config in found.values()} == {
        0,
        1,
        2,
    }
    assert given["ablation_crf"] and given["jobs"] == 2
    assert {config.epochs for config in found.values()} == {training("ablation_glyphs").epochs}, (
        "notebook 02 adds no schedule of its own"
    )


def test_voc_has_a_test_split_only_where_it_is_placed():
    for name in UNLIKE_PAPER.keys() - {"coco_resnet38"}:
        given = values_of(name)["01_prepare_data"]
        lists = [given[f"{split}_list"] for split in ("train", "val", "test")]
        assert (
            given["dataset"] == "voc"
            and lists == ["trainaug", "val", ""]
            and evaluation(name).images == "val"
        )
        assert given["data"] == "data/prepared/voc"


def picture(path, seed, size=(90, 70)):
    noise = np.random.default_rng(seed).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise).resize(size).save(path, quality=95)


def mask(path, ids, size=(90, 70)):
    """Upright stripes of mask ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = Image.fromarray(
        np.broadcast_to(np.uint8(ids)[np.arange(size[0]) * len(ids) // size[0]], size[::-1]).copy()
    )
    labels.putpalette(voc_palette())
    labels.save(path)


def make_voc(root):
    """VOC with SBD's masks and list, of a few images from the committed lists; one is larger than 321, one shows a sofa."""
    train, dev, val = (
        read_list(ROOT / f"data/splits/voc_animals_{split}.txt") for split in ("train", "dev", "val")
    )
    lists = {"trainaug": [*train[:2], dev[0]], "train": train[:1], "val": val[:1]}
    sofa, *ids = (VOC_CLASSES.index(name) + 1 for name in ("sofa", "cat", "dog", "horse", "person"))
    for k, name in enumerate(lists["trainaug"] + lists["val"]):
        size, folder = (400, 300) if k == 0 else (90, 70), "SegmentationClass" + "Aug" * (k < 3)
        picture(root / f"JPEGImages/{name}.jpg", k, size)
        mask(root / f"{folder}/{name}.png", [0, ids[k], 255, sofa if k == 1 else 0], size)
    (root / "ImageSets/Segmentation").mkdir(parents=True)
    for split, names in lists.items():
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(names))


def make_coco(root):
    """COCO: 80 categories numbered up to 90; two training images with labels and one without, and one for validation."""
    categories = [{"id": k + k // 8, "name": f"thing {k}"} for k in range(1, 81)]
    (root / "annotations").mkdir(parents=True)
    for split, labels in {"train": [13, 90, None], "val": [1]}.items():
        labels = [(f"COCO_{split}2014_{k:012d}.jpg", k, label) for k, label in enumerate(labels, 1)]
        images = [{"id": k, "file_name": name, "height": 70, "width": 90} for name, k, _ in labels]
        square = {"segmentation": [[10, 10, 50, 10, 50, 60, 10, 60]], "area": 2000, "iscrowd": 0}
        objects = [
            {"id": k, "image_id": k, "category_id": label, **square} for _, k, label in labels if label
        ]
        for name, k, _ in labels:
            picture(root / f"{split}2014" / name, k)
        content = json.dumps({"images": images, "annotations": objects, "categories": categories})
        (root / f"annotations/instances_{split}2014.json").write_text(content)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """{dataset: folder} of made photographs in the layouts of VOC and COCO."""
    home = tmp_path_factory.mktemp("sources")
    make_voc(home / "voc")
    make_coco(home / "coco")
    return {"voc": home / "voc", "coco": home / "coco"}


def make_weights(folder, config, num_classes):
    """ImageNet weights with the published names and shapes, a number each; returns names and values that training keeps."""
    with torch.device("meta"):
        net = build_network(config.network(num_classes))
    state, own, trained = (
        {},
        net.state_dict(),
        {name for name, p in net.named_parameters() if p.requires_grad},
    )
    for ours, theirs in published_names(net).items():
        if ours.startswith("backbone."):
            number = len(state) % 7 / 8 if own[ours].dim() < 2 else 1 / math.prod(own[ours].shape[1:])
            kind = torch.int64 if ours.endswith("num_batches_tracked") else torch.float16
            state[theirs] = torch.tensor(number + ours.endswith("var"), dtype=kind).expand(own[ours].shape)
    folder.mkdir()
    row = ARTEFACTS[config.initial_weights]
    name = row.also[0] if row.sha256 else row.file  # whose checksum nobody knows
    torch.save(state | {"fc.weight": torch.zeros(1).expand(1000, 8)}, folder / name)
    kept = {
        ours: theirs
        for ours, theirs in published_names(net).items()
        if theirs in state and ours not in trained
    }
    return {ours: state[theirs].flatten()[0].item() for ours, theirs in kept.items()}


MULTIPLIERS = {
    "voc_resnet38_1stage": (1, 2, 10, 20),
    "voc_resnet50": (1, 1, 20, 10),
    "voc_resnet101": (1, 1, 20, 10),
}
MULTIPLIERS |= dict.fromkeys(("voc_resnet38", "voc_vgg16", "coco_resnet38"), (1, 2, 20, 40))
MADE = {  # classes with background, and images of each split
    "animals": (7, {"train": 2, "val": 1, "test": 1}),
    "voc": (21, {"train": 3, "val": 1}),
    "coco": (81, {"train": 2, "val": 1}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FILES.keys() - {"smoke", "ablation_glyphs"}))
def test_two_steps(name, sources, tmp_path, monkeypatch):
    """From the pictures to two steps, without and with the mask loss, from initial weights found as users place them."""
    values, folder = values_of(name), tmp_path / "prepared"
    values["01_prepare_data"] |= {
        "root": str(sources[values["01_prepare_data"]["dataset"]]),
        "raw": str(tmp_path / "raw"),
    }
    report = prepare(
        built("01_prepare_data", values, "sizes", "glyphs", "lists", "special", "source"), folder
    )
    manifest = report.manifest
    assert validate(manifest) == []
    kind = "animals" if name in ANIMALS else name.split("_")[0]
    sizes = {split: len(manifest.samples(split)) for split in manifest.splits}
    assert (manifest.num_classes, sizes) == MADE[kind]
    assert len(report.missing) == (2401 + 250 + 249 - 4 if name in ANIMALS else 0), (
        "a list's other images are counted"
    )
    assert evaluation(name).images in manifest.splits

    values["02_train"]["data"] = str(folder)
    promised = built("02_train", values, "config")
    small = {
        "crop": 64,
        "batch_size": 2,
        "width": 16,
        "epochs": 2,
        "warmup_epochs": 1,
        "log_every": 1,
        "steps": 0,
    }
    config = TrainConfig(**promised.model_dump() | small | {"device": "cpu", "workers": 0})
    judged, nets, kept = [], [], {}
    if name == LITE:
        assert ARTEFACTS[config.initial_weights].find(), "its package is among those of the tests"
    else:
        kept = make_weights(tmp_path / "weights", config, manifest.num_classes)
        monkeypatch.setenv("WSFCN_WEIGHTS", str(tmp_path / "weights"))
    # what a run leaves on disk has tests of its own
    monkeypatch.setattr(Progress, "save", lambda *given: None)
    monkeypatch.setattr(train_module, "save_snapshot", lambda net, *given, **facts: nets.append(net))
    supervise = objective.supervise
    monkeypatch.setattr(objective, "supervise", lambda *given: judged.append(given[-1]) or supervise(*given))
    rows = list(train(config, tmp_path / "run"))

    assert all(math.isfinite(value) for row in rows for value in row.values())
    steps = [row for row in rows if "mask_loss" in row]
    assert [row["step"] for row in steps] == [1, 2] and steps[0]["mask_loss"] == 0
    assert judged == [config] * len(judged) and len(judged) >= 2, (
        "pseudo labels in the second step and in the last validation"
    )
    rates = [promised.lr * factor for factor in promised.lr_multipliers or MULTIPLIERS[name]]
    assert [steps[0][rate] for rate in RATES[:4]] == pytest.approx(rates) and (
        promised.lr_multipliers is None
    ) == (name not in ANIMALS)
    then = [rate * lr_factor(1, 2, promised.lr_schedule) for rate in rates]
    assert [steps[1][rate] for rate in RATES[:4]] == pytest.approx(then)
    assert promised.lr_schedule == "constant" or name == LITE, "constant, as published"
    state = nets[-1].state_dict()
    assert (len(kept) > 2 or name == LITE) and {
        ours: state[ours].flatten()[-1].item() for ours in kept
    } == pytest.approx(kept)
