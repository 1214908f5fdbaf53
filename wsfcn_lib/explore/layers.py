"""Layers over a picture: each step from image to segmentation as an array or a colour. Pure functions of a look and a state."""

import numpy as np

from wsfcn_lib.explore import draw
from wsfcn_lib.explore.inspection import Inspection
from wsfcn_lib.infer import SCORE_CUT
from wsfcn_lib.losses import pseudo_labels
from wsfcn_lib.metrics import ConfusionMatrix

# the layers, from the lowest up: name, and how opaque each is at first
LAYERS = {
    "cam": ("activation map (CAM)", 0.6),
    "pamr": ("refined by PAMR", 0.6),
    "mask": ("softmax mask", 0.6),
    "pseudo": ("pseudo label", 0.6),
    "label": ("prediction", 0.6),
    "crf": ("prediction + CRF", 0.6),
    "truth": ("ground truth", 0.6),
    "errors": ("errors", 1.0),
}
MAPS, ALL = ("cam", "pamr", "mask"), "all predicted"
HEIGHT, WIDTH = 375, 500  # pixels; a picture that is smaller is enlarged until it fills one side


class Missing(Exception):
    """A layer that this picture cannot have; the words say why."""


def classes_of(look: Inspection, state: dict, names: tuple[str, ...]) -> list[int]:
    """Class indices a state is about: the chosen one, or all predicted."""
    return (
        [names.index(state["target"])]
        if state["target"] != ALL
        else (np.flatnonzero(look.predicted) + 1).tolist()
    )


def map_of(look: Inspection, layer: str, state: dict, classes: list[int]) -> np.ndarray:
    """The strongest of the classes' maps, (H, W) in [0, 1]; zero without classes."""
    if not classes:
        return np.zeros(look.rgb.shape[:2], np.float32)
    if layer == "mask":
        return look.masks[classes].max(0)
    return (
        look.large((look.cams if layer == "cam" else look.steps[state["iterations"]])[classes])
        .amax(0)
        .clamp(0, 1)
        .numpy()
    )


def label_of(look: Inspection, layer: str, state: dict) -> np.ndarray:
    """Labels (H, W) uint8 of a layer, 255 where there is none; Missing where the layer cannot be had."""
    if layer == "pseudo":
        present = np.flatnonzero(np.append(True, look.taught))
        cuts = state["foreground_cut"], state["background_cut"], state["floor"]
        claimed = pseudo_labels(look.large(look.steps[state["iterations"]][present])[None], *cuts)[0].numpy()
        return np.where(claimed.any(0), present[claimed.argmax(0)], 255).astype(np.uint8)
    if layer == "truth" and look.truth is None:
        raise Missing("no ground truth: this picture has no mask")
    try:
        return {"label": lambda: look.label, "crf": lambda: look.crf, "truth": lambda: look.truth}[layer]()
    except ImportError as error:
        raise Missing(f"no CRF: {error}") from error


