"""The rows of an ablation as a table with one row for each configuration."""

import pandas as pd


def by_configuration(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """(table, measures): a row for each run of `run_configurations`, and the names of its columns of mIoU.

    mean_iou stands for WS-FCN's recipe with predicted tags and without CRF, whose other measures the table
    keeps; endings say what is otherwise: _1stage, _crf, _true_tags.
    """
    recipe = rows.recipe.map({"wsfcn": "", "1stage": "_1stage"})
    crf, tags = (
        rows.crf.map({False: "", True: "_crf"}),
        rows.tags.map({"predicted": "", "true": "_true_tags"}),
    )
    wide = rows.assign(kind="mean_iou" + recipe + crf + tags).pivot(
        index="run", columns="kind", values="mean_iou"
    )
    own = rows[(rows.recipe == "wsfcn") & ~rows.crf & (rows.tags == "predicted")].set_index("run")
    return own.drop(columns=["dataset", "recipe", "crf", "tags", "mean_iou"]).join(wide), [*wide]
