"""The rows of an ablation, one for each configuration."""

import pandas as pd

from wsfcn_lib.ablation.tables import by_configuration


def test_a_configuration_has_one_row_and_a_column_for_each_measure():
    rows = [
        {
            "dataset": "d",
            "run": run,
            "variant": run.upper(),
            "seed": 0,
            "recipe": recipe,
            "crf": crf,
            "tags": tags,
        }
        | {"mean_iou": score, "border_iou": score / 2}
        for run, base in (("b", 0.1), ("a", 0.5))
        for score, recipe, crf, tags in (
            (base, "wsfcn", False, "predicted"),
            (base + 0.1, "wsfcn", True, "true"),
            (base + 0.2, "1stage", False, "predicted"),
        )
    ]
    table, measures = by_configuration(pd.DataFrame(rows))
    assert set(measures) == {"mean_iou", "mean_iou_crf_true_tags", "mean_iou_1stage"}
    assert list(table.index) == ["b", "a"], "in the order of their trainings"
    assert table.loc["b", measures].round(1).to_dict() == {
        "mean_iou": 0.1,
        "mean_iou_crf_true_tags": 0.2,
        "mean_iou_1stage": 0.3,
    }
    assert table.border_iou.tolist() == [0.05, 0.25], "the other measures are those of WS-FCN's recipe"
    assert not {"recipe", "crf", "tags", "dataset"} & {*table}
