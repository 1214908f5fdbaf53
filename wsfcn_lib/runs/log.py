"""The log of a training run: `log.csv`, one row per `log_every` steps or validation, and the same as TensorBoard events."""

import csv
import os
from pathlib import Path

from wsfcn_lib.runs.storage import writing

RATES = (
    "lr_old_weights",
    "lr_old_biases",
    "lr_new_weights",
    "lr_new_biases",
    "lr_flow",
)  # the flow's: with AdamW
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
    """Append rows to a run's log. On reopening, rows after `step` belong to work that will be done again and are dropped."""

    def __init__(self, run: Path, step: int):
        from torch.utils.tensorboard import SummaryWriter  # a second to import: only training pays it

        self.path = run / "log.csv"
        kept = [row for row in read_rows(self.path) if _before(row, step)] if step else []
        part = self.path.with_suffix(".part")
        with writing(self.path), open(part, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(kept)
        os.replace(part, self.path)
        self.events = SummaryWriter(str(run / "tensorboard"), purge_step=step)

    def write(self, row: dict) -> dict:
        """Append one row, whose keys are among COLUMNS; returns it."""
        with writing(self.path):
            with open(self.path, "a", newline="") as file:
                csv.DictWriter(file, COLUMNS).writerow(row)
            for name in row.keys() - {"epoch", "step"}:
                self.events.add_scalar(name, row[name], row["step"])
            self.events.flush()
        return row

    def sync(self) -> None:
        """Bring the rows to the disk: a resume state must never be newer than they are, whatever fails."""
        with writing(self.path), open(self.path, "rb+") as file:
            os.fsync(file.fileno())

    def close(self) -> None:
        """Finish the TensorBoard events."""
        self.events.close()


def read_rows(path: Path) -> list[dict]:
    """The rows of a log.csv as text; [] where there is none yet."""
    if not path.is_file():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def _before(row: dict, step: int) -> bool:
    if None in row.values():  # torn, as by a full disk: the last one, whose step is done again
        return False
    # a validation row at `step` is written after the state of that step was saved, so it comes again
    return int(row["step"]) < step or (int(row["step"]) == step and not row["val_loss"])
