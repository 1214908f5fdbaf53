"""Layers over an image: each step from image to segmentation as an array or a colour.

Pure functions of an inspection and a state. A state names the chosen class in `target`, the `layer` that is
shown, another one `over` it or NOTHING, and the values that maps and pseudo labels depend on.
"""

from collections.abc import Callable
from contextlib import suppress

import numpy as np

from wsfcn_lib.data.classes import IGNORE
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.evaluation.errors import error_kinds as evaluated_kinds
from wsfcn_lib.explore import draw
from wsfcn_lib.explore.draw import Missing
from wsfcn_lib.explore.inspection import Inspection
from wsfcn_lib.losses import pseudo_labels
from wsfcn_lib.metrics import ConfusionMatrix
from wsfcn_lib.plots.overlays import heat

LAYERS = {  # from what the network sees to what it paints
    "cam": "activation map (CAM)",
    "pamr": "refined by PAMR",
    "mask": "softmax mask",
    "pseudo": "pseudo label",
    "label": "prediction",
    "crf": "prediction + CRF",
    "truth": "ground truth",
    "errors": "errors",
}
NOTHING = ""
MAPS, ALL = ("cam", "pamr", "mask"), "all predicted"


def chosen_classes(inspection: Inspection, state: dict) -> list[int]:
    """Class indices a state is about: the chosen one, or all predicted."""
    if state["target"] == ALL:
        return (np.flatnonzero(inspection.predicted) + 1).tolist()
    return [inspection.manifest.names.index(state["target"])]


def class_map(inspection: Inspection, layer: str, state: dict) -> np.ndarray:
    """The strongest of the chosen classes' maps, (H, W) in [0, 1]; labels count 1; zero without classes."""
    classes = chosen_classes(inspection, state)
    if layer not in MAPS:
        return np.isin(labels(inspection, layer, state), classes).astype(np.float32)
    if not classes:
        return np.zeros(inspection.rgb.shape[:2], np.float32)
    if layer == "mask":
        return inspection.masks[classes].max(0)
    maps = inspection.cams if layer == "cam" else inspection.refined[state["iterations"]]
    return inspection.at_image_size(maps[classes]).amax(0).clamp(0, 1).numpy()


def labels(inspection: Inspection, layer: str, state: dict) -> np.ndarray:
    """Labels (H, W) uint8 of a layer, 255 where there is none; Missing where the layer cannot be had."""
    if layer == "pseudo":
        present = np.flatnonzero(np.append(True, inspection.training_tags))
        maps = inspection.at_image_size(inspection.refined[state["iterations"]][present])
        cuts = state["foreground_cut"], state["background_cut"], state["floor"]
        claimed = pseudo_labels(maps[None], *cuts)[0].numpy()
        return np.where(claimed.any(0), present[claimed.argmax(0)], IGNORE).astype(np.uint8)
    if layer == "truth" and inspection.truth is None:
        raise Missing("no ground truth: this picture has no mask")
    try:
        return getattr(inspection, layer)
    except ImportError as error:
        raise Missing(f"no CRF: {error}") from error


def class_labels(inspection: Inspection, layer: str, state: dict) -> np.ndarray:
    """As `labels`, of the chosen class alone where one is chosen."""
    label = labels(inspection, layer, state)
    if state["target"] == ALL:
        return label
    return np.where(label == chosen_classes(inspection, state), label, 0).astype(np.uint8)


def with_crf(state: dict) -> bool:
    """Whether a state shows the prediction with CRF, so that errors and IoU are told of it."""
    return "crf" in (state["layer"], state["over"])


def prediction(inspection: Inspection, state: dict) -> np.ndarray:
    """The predicted labels, with CRF where that layer is shown and can be had."""
    if with_crf(state):
        with suppress(Missing):
            return labels(inspection, "crf", state)
    return inspection.label


