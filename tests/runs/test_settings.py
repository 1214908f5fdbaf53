"""What is wrong with settings is said by name, value and rule."""

import re

import pytest

from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.preparation import SourceSettings
from wsfcn_lib.runs.settings import SettingsError


@pytest.mark.parametrize(
    "kind, given, message",
    [
        (TrainConfig, {"epochs": 0}, "epochs=0: should be greater than or equal to 1"),
        (TrainConfig, {"flor": 0.2}, "TrainConfig has no setting 'flor': did you mean 'floor'?"),
        (
            TrainConfig,
            {"zzz": 0.2},
            "TrainConfig has no setting 'zzz': choose from backbone, output_stride, ",
        ),
        (TrainConfig, {"lr": "x"}, "lr='x': should be a valid number"),
        (TrainConfig, {"backbone": "resnt"}, "backbone='resnt': choose one of resnet38, vgg16, "),
        (TrainConfig, {"dilations": [1, 2, 3]}, "dilations=[1, 2, 3]: dilations.3 is missing; add it"),
        (TrainConfig, {"dilations": [1, 0, 3, 4]}, "dilations.1=0: should be greater than or equal to 1"),
        (
            TrainConfig,
            {"warmup_epochs": 40},
            "warmup_epochs=40 is more than epochs=31: the warm-up would outlast the training; lower it",
        ),
        (TrainConfig, {"data": ""}, "data='': is empty; name a folder made by 01_prepare_data"),
        (SourceSettings, {"glyphs": {"size": 3}}, "size=3: should be greater than or equal to 48"),
    ],
)
def test_faults_are_told_in_a_line(kind, given, message):
    with pytest.raises(SettingsError, match=re.escape(message)) as told:
        kind(**given)
    assert "\n" not in str(told.value) and "pydantic" not in str(told.value)


def test_all_faults_are_told_at_once():
    with pytest.raises(SettingsError, match="size_offset=0: .*; TrainConfig has no setting 'flor'"):
        TrainConfig(size_offset=0, flor=1)
