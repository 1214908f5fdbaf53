"""The training view: what a training has logged and drawn so far, while it runs and afterwards, from the files of its run."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import ipywidgets as widgets
import numpy as np

from wsfcn_lib.explore import charts, draw
from wsfcn_lib.explore.browse import WIDE
from wsfcn_lib.explore.shell import Explorer, column
from wsfcn_lib.plots.style import BLUE, GREEN, GREY, ORANGE, PURPLE
from wsfcn_lib.plots.training_panels import first_rows
from wsfcn_lib.runs.folder import read_run, stop_requested
from wsfcn_lib.runs.log import RATES, read_rows
from wsfcn_lib.runs.paths import ROOT
from wsfcn_lib.train import STAGE

BLACK, WIDTH, ROWS = "#000000", 780, 2  # width in pixels; rows of the panel
CHARTS = {  # title: columns of the log, what they are called and their colours
    "losses": (
        ("classification_loss", "classification", BLUE),
        ("mask_loss", "mask", ORANGE),
        ("val_loss", "validation", BLACK),
    ),
    "tags": (("val_map", "validation mAP", GREEN),),
    "rates": tuple(
        zip(RATES, ("old", "old biases", "new", "new biases", "flow"), (BLUE, ORANGE, GREEN, PURPLE, GREY))
    ),
    "throughput": (("images_per_second", "images/s", GREY),),
}
PAUSE, SHARE = (
    3,
    100,
)  # a drawing waits this many seconds after the last one, and this many times as long as that one took


class TrainingView(Explorer):
    """Watch a training, stop it, or look at one that ended.

    Args:
        run: the run folder; it may be empty yet.
    """

    def __init__(self, run: Path | str):
        self.run, self.folder = Path(run), ROOT / run
        epoch, wide = widgets.IntSlider(0, 0, 0, description="panel of epoch", **WIDE), WIDE["layout"]
        names = "■ stop the training", "read the files again"
        self.button, self.again = (widgets.Button(description=words, layout=wide) for words in names)
        self.button.on_click(lambda _: self.stop())
        self.again.on_click(lambda _: self.renew())
        super().__init__(
            self.render, {"epoch": epoch}, self.words, column(epoch, self.button, self.again), live=False
        )
        self.renew()

    def follow(self, rows: Iterable[dict]) -> Iterator[dict]:
        """Pass on the rows of a training, and draw now and then what it has written, in a hundredth of the time."""
        self.renew(live=True)
        due = 0.0
        try:
            for row in rows:
                yield row
                if (began := time.perf_counter()) >= due:
                    self.renew()
                    now = time.perf_counter()
                    due = now + max(PAUSE, SHARE * (now - began))
        finally:
            self.renew(live=False)

    def renew(self, **fixed: object) -> None:
        """Draw what the files hold now; the slider goes to the newest panel, unless it was moved back."""
        epoch, drawn = self.controls["epoch"], sorted(self.folder.glob("panels/epoch-*.png"))
        with self.held():
            newest, last = epoch.value == epoch.max, int(drawn[-1].stem[6:]) if drawn else 0
            epoch.max, epoch.disabled = last, not last
            epoch.value = last if newest else epoch.value
            self.button.disabled = bool(self.stage.get("finished")) or not self.folder.is_dir()
            self.set(**fixed)

    def stop(self) -> None:
        """Ask for the training's end after its current step, in this process or another."""
        (self.folder / "stop").touch()
        self.refresh()

    @property
    def stage(self) -> dict:
        """What run.json says of the training; empty before it began."""
        return read_run(self.folder)["stages"].get(STAGE, {}) if (self.folder / "run.json").exists() else {}

    def render(self, state: dict) -> np.ndarray:
        """The curves of the log, and the first rows of one epoch's panel below them."""
        rows, words = read_rows(self.folder / "log.csv"), self.words(state)
        if not rows:
            return draw.message(words, 120, WIDTH)
        end, found = max(1, int(rows[-1]["step"])), []
        for title, columns in CHARTS.items():
            points = {
                key: [(int(row["step"]), float(row[key])) for row in rows if row.get(key)]
                for key, *_ in columns
            }
            series = [(name, colour, points[key]) for key, name, colour in columns]
            found.append(charts.lines(series, title, end, WIDTH // 2))
        above = draw.below(draw.beside(*found[:2]), draw.beside(*found[2:]))
        return draw.below(draw.paragraph(words, WIDTH, 14), above, self._panel(state["epoch"]))

    def _panel(self, epoch: int) -> np.ndarray:
        """What the network saw after an epoch in the first images, with a title; words where nothing is drawn yet."""
        path = self.folder / "panels" / f"epoch-{epoch:03d}.png"
        if not path.exists():
            return draw.paragraph("no panel here: one is drawn at the end of each epoch", WIDTH)
        rows = first_rows(path, ROWS)
        small = draw.fitted(rows.shape, len(rows), WIDTH, shrink=True)
        return draw.below(draw.paragraph(f"validation images after {epoch + 1} epochs", WIDTH), small(rows))

    def words(self, state: dict) -> str:
        """How far the training is, in one line."""
        rows, stage = read_rows(self.folder / "log.csv"), self.stage
        if not rows:
            told = "its first row comes soon" if state["live"] else "train it with 02_train"
            return f"{self.run.name} has logged nothing yet: {told}"
        epochs = stage.get("settings", {}).get("epochs", "?")
        told = f"{self.run.name}: epoch {rows[-1]['epoch']} of {epochs}, step {rows[-1]['step']}"
        if stage.get("finished"):
            return f"{told}; finished in {stage['seconds']:.0f} s"
        asked, at = stop_requested(self.folder), stage.get("stopped_at")
        if state["live"]:
            return f"{told}; " + ("stopping after this step, all is saved" if asked else "in training")
        ended = "interrupted, or under way in another process" if at is None else f"stopped after step {at}"
        ended = "asked to stop: a training ends after its next step" if asked else ended
        return f"{told}; {ended}. 02_train goes on where it was saved"