def error_kinds(label: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Errors by pixel, (H, W) uint8: 0 right or not judged; as in draw.ERRORS 1 missed, 2 invented, 3 confused."""
    kinds = evaluated_kinds(label, truth)
    return np.where(kinds == IGNORE, 0, kinds)


def errors(inspection: Inspection, state: dict) -> np.ndarray:
    """Kinds of errors of the prediction, with CRF where that layer is shown; of the chosen class alone."""
    truth = labels(inspection, "truth", state)
    label = labels(inspection, "crf" if with_crf(state) else "label", state)
    kinds = error_kinds(label, truth)
    if state["target"] != ALL:
        target = chosen_classes(inspection, state)
        kinds[(label != target) & (truth != target)] = 0
    return kinds


def class_legend(label: np.ndarray, manifest: Manifest, ignored: str = "left open") -> dict[str, tuple]:
    """The classes among labels with their colours, background left out; `ignored`: what 255 is called."""
    names = dict(enumerate(manifest.names)) | {IGNORE: ignored}
    return {names[index]: tuple(manifest.shades[index]) for index in np.unique(label) if index}


def layered(inspection: Inspection, state: dict) -> tuple[np.ndarray, dict[str, tuple], list[str]]:
    """The image under the layer that is shown and the one over it, a legend, and sentences on what is missing."""
    enlarge = draw.fitted(inspection.rgb.shape, shrink=True)
    picture, legend, notes = enlarge(inspection.rgb), {}, []
    classes = chosen_classes(inspection, state)
    if not classes:
        notes.append(
            f"no class scores above {inspection.score_cut:g}, so nothing is predicted; choose a class to see its map"
        )
    elif not inspection.predicted[classes[0] - 1]:
        score = f"{state['target']} scores {inspection.probabilities[classes[0] - 1]:.2f}, not above {inspection.score_cut:g}"
        notes.append(f"{score}: it has maps, but no prediction")
    for layer in dict.fromkeys((state["layer"], state["over"])):
        if layer == NOTHING:
            continue
        try:
            picture, entries = _laid_over(picture, enlarge, inspection, layer, state)
            legend |= entries
        except Missing as error:
            if str(error) not in notes:
                notes.append(str(error))
    return picture, legend, notes


def _laid_over(
    picture: np.ndarray, enlarge: Callable, inspection: Inspection, layer: str, state: dict
) -> tuple[np.ndarray, dict[str, tuple]]:
    """A picture under one layer, and the layer's legend; Missing where the layer cannot be had."""
    manifest, opacity = inspection.manifest, state["opacity"]
    if layer in MAPS:
        strengths = enlarge(class_map(inspection, layer, state))
        return heat(picture, strengths.clip(0, 1), opacity), heat_legend(opacity)
    if layer == "errors":
        return draw.striped(picture, enlarge(errors(inspection, state))), draw.ERRORS
    label = class_labels(inspection, layer, state)
    ignored = "teaches nothing" if layer == "pseudo" else "left open"
    shown = enlarge(label)
    painted = draw.tint(picture, shown, manifest.shades, opacity)
    names = {index: name for index, name in enumerate(manifest.names) if index}
    return draw.named(painted, shown, names), class_legend(label, manifest, ignored)


def heat_legend(opacity: float) -> dict[str, tuple]:
    """What values of a map look like on a grey ground."""
    grey = draw.blank(1, 1, draw.GROUND)
    return {
        f"map {value:g}": tuple(heat(grey, np.full((1, 1), value), opacity)[0, 0]) for value in (0, 0.5, 1)
    }


def changed(inspection: Inspection, state: dict) -> tuple[np.ndarray, dict[str, tuple], str]:
    """What changed from the layer `since` to the one shown: picture, legend, and how much as a sentence."""
    pair, manifest = (state["since"], state["layer"]), inspection.manifest
    if "errors" in pair:
        raise Missing("errors are no step of the way to the mask: choose another layer to compare")
    title = " → ".join(LAYERS[layer] for layer in pair)
    enlarge = draw.fitted(inspection.rgb.shape, shrink=True)
    pale = enlarge(draw.grey(inspection.rgb)) // 2 + 110
    if pair[0] in MAPS or pair[1] in MAPS:
        old, new = (class_map(inspection, layer, state) for layer in pair)
        names = ", ".join(manifest.names[c] for c in chosen_classes(inspection, state)) or "no class"
        text = f"{title}, {names}: mean {old.mean():.2f} → {new.mean():.2f}"
        return draw.gains(pale, enlarge(new - old)), {"lost": draw.LOST, "gained": draw.GAINED}, text
    old, new = (class_labels(inspection, layer, state) for layer in pair)
    moved = old != new
    if "truth" in pair:  # what truth leaves open is no change
        moved &= (old != IGNORE) & (new != IGNORE)
    palette, to_background = manifest.shades.copy(), IGNORE - 1  # an index that no class has
    palette[to_background] = draw.INK
    names = dict(enumerate(manifest.names)) | {to_background: "background", IGNORE: "nothing"}
    shown = np.where(new == 0, to_background, new) * moved
    legend = {f"now {names[index]}": tuple(palette[index]) for index in np.unique(shown) if index}
    if state["target"] != ALL:
        title += f", {state['target']}"
    text = f"{title}: {100 * moved.mean():.1f} % of the pixels changed"
    return draw.tint(pale, enlarge(shown), palette, 0.85), legend, text


def class_iou(label: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """IoU per class of one image, (K,), NaN where a class is in neither."""
    matrix = ConfusionMatrix(classes)
    matrix.update(label, truth)
    return matrix.iou()


def cross_hair(state: dict, picture: np.ndarray) -> tuple[int, int]:
    """The row and column of a picture (H, W, 3) that the cross-hair points at."""
    height, width = picture.shape[:2]
    return round(state["down"] / 100 * (height - 1)), round(state["across"] / 100 * (width - 1))


def reading(inspection: Inspection, state: dict) -> str:
    """What stands at the cross-hair: class, score, IoU."""
    place, names = cross_hair(state, inspection.rgb), inspection.manifest.names
    label, truth = prediction(inspection, state), inspection.truth
    here, masks = int(label[place]), inspection.masks[:, *place]
    asked = here or int(masks[1:].argmax()) + 1
    if state["target"] != ALL:
        asked = names.index(state["target"])
    scores = f"has mask {masks[asked]:.2f} here and score {inspection.probabilities[asked - 1]:.2f}"
    parts = [f"at the cross: {names[here]}", f"{names[asked]} {scores}"]
    if truth is not None:
        true = "left open" if truth[place] == IGNORE else names[truth[place]]
        parts.insert(1, f"in truth {true}")
        parts.append(f"IoU of {names[here]} {class_iou(label, truth, len(names))[here]:.2f}")
    return " · ".join(parts)
