"""The eight published segmentation networks, four CAM baselines, end to end (1e-3 of the largest value)."""

import gc

import pytest
import torch
from torch.nn.functional import interpolate

from published import BACKBONES, fixture, published_network, published_state, relative_error
from wsfcn_lib.losses import mask_loss, pseudo_labels
from wsfcn_lib.pamr import pamr
from wsfcn_lib.weights import published_names

FILES = {
    "wsfcn": ("networks", "state_dicts", "ae"),
    "1stage": ("networks_1stage", "state_dicts_1stage", "ae"),
}
FILES["cam"] = ("networks", "state_dicts", "bsl")


@pytest.fixture(scope="module", params=[(b, kind) for b in BACKBONES for kind in FILES], ids="-".join)
def case(request):
    backbone, kind = request.param
    yield published_network(backbone, kind), backbone, kind
    gc.collect()


def expected(backbone, kind):
    file, _, suffix = FILES[kind]
    prefix = f"{backbone}/{suffix}/"
    return {k.removeprefix(prefix): v for k, v in fixture(file).items() if k.startswith(prefix)}


def at_image_size(masks, size):
    return interpolate(masks, size, mode="bilinear", align_corners=True)


def zero_absent(masks, tags):
    present = torch.cat((torch.ones_like(tags[:, :1]), tags), 1)
    return masks * present[:, :, None, None]


@torch.no_grad()
def test_network(case):
    net, backbone, kind = case
    data, inputs = expected(backbone, kind), fixture(FILES[kind][0])
    out = net(inputs["image"])
    masks = at_image_size(out.masks, inputs["image"].shape[-2:])
    assert relative_error(out.scores, data["cls"]) < 1e-3
    assert relative_error(masks[:, :, ::4, ::4], data["masks_s4"]) < 1e-3
    assert relative_error(masks.mean((2, 3)), data["masks_mean"]) < 1e-3
    if kind != "cam":
        check_training_path(net, out, inputs, data)


def check_training_path(net, out, inputs, data):
    """PAMR, pseudo labels, mask loss as in training; then with shifted logits, so that labels exist."""
    refined = refine(out, inputs, inputs["labels"])
    assert relative_error(refined[:, :, ::4, ::4], data["dec_s4"]) < 1e-3
    assert (pseudo_labels(refined).mean((2, 3)) - data["pseudo_gt_area"]).abs().max() < 1e-3
    if "shift_labels" in data:
        bias = net.head[-1].bias
        before = bias.clone()
        bias += data["shift"]
        out, tags = net(inputs["image"]), data["shift_labels"]
        bias.copy_(before)
        pseudo = pseudo_labels(refine(out, inputs, tags))
        assert (pseudo.mean((2, 3)) - data["shift_pseudo_area"]).abs().max() < 1e-3
        loss = mask_loss(out.logits, pseudo, tags)
        assert relative_error(loss, data["shift_loss_mask"]) < 1e-3 and loss.min() > 0


def refine(out, inputs, tags):
    """Refined masks at image size, absent classes zeroed."""
    raw = at_image_size(inputs["raw"], out.masks.shape[-2:])
    return zero_absent(at_image_size(pamr(raw, out.masks), inputs["raw"].shape[-2:]), tags)


def test_names_groups_and_frozen_layers(case):
    """Our parameters, by their published names, fall into the published groups, rates and frozen sets."""
    net, backbone, kind = case
    _, file, suffix = FILES[kind]
    reference = published_state(file)[f"{backbone}/{suffix}"]
    names = published_names(net)
    constants = {n for n in reference["state"] if n.endswith("kernel")} | {
        "cls_branch.2.weight",
        "mask_branch.0.weight",
    }
    assert set(names.values()) == set(reference["state"]) - constants
    assert {names[k]: list(v.shape) for k, v in net.state_dict().items()} == {
        n: s for n, s in reference["state"].items() if n not in constants
    }
    parameters = {id(p): names[n] for n, p in net.named_parameters()}
    groups = net.parameter_groups(lr=1e-3, weight_decay=5e-4)
    assert [{parameters[id(p)] for p in g["params"]} for g in groups] == [set(g) for g in reference["groups"]]
    assert [g["lr"] for g in groups] == pytest.approx(reference["lr"])
    assert [g["weight_decay"] for g in groups] == reference["wd"]
    assert {names[n] for n, p in net.named_parameters() if not p.requires_grad} == set(reference["frozen"])
    net.train()
    updating = {n for n, m in net.named_modules() if isinstance(m, torch.nn.BatchNorm2d) and m.training}
    probe = "running_mean"
    assert {names[f"{n}.{probe}"].removesuffix(f".{probe}") for n in updating} == set(reference["bn_train"])
    net.eval()
