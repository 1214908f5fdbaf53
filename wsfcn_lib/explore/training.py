"""The training view: what a training has logged and drawn so far, from its files, also while it runs."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import ipywidgets as widgets

from wsfcn_lib.explore import charts, draw
from wsfcn_lib.explore.shell import WIDE, Explorer, button
from wsfcn_lib.plots.style import BLUE, GREEN, GREY, ORANGE, PURPLE
from wsfcn_lib.plots.training_panels import first_rows
from wsfcn_lib.runs.folder import read_run, stop_requested
from wsfcn_lib.runs.log import RATES, read_rows
from wsfcn_lib.runs.paths import resolve_path
from wsfcn_lib.train import STAGE

BLACK, WIDTH = "#000000", 780  # pixels
ROWS = 2  # of a panel
RATE_NAMES, COLOURS = ("old", "old biases", "new", "new biases", "flow"), (BLUE, ORANGE, GREEN, PURPLE, GREY)
CHARTS = {  # title: columns of the log, what they are called and their colours
    "losses": (
        ("classification_loss", "classification", BLUE),
        ("mask_loss", "mask", ORANGE),
        ("val_loss", "validation", BLACK),
    ),
    "tags": (("val_map", "validation mAP", GREEN),),
    "rates": tuple(zip(RATES, RATE_NAMES, COLOURS)),
    "throughput": (("images_per_second", "images/s", GREY),),
}
# a drawing waits this many seconds after the last one, and this many times as long as that one took
PAUSE, SHARE = 3, 100


class TrainingView(Explorer):
    """Watch a training, stop it, or look at one that ended.

    Args:
        run: the run folder; it may be empty yet.
    """

    ABOVE = True  # its picture is as wide as the page

    def __init__(self, run: Path | str):
        self.run, self.folder = Path(run), resolve_path(run)
        epoch = widgets.IntSlider(0, 0, 0, description="panel of epoch", **WIDE)
        self.stop_button = button("■ stop the training", self.stop, layout=WIDE["layout"])
        self.again = button("read the files again", self.renew, layout=WIDE["layout"])
        super().__init__({"epoch": epoch}, ["epoch", self.stop_button, self.again], live=False)
        self.renew()

    def follow(self, rows: Iterable[dict]) -> Iterator[dict]:
        """Pass on the rows of a training, and now and then draw its files, in a hundredth of the time."""
        self.renew(live=True)
        due = 0.0
        try:
            for row in rows:
                yield row
                began = time.perf_counter()
                if began >= due:
                    self.renew()
                    ended = time.perf_counter()
                    due = ended + max(PAUSE, SHARE * (ended - began))
        finally:
            self.renew(live=False)

    def renew(self, **fixed: object) -> None:
        """Draw what the files hold now; the slider goes to the newest panel, unless it was moved back."""
        epoch = self.controls["epoch"]
        epochs = [int(path.stem[6:]) for path in self.folder.glob("panels/epoch-*.png")]
        with self.batch():
            at_newest = epoch.value == epoch.max
            epoch.max = max(epochs, default=0)
            epoch.disabled = not epoch.max
            if at_newest:
                epoch.value = epoch.max
            self.stop_button.disabled = bool(self.stage.get("finished")) or not self.folder.is_dir()
            self.set(**fixed)

    def stop(self) -> None:
        """Ask for the training's end after its current step, in this process or another."""
        (self.folder / "stop").touch()
        self.refresh()

    @property
    def stage(self) -> dict:
        """What run.json says of the training; empty before it began."""
        return read_run(self.folder)["stages"].get(STAGE, {}) if (self.folder / "run.json").exists() else {}

    def render(self, state: dict) -> draw.Picture:
        """The curves of the log, and the first rows of one epoch's panel below them."""
        rows = read_rows(self.folder / "log.csv")
        if not rows:
            return draw.message("no curves yet", 120, WIDTH)
        end, curves = max(1, int(rows[-1]["step"])), []
        for title, columns in CHARTS.items():
            series = []
            for key, name, colour in columns:
                points = [(int(row["step"]), float(row[key])) for row in rows if row.get(key)]
                series.append((name, colour, points))
            curves.append(charts.lines(series, title, end, WIDTH // 2))
        return draw.below(draw.grid(*curves), self._panel(state["epoch"]))

    def _panel(self, epoch: int) -> draw.Picture:
        """What the network saw after an epoch in the first images; or that nothing is drawn yet."""
        path = self.folder / "panels" / f"epoch-{epoch:03d}.png"
        if not path.exists():
            return draw.paragraph("no panel here: one is drawn at the end of each epoch", WIDTH)
        rows = first_rows(path, ROWS)
        shrunk = draw.fitted(rows.shape, len(rows), WIDTH, shrink=True)(rows)
        return draw.below(draw.paragraph(f"validation images after {epoch + 1} epochs", WIDTH), shrunk)

    def describe(self, state: dict) -> str:
        """How far the training is, in one line."""
        rows, stage = read_rows(self.folder / "log.csv"), self.stage
        if not rows:
            step = "its first row comes soon" if state["live"] else "train it with 02_train"
            return f"{self.run.name} has logged nothing yet: {step}"
        epochs = stage.get("settings", {}).get("epochs", "?")
        text = f"{self.run.name}: epoch {rows[-1]['epoch']} of {epochs}, step {rows[-1]['step']}; "
        if stage.get("finished"):
            return text + f"finished in {stage['seconds']:.0f} s"
        asked = stop_requested(self.folder)
        if state["live"]:
            return text + ("stopping after this step, all is saved" if asked else "in training")
        if asked:
            text += "asked to stop: a training ends after its next step"
        elif stage.get("stopped_at") is None:
            text += "interrupted, or under way in another process"
        else:
            text += f"stopped after step {stage['stopped_at']}"
        return text + ". 02_train goes on where it was saved"
