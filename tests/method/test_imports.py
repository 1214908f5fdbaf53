"""The method imports nothing of machinery."""

import subprocess
import sys

from wsfcn_lib.runs.paths import ROOT


def test_the_method_loads_no_plots_no_images_no_tables_no_widgets():
    code = """
import sys
from wsfcn_lib import backbones, config, losses, modules, network, pamr
network.build_network(config.NetConfig(backbone="tiny", width=16))
print({"matplotlib", "PIL", "pandas", "ipywidgets", "scipy", "accelerate"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
