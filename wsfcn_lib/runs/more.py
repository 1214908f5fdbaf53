"""What few people change: the settings that a notebook takes in `more`, each with its type and the notebook's default."""

import importlib

from wsfcn_lib.runs.run_diff import plain


class Preparation:
    """Of 01_prepare_data."""

    raw: str = ""  # what is drawn, downloaded or converted goes here; empty: data/raw/<dataset>
    sbd_root: str = ""  # SBD's folder (benchmark_RELEASE), for VOC's trainaug; empty: beside VOC's
    val_images: int = 200  # built-in scenes; paper: 1449
    test_images: int = 200  # built-in scenes; paper: 1456
    data_seed: int = (
        0  # of the scenes (another seed needs another `raw`), and of a folder's validation images
    )
    test_list: str = ""  # paper: test; of VOC, in ImageSets/Segmentation; empty: none
    train_masks: str = ""  # VOC: masks that give the training tags; empty: those of the list
    tags: str = "masks"  # paper: masks; VOC: boxes takes the objects of its XML files
    difficult: bool = False  # with boxes: whether objects marked as difficult give tags
    val_fraction: float = 0.1  # of a folder without masks and without splits of its own
    ids: dict = {}  # keep only the images in these lists of names, by split
    strict: bool = False  # whether a missing or unreadable file is an error; else it is counted and left out


class Training:
    """Of 02_train, where its default is not that of TrainConfig, which has all the others."""

    width: int = 32  # paper: 256 channels in the decoder
    dilations: list[int] = [1, 2, 4, 6]  # paper: 1, 12, 24, 36, which suits crops of 321 pixels
    optimiser: str = "adamw"  # paper: sgd
    lr_schedule: str = "cosine"  # paper: constant
    weight_decay: float = 0.01  # paper: 0.0005
    log_every: int = 25  # steps between two rows of the log


class Ablation:
    """Of 04_ablations."""

    ablation_snapshot: str = "last"  # or best, by validation, fair on images that chose nothing; paper: best
    ablation_scales: list[float] = [1.0]  # paper: 1, 0.5, 1.5, 2
    curve_images: int = 40  # training images on which section 9 measures each epoch; 0: none
    count: int = 4  # pictures shown under the four corners


class Evaluation:
    """Of 05_evaluate."""

    flip: bool = True  # paper: True
    canvas: int = -1  # paper: 1024 for every view; 0: none; -1: 1024 for released weights, else none
    # pixels; larger pictures are shrunk to it, their masks enlarged; 0: never, as in the paper; -1: that of the
    # weights, else 640
    long_side: int = -1
    score_cut: float = -1  # a class is present above it; -1: that of the weights, else 0.1, the paper's
    processes: int = 2  # of the CRF
    bf16: bool = False  # paper: False; faster on recent processors and GPUs
    quality_images: int = 0  # training images on which the supervision is measured; -1: all
    inside: str = ""  # where `masks` holds several of an image: the folder of the right ones, such as crf
    other_run: str = ""  # name of a run beside this one: the record tells in what they differ, and why
    device: str = "auto"  # auto, cpu, cuda or mps


KINDS = {
    "01_prepare_data": Preparation,
    "02_train": Training,
    "04_ablations": Ablation,
    "05_evaluate": Evaluation,
}


def named_in_more(stage: str) -> set[str]:
    """The settings whose default in `more` is the notebook's own."""
    return {*getattr(KINDS.get(stage), "__annotations__", ())}


def settings_of_more(stage: str) -> dict[str, tuple[object, object]]:
    """{name: (annotation, default)} of what a notebook's `more` may hold; {} where it has none.

    02_train takes all of TrainConfig, some of which its parameters hold; lists stand for tuples.
    """
    kind = KINDS.get(stage)
    if kind is None:
        return {}
    found = {}
    if kind is Training:
        fields = importlib.import_module(
            "wsfcn_lib.config"
        ).TrainConfig.model_fields  # this room knows no other
        found = {name: (field.annotation, plain(field.default)) for name, field in fields.items()}
    for name, annotation in kind.__annotations__.items():
        found[name] = found[name][0] if name in found else annotation, getattr(kind, name)
    return found
