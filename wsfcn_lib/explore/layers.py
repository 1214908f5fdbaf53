"""Layers over an image: each step from image to segmentation as an array or a colour.

Pure functions of an inspection and a state. A state names the chosen class in `target`, the layers that are
on, and the values that maps and pseudo labels depend on.
"""

from contextlib import suppress

import numpy as np

from wsfcn_lib.data.classes import IGNORE
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.explore import draw
from wsfcn_lib.explore.draw import Missing
from wsfcn_lib.explore.inspection import Inspection
from wsfcn_lib.losses import pseudo_labels
from wsfcn_lib.metrics import ConfusionMatrix
from wsfcn_lib.plots.overlays import heat

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
HEAT_LEGEND = {
    f"map {value:g}": tuple(heat(draw.blank(1, 1), np.full((1, 1), value), 1)[0, 0]) for value in (0, 0.5, 1)
}


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


def prediction(inspection: Inspection, state: dict) -> np.ndarray:
    """The predicted labels, with CRF where that layer is on and can be had."""
    if state["crf"]:
        with suppress(Missing):
            return labels(inspection, "crf", state)
    return inspection.label


def error_kinds(label: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Errors by pixel, (H, W): 0 right or left open; as in draw.ERRORS 1 missed, 2 invented, 3 confused."""
    right = (label == truth) | (truth == IGNORE)
    return np.select([right, label == 0, truth == 0], [0, 1, 2], 3)


def errors(inspection: Inspection, state: dict) -> np.ndarray:
    """Kinds of errors of the prediction, with CRF where that layer is on; of the chosen class alone."""
    truth = labels(inspection, "truth", state)
    label = labels(inspection, "crf" if state["crf"] else "label", state)
    kinds = error_kinds(label, truth)
    if state["target"] != ALL:
        target = chosen_classes(inspection, state)
        kinds[(label != target) & (truth != target)] = 0
    return kinds


def class_legend(label: np.ndarray, manifest: Manifest, ignored: str = "left open") -> dict[str, tuple]:
    """The classes among labels with their colours, background left out; `ignored`: what 255 is called."""
    names = dict(enumerate(manifest.names)) | {IGNORE: ignored}
    return {names[index]: tuple(manifest.palette[index]) for index in np.unique(label) if index}


def layered(inspection: Inspection, state: dict) -> tuple[np.ndarray, dict[str, tuple], list[str]]:
    """The image under all layers that are on, its legend, and sentences on what is missing."""
    enlarge, manifest = draw.fitted(inspection.rgb.shape), inspection.manifest
    picture, legend, notes = enlarge(inspection.rgb), {}, []
    classes, target = chosen_classes(inspection, state), state["target"]
    if not classes:
        notes.append(
            f"no class scores above {inspection.score_cut:g}: nothing is predicted; choose a class to see its map"
        )
    elif not inspection.predicted[classes[0] - 1]:
        score = f"{target} scores {inspection.probabilities[classes[0] - 1]:.2f}, not above {inspection.score_cut:g}"
        notes.append(f"{score}: it has maps, but no prediction")
    for layer in LAYERS:
        if not state[layer]:
            continue
        opacity = state[f"{layer}_opacity"]
        try:
            if layer in MAPS:
                picture = heat(picture, enlarge(class_map(inspection, layer, state)), opacity)
                legend |= HEAT_LEGEND
            elif layer == "errors":
                picture = draw.striped(picture, enlarge(errors(inspection, state)), opacity)
                legend |= draw.ERRORS
            else:
                label = class_labels(inspection, layer, state)
                picture = draw.tint(picture, enlarge(label), manifest.palette, opacity)
                ignored = "teaches nothing" if layer == "pseudo" else "left open"
                legend |= class_legend(label, manifest, ignored)
        except Missing as error:
            if str(error) not in notes:
                notes.append(str(error))
    return picture, legend, notes


def changed(inspection: Inspection, state: dict) -> tuple[np.ndarray, dict[str, tuple], str]:
    """What differs between the layers `before` and `after`: picture, legend, and how much as a sentence."""
    pair, manifest = (state["before"], state["after"]), inspection.manifest
    title = " → ".join(LAYERS[layer][0] for layer in pair)
    enlarge = draw.fitted(inspection.rgb.shape)
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
    palette, to_background = manifest.palette.copy(), IGNORE - 1  # an index that no class has
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
