"""Train and measure one configuration in a process of its own: `python -m wsfcn_lib.ablation FOLDER`.

Standard input has {"training": ..., "evaluation": ...}, the settings as JSON.
"""

import json
import sys

from wsfcn_lib.ablation.grid import run_configuration
from wsfcn_lib.config import TrainConfig
from wsfcn_lib.evaluation.scoring import EvalSettings
from wsfcn_lib.runs.paths import shell_path, use_utf8

use_utf8()
settings = json.load(sys.stdin)
training, evaluation = TrainConfig(**settings["training"]), EvalSettings(**settings["evaluation"])
try:
    run_configuration(training, shell_path(sys.argv[1]), evaluation)
except (OSError, ValueError, RuntimeError) as error:
    sys.exit(f"{type(error).__name__}: {error}")
