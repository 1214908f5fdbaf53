"""The log of a training: log.csv with a row for each `log_every` steps and each validation.

The same is written as TensorBoard events, and printed in lines.
"""

import csv
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from wsfcn_lib.runs.storage import writing

RATES = (
    "lr_old_weights",
    "lr_old_biases",
    "lr_new_weights",
    "lr_new_biases",
    "lr_flow",  # with AdamW alone
)
COLUMNS = (
    "epoch",
    "step",
    "classification_loss",
    "mask_loss",
    *RATES,
    "images_per_second",
    "stall",
    "val_loss",
    "val_map",
)


class RunLog:
    """Append rows to a run's log.

    On reopening, rows after `step` belong to work that will be done again, and are dropped.
    """

    def __init__(self, run: Path, step: int):
        from torch.utils.tensorboard import SummaryWriter  # a second to import: only training pays it

        self.path = run / "log.csv"
        kept = []
        if step > 0:
            kept = [row for row in read_rows(self.path) if _is_done(row, step)]
        part = self.path.with_suffix(".part")
        with writing(self.path), open(part, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(kept)
        os.replace(part, self.path)
        self.events = SummaryWriter(str(run / "tensorboard"), purge_step=step)

    def write(self, row: dict) -> dict:
        """Append one row, whose keys are among COLUMNS, its numbers to six digits; returns it so."""
        rounded = {}
        for name, value in row.items():
            rounded[name] = float(f"{value:.6g}") if isinstance(value, float) else value
        with writing(self.path):
            with open(self.path, "a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, COLUMNS).writerow(rounded)
            for name in row.keys() - {"epoch", "step"}:
                self.events.add_scalar(name, rounded[name], row["step"])
            self.events.flush()
        return rounded

    def sync(self) -> None:
        """Bring the rows to the disk: a resume state must never be newer than they are, whatever fails."""
        with writing(self.path), open(self.path, "rb+") as file:
            os.fsync(file.fileno())

    def close(self) -> None:
        """Finish the TensorBoard events."""
        self.events.close()


def _is_done(row: dict, step: int) -> bool:
    """Whether a row belongs to what the state of `step` holds."""
    if None in row.values():  # torn, as by a full disk: the last one, whose step is done again
        return False
    if int(row["step"]) == step:
        return not row["val_loss"]  # a validation at `step` follows that state, so it comes again
    return int(row["step"]) < step


def read_rows(path: Path) -> list[dict]:
    """The rows of a log.csv as text; [] where there is none yet."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def show_progress(rows: Iterable[dict], epochs: int, pause: float = 30) -> Iterator[dict]:
    """Pass on the rows of a training and print some: validations, a row each epoch and each `pause` seconds.

    The time to go is told from the second epoch on, when the steps of one are known.
    """
    began = printed = time.perf_counter()
    first_step = first_time = epoch = last_step = epoch_steps = None
    for row in rows:
        yield row
        now, step = time.perf_counter(), row["step"]
        if first_step is None:
            first_step, first_time = step, now
        start = f"epoch {row['epoch']:3d}/{epochs}  "
        if "val_loss" in row:
            print(f"{start}validation: loss {row['val_loss']:.4f}, mAP {row['val_map']:.3f}", flush=True)
        elif row["epoch"] != epoch or now - printed >= pause:
            if epoch is not None and row["epoch"] != epoch:  # the row before was the last of its epoch
                epoch_steps = last_step / row["epoch"]
            losses = f"classification {row['classification_loss']:.4f}, mask {row['mask_loss']:.4f}"
            speed = f"{row['images_per_second']:.0f} images/s, {now - began:.0f} s so far"
            if epoch_steps:
                seconds_per_step = (now - first_time) / (step - first_step)
                seconds = seconds_per_step * (epoch_steps * epochs - step)
                speed += f", about {seconds:.0f} s to go"
            print(f"{start}step {step}: {losses}  ({speed})", flush=True)
            epoch, printed = row["epoch"], now
        last_step = step
