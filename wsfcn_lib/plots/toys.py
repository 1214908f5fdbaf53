"""Small pictures that explain a step of the method on a handful of pixels."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from wsfcn_lib.plots.style import BESIDE_TITLE, BLUE, COLOURS, GREY, ORANGE, styled


@styled
def refined(shade: np.ndarray, steps: Mapping[int, np.ndarray]) -> Figure:
    """A row of grey pixels (N,) in [0, 1], and over it a map (N,) after each number of PAMR's iterations."""
    figure = Figure((9, 2.9), layout="constrained")
    axis = figure.subplots()
    count = len(shade)
    extent = (-0.5, count - 0.5, 0, 1)
    axis.imshow(np.asarray(shade)[None], cmap="gray", vmin=-0.8, vmax=1.0, extent=extent, aspect="auto")
    for number, (iterations, values) in enumerate(steps.items()):
        style = {"color": COLOURS[number % len(COLOURS)], "lw": 2.5, "marker": "o", "ms": 4}
        label = "before" if iterations == 0 else f"after {iterations}"
        axis.plot(range(count), values, label=label, **style)
    axis.set(title="PAMR on a row of pixels", xlabel="pixel, in its shade", ylabel="map", ylim=(0, 1))
    axis.set_xticks(range(count), range(1, count + 1))
    axis.grid(False)
    axis.legend(**BESIDE_TITLE, ncols=len(steps))
    return figure


@styled
def claims(
    background: Sequence[float], foreground: Sequence[float], cuts: tuple[float, float], words: Sequence[str]
) -> Figure:
    """The maps of background and one class on a row of pixels, their cuts, and the label of each pixel below."""
    figure = Figure((9, 2.9), layout="constrained")
    axis = figure.subplots()
    places = np.arange(len(words))
    for values, cut, shift, colour, name in (
        (background, cuts[0], -0.2, GREY, "background"),
        (foreground, cuts[1], 0.2, ORANGE, "cat"),
    ):
        passes = np.array(values) > cut
        axis.bar(
            places[passes] + shift,
            np.array(values)[passes],
            0.36,
            color=colour,
            label=f"{name}, above its cut",
        )
        axis.bar(places[~passes] + shift, np.array(values)[~passes], 0.36, color="white", edgecolor=colour)
        axis.axhline(cut, color=colour, lw=1.2, ls=(0, (4, 3)))
        axis.text(places[-1] + 0.62, cut, f"cut {cut:.2f}", color=colour, va="center", fontsize=9)
    axis.set_xticks(places, [f"pixel {place + 1}\n{word}" for place, word in zip(places, words)])
    for tick, word in zip(axis.get_xticklabels(), words):
        tick.set_color(BLUE if word == "none" else "black")
    axis.set(title="Who claims a pixel", ylabel="map", ylim=(0, 1.05), xlim=(-0.6, places[-1] + 0.6))
    axis.grid(False)
    axis.legend(**BESIDE_TITLE, ncols=2)
    return figure
