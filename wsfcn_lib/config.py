"""The settings of a network and of a training run. Unknown names and values out of range are errors."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from wsfcn_lib.runs.settings import Settings

BACKBONES = ("resnet38", "vgg16", "resnet50", "resnet101", "mobilenet_v2", "tiny")
TIMM = "timm:"  # before the name of any network of timm
Recipe = Literal["wsfcn", "1stage"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Multiplier = Annotated[float, Field(ge=0, le=1000)]
Dilation = Annotated[int, Field(ge=1, le=256)]


class Architecture(Settings):
    """The switches of the network: {ASPP, FCA} x {GCI, SF2} has 1-stage-wseg and WS-FCN as its corners."""

    backbone: str = "resnet38"  # of BACKBONES, or timm:<name>
    # pixels a place of `deep`, where a timm: backbone can be built for it; None: 16
    output_stride: Literal[8, 16, 32] | None = None
    context: Literal["fca", "aspp", "none"] = "fca"  # none: the CAM baseline, which has no decoder
    fusion: Literal["sf2", "gci"] = "sf2"
    # whose learning-rate multipliers, VGG stride (WS-FCN 16, 1-stage-wseg 8) and rule for keeping snapshots hold
    # (at 1 - loss >= the best, or >); None: 1-stage-wseg's with its two modules, else WS-FCN's. Of the CAM
    # baselines only 1-stage-wseg's was ever trained
    program: Literal["wsfcn", "1stage"] | None = None
    width: int = Field(256, ge=16, le=1024, multiple_of=16)  # decoder channels; published: 256
    # of the context module's kernels; the first belongs to a 1x1 kernel
    dilations: tuple[Dilation, Dilation, Dilation, Dilation] = (1, 12, 24, 36)
    fca_branches: int = Field(4, ge=1, le=4)  # of FCA's kernels 1, 3, 5, 7: the first so many
    channel_attention: bool = True  # FCA's; without it the branches are joined as they are
    align: bool = True  # SF2's; without it the deep features are enlarged bilinearly
    # of SF2's alignment: free as published, centred (its mean over the map taken off), held at zero
    flow: Literal["free", "centred", "held"] = "free"
    gate_rate: float = Field(0.3, ge=0, lt=1)  # psi of the stochastic gate
    # reduce a wider `deep` to this before the context module
    deep_width: int | None = Field(None, ge=16, le=4096)
    size_power: float | None = Field(3.0, ge=0, le=10)  # p of the size penalty; None: no penalty
    size_offset: float = Field(0.01, gt=0, le=1)  # lambda of the size penalty; COCO: 0.1

    @field_validator("backbone")
    @classmethod
    def _known_backbone(cls, value: str) -> str:
        if value not in BACKBONES and not (value.startswith(TIMM) and value != TIMM):
            raise ValueError(f"choose one of {', '.join(BACKBONES)}, or timm:<name of a network of timm>")
        return value

    @model_validator(mode="after")
    def _stride_can_be_chosen(self):
        if self.output_stride and not self.backbone.startswith(TIMM):
            raise ValueError(
                f"output_stride={self.output_stride} is a choice of timm: backbones, {self.backbone} has its own; "
                "leave it out"
            )
        return self

    @property
    def is_ancestor(self) -> bool:
        """Whether this is 1-stage-wseg, which has its own learning rates, VGG stride and rule for snapshots."""
        if self.program:
            return self.program == "1stage"
        return self.context == "aspp" and self.fusion == "gci"


class NetConfig(Architecture):
    """One network. `num_classes` counts background (VOC 21, COCO 81)."""

    num_classes: int = Field(21, ge=2, le=255)


# how pseudo labels are made, which a snapshot remembers: its maps are looked at as its training saw them
SUPERVISION = ("foreground_cut", "background_cut", "floor", "pamr_iterations", "pamr_dilations")


class TrainConfig(Architecture):
    """One training run. Defaults are WS-FCN's on VOC with ResNet38 (paper, section IV)."""

    data: str = "data/prepared/voc"  # folder with a manifest, relative to the repository
    # ImageNet weights: a name of the model zoo, a file, or "hub" for timm's; "shipped" or another snapshot of a
    # whole network; empty: random
    initial_weights: str = ""
    seed: int = Field(0, ge=0, lt=2**31)
    epochs: int = Field(31, ge=1, le=999)
    # length of the training, which `epochs` then divide into equal parts; 0: each epoch is one pass
    steps: int = Field(0, ge=0, le=10**7)
    warmup_epochs: int = Field(7, ge=0, le=1000)  # epochs without the mask loss
    batch_size: int = Field(16, ge=1, le=4096)  # images of one update, over all processes
    # parts that each process computes its share in, one after the other
    accumulate: int = Field(1, ge=1, le=4096)
    # statistics of a part: of each process, or over all of them
    batch_norm: Literal["process", "synchronised"] = "process"
    crop: int = Field(321, ge=32, le=2048)  # pixels
    # how crops are drawn: as torchvision does since 0.3 (WS-FCN: its code needs a newer one than the 0.2.1 that
    # it pins), or as 0.2.1 did (1-stage-wseg), see data.crop_2019
    crop_rule: Literal["torchvision", "published-2019"] = "torchvision"
    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: float = Field(1e-3, gt=0, le=10)
    lr_schedule: Literal["constant", "cosine"] = "constant"
    # of old weights, old biases, new weights, new biases; None: the published ones of the backbone
    lr_multipliers: tuple[Multiplier, Multiplier, Multiplier, Multiplier] | None = None
    weight_decay: float = Field(5e-4, ge=0, le=1)
    # of the backbone, what stays as it came beside its first layers: nothing, its depthwise filters (their
    # gradients take a third of a step on processors), or all of it
    frozen: Literal["first", "depthwise", "backbone"] = "first"
    # what the masks learn from: the network's own refined masks, or, as a ceiling, the true ones
    supervision: Literal["tags", "masks"] = "tags"
    mask_weight: float = Field(1.0, ge=0, le=100)
    foreground_cut: Fraction = 0.6
    background_cut: Fraction = 0.7
    floor: Fraction = 0.2
    pamr_iterations: int = Field(10, ge=0, le=100)
    pamr_dilations: Annotated[tuple[Dilation, ...], Field(min_length=1)] = (1, 2, 4, 8, 12, 24)
    precision: Literal["fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    workers: int = Field(2, ge=0, le=64)  # loader processes
    threads: int = Field(0, ge=0, le=1024)  # of PyTorch on a CPU; 0: one for `tiny`, else as PyTorch chose
    validate_every: int = Field(2, ge=1, le=1000)  # epochs
    # newest ones that won the validation; 0: none, so that the last network is the one used
    snapshots_kept: int = Field(10, ge=0, le=1000)
    # epochs, kept beside those that win the validation; 0: none
    snapshot_every: int = Field(0, ge=0, le=1000)
    log_every: int = Field(20, ge=1, le=100000)  # steps

    @field_validator("data")
    @classmethod
    def _named(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is empty; name a folder made by 01_prepare_data, such as data/prepared/glyphs")
        return value

    @model_validator(mode="after")
    def _warmup_fits(self):
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs={self.warmup_epochs} is more than epochs={self.epochs}: the warm-up would outlast the "
                "training; lower it"
            )
        if self.steps and self.steps < self.epochs:
            raise ValueError(
                f"steps={self.steps} is less than epochs={self.epochs}, and each epoch needs a step; raise steps "
                "or lower epochs"
            )
        return self

    def network(self, num_classes: int) -> NetConfig:
        """The architecture of this run for a data set of `num_classes` (background counted)."""
        architecture = self.model_dump(include=set(Architecture.model_fields))
        return NetConfig(num_classes=num_classes, **architecture)
