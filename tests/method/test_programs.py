"""What a training takes from one of the two published programs, chosen by `program` where its modules do not say."""

import pytest
import torch

from factories import settings
from wsfcn_lib import NetConfig, train
from wsfcn_lib.network import build_network

RATES = {  # multipliers of old weights, old biases, new weights, new biases: WS-FCN's and 1-stage-wseg's
    "resnet38": ((1, 2, 20, 40), (1, 2, 10, 20)),
    "vgg16": ((1, 2, 20, 40), (1, 2, 10, 20)),
    "resnet50": ((1, 1, 20, 10), (1, 1, 10, 10)),
    "resnet101": ((1, 1, 20, 10), (1, 1, 10, 10)),
}
MODULES = {  # context, fusion, program: whether 1-stage-wseg's values hold
    ("fca", "sf2", None): False,
    ("aspp", "gci", None): True,
    ("aspp", "sf2", None): False,
    ("none", "sf2", None): False,
    ("none", "sf2", "1stage"): True,
    ("none", "sf2", "wsfcn"): False,
    ("aspp", "gci", "wsfcn"): False,
    ("fca", "sf2", "1stage"): True,
}


@pytest.mark.parametrize("backbone", RATES)
def test_the_baseline_of_each_program_has_its_learning_rates(backbone):
    for program, rates in zip((None, "1stage"), RATES[backbone]):
        with torch.device("meta"):
            net = build_network(NetConfig(backbone=backbone, context="none", program=program))
        groups = net.parameter_groups(1.0, 5e-4)
        assert tuple(group["lr"] for group in groups) == rates
        assert [len(group["params"]) > 0 for group in groups] == [True, backbone == "vgg16", True, False]


@pytest.mark.parametrize("context, fusion, program", MODULES)
def test_vgg_has_the_stride_of_its_program(context, fusion, program):
    config = NetConfig(backbone="vgg16", context=context, fusion=fusion, program=program)
    ancestor = MODULES[context, fusion, program]
    assert config.is_ancestor == ancestor
    with torch.device("meta"):
        _, deep = build_network(config).backbone(torch.zeros(1, 3, 64, 64))
    assert deep.shape[-2:] == ((8, 8) if ancestor else (4, 4))


@pytest.mark.parametrize(
    "chosen, kept", [({}, 2), ({"program": "1stage"}, 1), ({"context": "aspp", "fusion": "gci"}, 1)]
)
def test_an_equal_validation_is_kept_by_wsfcn_alone(data, tmp_path, monkeypatch, chosen, kept):
    # the same before epoch 2 and after the last
    monkeypatch.setattr(train, "validate", lambda *_: (0.25, 0.5))
    list(train.train(settings(data, **chosen), tmp_path / "run"))
    files = list((tmp_path / "run/checkpoints").glob("e*X*.safetensors"))
    assert len(files) == kept


@pytest.mark.parametrize("supervision", ["tags", "masks"])
def test_a_training_crops_by_the_rule_of_its_settings(data, tmp_path, monkeypatch, supervision):
    made = []
    for name in ("TrainSet", "MaskedTrainSet"):
        kind = getattr(train, name)

        def build(*how, kind=kind, **more):
            made.append(kind(*how, **more))
            return made[-1]

        monkeypatch.setattr(train, name, build)
    chosen = settings(data, crop_rule="published-2019", supervision=supervision, epochs=1)
    rows = list(train.train(chosen, tmp_path / "run"))
    assert [type(pictures.chain.transforms[0]).__name__ for pictures in made] == ["Crop2019", "Resize"]
    assert rows[-1]["step"] == 4
