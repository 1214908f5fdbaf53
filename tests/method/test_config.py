"""Settings: what is misspelt or out of range is refused by name."""

import pytest

from wsfcn_lib import NetConfig, TrainConfig
from wsfcn_lib.evaluation.scoring import EvalSettings
from wsfcn_lib.runs.settings import SettingsError


@pytest.mark.parametrize(
    "settings, named",
    [
        ({"bakbone": "tiny"}, "bakbone"),
        ({"backbone": "resnet18"}, "resnet38"),
        ({"width": 40}, "multiple of 16"),
        ({"dilations": (1, 2, 4)}, "dilations"),
        ({"dilations": (1, 2, 4, 0)}, "greater than or equal to 1"),
        ({"epochs": 0}, "epochs"),
        ({"lr": -1}, "greater than 0"),
        ({"lr_multipliers": (1, 2, -1, 4)}, "greater than or equal to 0"),
        ({"lr_multipliers": (1, 2, float("nan"), 4)}, "lr_multipliers"),
        ({"epochs": 1000}, "less than or equal to 999"),
        ({"foreground_cut": 1.5}, "less than or equal to 1"),
        ({"warmup_epochs": 40}, "more than epochs=31"),
        ({"precision": "fp16"}, "bf16"),
        ({"data": " "}, "01_prepare_data"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_settings_are_named(settings, named):
    with pytest.raises(SettingsError, match=named):
        TrainConfig(**settings)


def test_settings_are_immutable_and_survive_json():
    config = TrainConfig(backbone="tiny", dilations=[1, 2, 4, 6])
    with pytest.raises(ValueError, match="frozen"):
        config.epochs = 3
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config
    assert config.network(7) == NetConfig(backbone="tiny", dilations=(1, 2, 4, 6), num_classes=7)


def test_defaults_are_the_papers():
    config = TrainConfig()
    assert (config.epochs, config.warmup_epochs, config.batch_size, config.crop) == (31, 7, 16, 321)
    assert (config.optimiser, config.lr, config.weight_decay, config.lr_schedule) == (
        "sgd",
        1e-3,
        5e-4,
        "constant",
    )
    assert (config.dilations, config.gate_rate, config.pamr_dilations) == (
        (1, 12, 24, 36),
        0.3,
        (1, 2, 4, 8, 12, 24),
    )


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), 1e6])
def test_scales_of_the_evaluation_are_bounded(scale):
    with pytest.raises(SettingsError, match="scales"):
        EvalSettings(scales=(1.0, scale))
