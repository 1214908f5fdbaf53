"""What all explorers of images share: each control shows, an idle one cannot move, the list is in order."""

import pytest

from explored import decoded, differ, listed, moved
from wsfcn_lib.explore.browse import ANY, BEST, LISTED, WORST
from wsfcn_lib.explore.cams import CUTS, CamExplorer
from wsfcn_lib.explore.evaluated import KINDS, read_image_iou
from wsfcn_lib.explore.masks import DIFFERENCE, FOUR, RECUT, MaskExplorer
from wsfcn_lib.explore.runs import RunComparison


@pytest.fixture(scope="module")
def explorers(evaluated, better):
    run, manifest = evaluated
    return {
        "cams": CamExplorer(str(run), "val", scales=(1.0, 1.5)),
        "masks": MaskExplorer(str(run), manifest, "val", scales=(1.0,), flip=False),
        "runs": RunComparison(run, better, manifest),
    }


@pytest.fixture(params=["cams", "masks", "runs"])
def explorer(explorers, request):
    """Each test finds an explorer as it was at the beginning."""
    explorer = explorers[request.param]
    before = explorer.state
    yield explorer
    explorer.set(**{key: before[key] for key in ("run", "only", "order") if key in before})
    explorer.set(**before)


# a state in which a control is heeded
NEEDS = {
    "cams": {
        "over": {"layer": "label"},
        "since": {"layer": "pamr"},
        "iterations": {"layer": "pamr"},
    }
    | {cut: {"layer": "pseudo", "floor": 0.0} for cut in CUTS}
    | {"view": {"layer": "mask"}, "only": {"image": "b"}}
    | {key: {} for key in ("order", "image", "target", "layer", "opacity", "across", "down")},
    "masks": {
        "pair": {"show": DIFFERENCE},
        "score_cut": {"show": RECUT, "background": 0.05},
        "background": {"show": RECUT},
        "only": {"image": "b"},
        "order": {"order": WORST, "image": "b"},
    }
    | {key: {} for key in ("image", "show", "opacity")},
    "runs": {"order": {"order": BEST}, "only": {"image": "b"}}
    | {key: {} for key in ("image", "show", "opacity")},
}
CONTROLS = [(name, key) for name, needs in NEEDS.items() for key in needs]


@pytest.mark.parametrize(
    "explorer, key", CONTROLS, indirect=["explorer"], ids=["-".join(pair) for pair in CONTROLS]
)
def test_every_control_changes_the_picture(explorer, key, request):
    explorer.set(**{"order": LISTED, "image": "c"} | NEEDS[request.node.callspec.params["explorer"]][key])
    before = explorer.picture
    assert not explorer.controls[key].disabled
    explorer.controls[key].value = moved(explorer.controls[key])
    assert explorer.error is None, explorer.error
    assert differ(before, explorer.picture)
    assert (decoded(explorer) == explorer.render(explorer.state)).all()


IDLE = [("cams", {"layer": layer}) for layer in ("cam", "label", "errors")]
IDLE += [("cams", {"layer": "label", "since": "cam"}), ("cams", {"layer": "pamr", "over": "errors"})]
IDLE += [("masks", {"show": show}) for show in (FOUR, *KINDS, DIFFERENCE, RECUT)]


@pytest.mark.parametrize("explorer, state", IDLE, indirect=["explorer"])
def test_a_control_that_changes_nothing_cannot_be_moved(explorer, state):
    explorer.set(**{"order": LISTED, "image": "c"} | state)
    before, controls = explorer.picture, explorer.controls
    idle = [key for key, control in controls.items() if control.disabled]
    explorer.set(**{key: moved(controls[key]) for key in idle})
    assert idle and not differ(before, explorer.picture)


def test_a_class_filters_the_list_and_buttons_go_round(explorer):
    explorer.set(order=LISTED, only="dog")
    assert listed(explorer) == ["b", "c"]
    explorer.set(image="b")
    explorer.previous.click()
    assert explorer.state["image"] == "c"
    explorer.next.click()
    assert explorer.state["image"] == "b"
    explorer.set(only=ANY)
    assert listed(explorer) == list("abcde")


@pytest.mark.parametrize("order", [WORST, BEST])
def test_the_list_is_sorted_by_the_runs_scores(explorer, evaluated, better, order):
    scores = read_image_iou(str(evaluated[0]), "val")
    assert scores.keys() == set("abcde")
    if isinstance(explorer, RunComparison):
        other = read_image_iou(str(better), "val")
        scores = {name: scores[name] - other[name] for name in scores}
    explorer.set(order=order)
    assert listed(explorer) == sorted(scores, key=scores.get, reverse=order == BEST)
    first = explorer.state["image"]
    assert first == listed(explorer)[0]
    assert explorer.controls["image"].options[0][0] == f"{first} · {explorer.SCORE.format(scores[first])}"


def test_a_state_is_always_drawn_the_same(explorer):
    explorer.set(order=LISTED, image="b")
    state, first = explorer.state, explorer.picture
    explorer.step(1)
    assert differ(first, explorer.picture) and (explorer.render(state) == first).all()


def test_an_image_beyond_the_list_joins_it(explorer, monkeypatch):
    monkeypatch.setattr("wsfcn_lib.explore.browse.MOST", 2)
    explorer.set(order=BEST)
    explorer.set(order=LISTED)
    assert listed(explorer) == ["a", "b"]
    assert "first 2 of 5 pictures" in explorer.left_out.value and explorer.left_out.layout.display is None
    explorer.set(only="dog")
    assert explorer.left_out.layout.display == "none", "the two of this class are all listed"
    explorer.set(only=ANY)
    explorer.set(image="d", opacity=0.1) if "opacity" in explorer.controls else explorer.set(image="d")
    assert explorer.state["image"] == "d" and explorer.error is None and not explorer.next.disabled
