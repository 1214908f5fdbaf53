"""Reading an ablation: effects with known answers, both intervals, and what is said for one seed or more."""

import numpy as np
import pandas as pd
import pytest

from wsfcn_lib.ablation.statistics import CORNERS, conclusion, differences, effects, resampled, spread
from wsfcn_lib.metrics import ConfusionMatrix


def grid(context, fusion, together=0.0, seeds=1, noise=0.0):
    """A table of known effects in points: FCA brings `context`, SF2 `fusion`, the pair `together` on top."""
    rng, rows = np.random.default_rng(0), []
    for seed in range(seeds):
        for one, other in CORNERS:
            fca, sf2 = one == "fca", other == "sf2"
            points = (
                40 + 5 * seed + context * fca + fusion * sf2 + together * (fca and sf2) + noise * rng.normal()
            )
            rows.append(
                {
                    "context": one,
                    "fusion": other,
                    "seed": seed,
                    "variant": f"{one} + {other}",
                    "mean_iou": points / 100,
                }
            )
    return pd.DataFrame(rows)


def pixels(gain=0.0, seeds=1, images=60, noise=0.02):
    """{corner and seed: counts (N, 3, 2)}: images of unlike difficulty; FCA finds `gain` points more."""
    rng, found = np.random.default_rng(1), {}
    hard = rng.uniform(0.2, 0.8, images)
    for seed in range(seeds):
        for context, fusion in CORNERS:
            share = np.clip(hard + gain / 100 * (context == "fca") + noise * rng.normal(size=images), 0, 1)
            right = np.round(10_000 * share)
            each = np.stack([right, np.full(images, 10_000), right], 1)
            found[context, fusion, seed] = np.stack([each, each], 2).astype(np.int32)
    return found


def points(table, **options):
    return effects(table, **options).set_index("effect").points.to_dict()


@pytest.mark.parametrize("effect", [3, 0, -3])
@pytest.mark.parametrize("seeds", [1, 4])
def test_known_effects_are_found(effect, seeds):
    assert points(grid(effect, 1, seeds=seeds)) == pytest.approx(
        {"context": effect, "fusion": 1, "interaction": 0}
    )
    assert points(grid(2, effect, seeds=seeds)) == pytest.approx(
        {"context": 2, "fusion": effect, "interaction": 0}
    )
    mixed = points(grid(0, 0, effect, seeds))  # only the pair: half of it falls to each module's mean
    assert mixed == pytest.approx({"context": effect / 2, "fusion": effect / 2, "interaction": effect})


def test_spread_is_that_of_the_seeds():
    table = grid(3, 0, seeds=2)
    table.loc[(table.seed == 1) & (table.context == "fca"), "mean_iou"] += (
        0.02  # the effect is 3 at seed 0 and 5 at seed 1
    )
    found = effects(table).set_index("effect").loc["context"]
    assert (found.points, found.sd, found.seeds) == (pytest.approx(4), pytest.approx(np.sqrt(2)), 2)
    assert (found.high - found.low) / 2 == pytest.approx(
        12.706 * np.sqrt(2) / np.sqrt(2), rel=1e-3
    )  # t of one degree of freedom
    assert effects(grid(3, 0)).loc[:, ["sd", "low", "high", "images_low"]].isna().all(axis=None)


def test_order_of_rows_other_columns_and_others_do_not_matter():
    table = grid(3, -3, 1, seeds=3, noise=0.5)
    shuffled = table.sample(frac=1, random_state=1).assign(mean_iou_1stage=table.mean_iou / 2)
    cam = {"context": "none", "fusion": "sf2", "seed": 0, "variant": "CAM", "mean_iou": 0.1}
    assert points(pd.concat([shuffled, pd.DataFrame([cam])])) == pytest.approx(points(table))
    assert points(shuffled, measure="mean_iou_1stage")["context"] == pytest.approx(
        points(table)["context"] / 2
    )


def test_a_missing_or_double_corner_is_an_error():
    table = grid(1, 1, seeds=2)
    for broken in (
        table.iloc[:-1],
        pd.concat([table, table.iloc[[0]]]),
        table.assign(mean_iou=np.nan),
        table[table.fusion == "sf2"],
    ):
        with pytest.raises(ValueError, match="must occur once per seed"):
            effects(broken)


def test_resampling_follows_a_loop_over_draws():
    counts = {
        "a": np.random.default_rng(0).integers(1, 9, (7, 3, 4)),
        "b": np.random.default_rng(1).integers(1, 9, (7, 3, 4)),
    }
    for each in counts.values():
        each[:, 1:] += each[:, :1]
        each[:, :, 3] = 0  # a class that occurs nowhere
    found = resampled(counts, draws=50, seed=4)
    times = np.random.default_rng(4).multinomial(7, np.full(7, 1 / 7), 50)
    for name, each in counts.items():
        for k in range(50):
            right, true, predicted = sum(np.repeat(each, times[k], 0))
            matrix = ConfusionMatrix(4, np.diag(right))
            matrix.matrix[0, 1:] = 0
            iou = [r / (t + p - r) for r, t, p in zip(right, true, predicted) if t + p]
            assert found[name][k] == pytest.approx(np.mean(iou))


def test_a_sample_of_one_image_never_varies_and_unlike_configurations_are_refused():
    one = {"a": np.ones((1, 3, 2))}
    assert np.ptp(resampled(one)["a"]) == 0
    with pytest.raises(ValueError, match=r"measured on \[1, 2\] images"):
        resampled(one | {"b": np.ones((2, 3, 2))})