def kinds_of(label: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Errors by pixel, (H, W): 0 right or left open, then in the order of draw.ERRORS 1 missed, 2 invented, 3 confused."""
    kind = np.where(label == truth, 0, np.where(label == 0, 1, np.where(truth == 0, 2, 3)))
    return np.where(truth == 255, 0, kind)


def errors_of(look: Inspection, state: dict) -> tuple[np.ndarray, np.ndarray]:
    """The prediction, with CRF where that layer is on, and the kinds of its errors."""
    truth, label = label_of(look, "truth", state), label_of(look, "crf" if state["crf"] else "label", state)
    return label, kinds_of(label, truth)


def tint(picture: np.ndarray, label: np.ndarray, palette: np.ndarray, opacity: float) -> np.ndarray:
    """Class colours with outlines; background stays as photographed."""
    painted = draw.blend(picture, palette[label], opacity * (label != 0)[..., None])
    return draw.outline(painted, label, opacity)


def layered(
    look: Inspection, state: dict, names: tuple[str, ...], palette: np.ndarray
) -> tuple[np.ndarray, dict, list[str]]:
    """The picture under all layers that are on, its legend, and what is missing, in words."""
    large, classes, missing = draw.fitted(look.rgb.shape, HEIGHT, WIDTH), classes_of(look, state, names), []
    picture, entries = large(look.rgb), {}
    if not classes:
        missing.append(
            f"no class scores above {SCORE_CUT}: nothing is predicted; choose a class to see its map"
        )
    elif state["target"] != ALL and not look.predicted[classes[0] - 1]:
        score = look.chances[classes[0] - 1]
        missing.append(
            f"{state['target']} scores {score:.2f}, not above {SCORE_CUT}: it has maps, but no prediction"
        )
    for layer in (name for name in LAYERS if state[name]):
        opacity = state[f"{layer}_opacity"]
        try:
            if layer in MAPS:
                picture = draw.warm(picture, large(map_of(look, layer, state, classes)), opacity)
                entries |= draw.RAMP
                continue
            label, kind = (
                errors_of(look, state) if layer == "errors" else (label_of(look, layer, state), None)
            )
            if state["target"] != ALL:
                kind = (
                    None
                    if kind is None
                    else np.where((label == classes[0]) | (look.truth == classes[0]), kind, 0)
                )
                label = np.where(label == classes[0], label, 0)
            if layer != "errors":
                entries |= {names[c]: tuple(palette[c]) for c in np.unique(label) if 0 < c < 255}
                open_ = "left open" if layer == "truth" else "teaches nothing"
                entries |= {open_: tuple(palette[255])} if (label == 255).any() else {}
                picture = tint(picture, large(label), palette, opacity)
                continue
            picture, entries = draw.striped(picture, large(kind), opacity), entries | draw.ERRORS
        except Missing as error:
            missing.append(str(error))
    return picture, entries, list(dict.fromkeys(missing))


def changed(
    look: Inspection, state: dict, names: tuple[str, ...], palette: np.ndarray
) -> tuple[np.ndarray, dict, str]:
    """What differs between the layers `before` and `after`, on grey: the picture, its legend, and how much in words."""
    large, classes, pair = (
        draw.fitted(look.rgb.shape, HEIGHT, WIDTH),
        classes_of(look, state, names),
        (state["before"], state["after"]),
    )
    grey = large(draw.blend(look.rgb, look.rgb.mean(2, keepdims=True), 1.0)) // 2 + 110
    told = " → ".join(LAYERS[layer][0] for layer in pair)
    if not set(pair) & set(MAPS):
        old, new = (label_of(look, layer, state) for layer in pair)
        if state["target"] != ALL:
            old, new = (np.where(label == classes[0], label, 0).astype(np.uint8) for label in (old, new))
            told += f", {state['target']}"
        moved = (old != new) & (
            (old != 255) & (new != 255) | ("truth" not in pair)
        )  # what truth leaves open is no change
        shown = np.where(moved, np.where(new == 0, len(palette) - 2, new), 0)
        colours = palette.copy()
        colours[len(palette) - 2] = draw.INK  # what became background
        entries = {f"now {names[c]}": tuple(palette[c]) for c in np.unique(new[moved]) if 0 < c < 255}
        entries |= {"now background": draw.INK} if (new[moved] == 0).any() else {}
        entries |= {"now nothing": tuple(palette[255])} if (new[moved] == 255).any() else {}
        return (
            tint(grey, large(shown), colours, 0.85),
            entries,
            f"{told}: {100 * moved.mean():.1f} % of the pixels changed",
        )
    old, new = (
        map_of(look, layer, state, classes)
        if layer in MAPS
        else np.isin(label_of(look, layer, state), classes).astype(np.float32)
        for layer in pair
    )
    entries, about = (
        {"lost": draw.ERRORS["missed"][0], "gained": draw.GAINED},
        ", ".join(names[c] for c in classes) or "no class",
    )
    return (
        draw.gains(grey, large(new - old)),
        entries,
        f"{told}, {about}: mean {old.mean():.2f} → {new.mean():.2f}",
    )


def iou_of(label: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """IoU per class of one picture, (K,), NaN where a class is in neither."""
    single = ConfusionMatrix(classes)
    single.update(label, truth)
    return single.iou()


def reading(look: Inspection, state: dict, names: tuple[str, ...]) -> str:
    """What stands at the cross-hair: class, score, IoU."""
    y, x = (round(state[key] / 100 * (side - 1)) for key, side in zip(("down", "across"), look.rgb.shape))
    try:
        label = label_of(look, "crf" if state["crf"] else "label", state)
    except Missing:
        label = look.label
    here = int(label[y, x])
    asked = (
        names.index(state["target"])
        if state["target"] != ALL
        else here or int(look.masks[1:, y, x].argmax()) + 1
    )
    words = [f"at the cross: {names[here]}"]
    if look.truth is not None:
        true = int(look.truth[y, x])
        words.append(f"in truth {'left open' if true == 255 else names[true]}")
    words.append(
        f"{names[asked]} has mask {look.masks[asked, y, x]:.2f} here and score {look.chances[asked - 1]:.2f}"
    )
    if look.truth is not None:
        iou = iou_of(label, look.truth, len(names))[here]
        words.append(f"IoU of {names[here]} {iou:.2f}")
    return " · ".join(words)
