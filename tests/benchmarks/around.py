"""What lies around the network: decoding and augmenting pictures, and importing the library."""

import subprocess
import sys
from pathlib import Path

from matplotlib.cbook import get_sample_data
from measure import timed
from PIL import Image

from wsfcn_lib.data.training_set import TrainSet

ROOT = Path(__file__).resolve().parents[2]


def loading(device):
    """Images a second that one loader process decodes, augments and normalises at the paper's crop."""
    home = ROOT / "data" / "results" / "bench"
    home.mkdir(parents=True, exist_ok=True)
    path = home / ".picture.jpg"
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as file:
        file.convert("RGB").resize((500, 375)).save(path, quality=90)
    data = TrainSet(_OnePicture(path), "train", 321, 0)
    seconds, _ = timed(lambda: [data[0, index] for index in range(32)], 3)
    path.unlink()
    print(f"{'loading':16} {32 / seconds:8.1f} images/s in one process, 500x375 to a crop of 321", flush=True)
    return {"stage": "loading", "images_per_second": round(32 / seconds, 1), "device": "cpu"}


class _OnePicture:
    """A manifest of 32 times one picture."""

    def __init__(self, path):
        self.sample = type("Sample", (), {"image": path, "tags": (True, False)})

    def samples(self, split):
        return [self.sample] * 32


def starting(device):
    """Seconds that the library adds to importing torch, each in a fresh process; the best of three."""

    def seconds(code):
        code = f"import time; b = time.perf_counter(); {code}; print(time.perf_counter() - b)"
        runs = [
            subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
            for _ in range(3)
        ]
        return min(float(run.stdout) for run in runs)

    torch_alone = seconds("import torch")
    more = {
        "package": seconds("import torch, wsfcn_lib") - torch_alone,
        "network": seconds("import torch, wsfcn_lib; wsfcn_lib.WSFCN") - torch_alone,
        "segment": seconds("import torch, wsfcn_lib; wsfcn_lib.segment") - torch_alone,
    }
    print(
        f"{'import':16} torch {torch_alone:.2f} s; on top "
        + ", ".join(f"{k} {v:.2f} s" for k, v in more.items()),
        flush=True,
    )
    return {"stage": "import", "torch": round(torch_alone, 3), "device": "cpu"} | {
        k: round(v, 3) for k, v in more.items()
    }