def test_the_bootstrap_is_paired():
    """Images differ more than configurations do: only the same images in each draw tell these apart."""
    counts = pixels(gain=3)
    draws, table = resampled(counts), grid(3, 0)
    alone = np.ptp(np.quantile(draws["fca", "sf2", 0], (0.025, 0.975))) * 100
    row = effects(table, draws=draws).set_index("effect").loc["context"]
    assert 0 < row.images_low < 3.3 and row.images_high - row.images_low < alone / 3
    other = resampled({name: each[::-1] if name[0] == "aspp" else each for name, each in counts.items()})
    unpaired = effects(table, draws=other).set_index("effect").loc["context"]
    assert unpaired.images_high - unpaired.images_low > 2 * (row.images_high - row.images_low)


def test_the_bootstrap_covers_what_it_should():
    """The 95 % interval of a mean holds the truth in most of 60 repetitions, and is not endless."""
    hits, widths = 0, []
    for k in range(60):
        rng = np.random.default_rng(k)
        right = np.round(1000 * rng.uniform(0, 1, 80))
        counts = np.stack([right, np.full(80, 1000), right], 1)[:, :, None]
        low, high = np.quantile(resampled({"a": counts}, 300, k)["a"], (0.025, 0.975))
        hits, widths = hits + (low < 0.5 < high), [*widths, high - low]
    assert 50 <= hits <= 60 and max(widths) < 0.2


@pytest.mark.parametrize("size, shown", [(3, "+3.0"), (0, "+0.0"), (-3, "-3.0")])
def test_one_seed_claims_nothing(size, shown):
    words = conclusion(effects(grid(size, 0)))
    assert words.startswith(f"FCA instead of ASPP: {shown} points. SF2 instead of GCI: +0.0 points.")
    assert (
        words.endswith("One seed: a second training may turn these signs, so no claim about the modules.")
        and "nan" not in words
    )
    words = conclusion(effects(grid(size, 0), draws=resampled(pixels(size))))
    assert f"FCA instead of ASPP: {shown} points, 95 % interval over images " in words
    assert (
        words.endswith("One seed: a second training may turn these signs, so no claim about the modules.")
        and "over seeds" not in words
    )


def test_several_seeds_show_both_intervals():
    table = grid(3, 0, seeds=6, noise=0.4)
    both = effects(table, draws=resampled(pixels(3, 6)))
    words, row = conclusion(both), both.iloc[0]
    assert (
        f"over seeds {row.low:+.1f} to {row.high:+.1f}, 95 % interval over images {row.images_low:+.1f}"
        in words
    )
    assert "6 seeds" in words and "One seed" not in words and words.count("over images") == 3
    assert "over images" not in conclusion(effects(table))


def test_the_intervals_tell_gains_from_none():
    """True effects lie outside 0, absent ones do not; nor does a gain that single seeds or images make."""
    for size in (3, 0, -3):
        row = effects(grid(size, 0, seeds=6, noise=0.4), draws=resampled(pixels(size, 6))).iloc[0]
        assert (min(row.low, row.images_low) > 0) == (size > 0)
        assert (max(row.high, row.images_high) < 0) == (size < 0)
    table = grid(3, 0, seeds=3)
    table["mean_iou"] += 0.06 * (table.seed - 1) * (table.context == "fca")  # gains of -3, 3 and 9 points
    row = effects(table).iloc[0]
    assert row.points == pytest.approx(3) and row.low < 0
    counts = pixels(0, 6)
    for name in counts:
        counts[name][0, [0, 2]] += 9000 * (name[0] == "fca")  # all of the gain comes from one image
    row = effects(grid(3, 0, seeds=6, noise=0.4), draws=resampled(counts)).iloc[0]
    assert row.low > 0 and row.images_low < 0


def test_differences_are_paired_by_seed():
    rows = [
        ("base", 0, 0.40),
        ("base", 1, 0.50),
        ("base", 2, 0.45),
        ("less", 0, 0.38),
        ("less", 1, 0.48),
        ("new", 0, 0.41),
    ]
    table = pd.DataFrame(rows, columns=["variant", "seed", "mean_iou"])
    found = differences(table, "base").set_index("variant")
    assert found.points.to_dict() == pytest.approx({"base": 0, "less": -2, "new": 1}) and found.mIoU[
        "less"
    ] == pytest.approx(43)
    assert found.low["less"] == pytest.approx(-2) and found.seeds.to_dict() == {
        "base": 3,
        "less": 2,
        "new": 1,
    }
    assert np.isnan(found.low["new"])
    draws = {(name, seed): np.linspace(iou, iou + 0.1 * (name == "new"), 101) for name, seed, iou in rows}
    drawn = differences(table, "base", draws).set_index("variant").loc["new"]
    assert (drawn.images_low, drawn.images_high) == (pytest.approx(1 + 0.25), pytest.approx(1 + 9.75))


def test_spread_is_mean_and_sample_deviation_in_per_cent():
    table = pd.DataFrame(
        {
            "variant": ["b", "b", "b", "a"],
            "x": [0.1, 0.2, 0.6, 0.5],
            "y": [0.1, np.nan, 0.3, np.nan],
            "z": [0.25, np.nan, np.nan, 1],
        }
    )
    shown = spread(table, ["x", "y", "z"])
    assert [*shown.index] == ["b", "a"], "in the order of the table"
    assert shown.loc["b"].to_dict() == {"x": "30.0 ± 26.5", "y": "20.0 ± 14.1", "z": "25.0"}
    assert shown.loc["a", "x"] == "50.0" and shown.loc["a", "z"] == "100.0"
