"""The kit meets a GPU on any machine: tensors with shapes and a device but no values refuse to mix devices.

On fake CUDA tensors autograd cannot run without a driver. Its way back is followed on another fake device, whose
gradients PyTorch computes in the calling thread; there mixing is refused too, and there is no autocast.
"""

from contextlib import contextmanager, nullcontext
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from factories import CLASSES, folder_of
from wsfcn_lib import TrainConfig, losses, pamr, supervision, train
from wsfcn_lib.config import BACKBONES
from wsfcn_lib.data.training_set import TrainSet
from wsfcn_lib.evaluation.pseudo_label_quality import pseudo_label_quality
from wsfcn_lib.evaluation.scoring import EvalSettings, evaluate
from wsfcn_lib.infer import predict_masks
from wsfcn_lib.metrics import ConfusionMatrix
from wsfcn_lib.network import build_network

slow = pytest.mark.slow
PLAIN = ("vgg16", "resnet50", "resnet101")  # layers of PyTorch's alone
ALL = [
    pytest.param(name, marks=[slow] * (name in PLAIN)) for name in (*BACKBONES, "timm:tf_efficientnet_lite0")
]
GPU, WITH_AUTOGRAD = "cuda", "lazy:0"
MIXED = "same device|expected device|is not on the expected"
CROP = 65


@contextmanager
def fake_tensors():
    """Every tensor that is made within is a fake one; its device is checked, its values do not exist."""
    autocast, to_numpy = torch.autocast, torch.Tensor.numpy

    def numpy(tensor):
        if not isinstance(tensor, FakeTensor):
            return to_numpy(tensor)
        if tensor.device.type != "cpu":
            raise TypeError(f"can't convert {tensor.device} device type tensor to numpy")
        return np.zeros(tensor.shape, str(tensor.dtype).removeprefix("torch."))

    def known_autocast(device_type, *how, **more):
        return nullcontext() if device_type == "lazy" else autocast(device_type, *how, **more)

    mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
    pamr._neighbours.cache_clear()  # it keeps tensors, which belong to one mode or to none
    try:
        with (
            patch.object(torch.Tensor, "numpy", numpy),
            patch.object(torch, "autocast", known_autocast),
            patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False),
            patch.object(torch.cuda, "is_bf16_supported", lambda: True),
            torch.backends.cudnn.flags(enabled=False),  # which would ask the driver in grid_sample
            mode,
        ):
            yield
    finally:
        pamr._neighbours.cache_clear()


def network_on(device, config, num_classes=4):
    """A network as `build_network` makes it, its weights and buffers moved; whatever else it holds stays."""
    net = build_network(config.network(num_classes)).train()
    for module in net.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = nn.Parameter(weight.detach().to(device), weight.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = buffer.to(device)
    return net


def settings(backbone="tiny", **changes):
    small = {"width": 16, "dilations": (1, 2, 4, 6), "pamr_dilations": (1, 2), "batch_size": 2, "crop": CROP}
    return TrainConfig(backbone=backbone, **small | changes)


def batch_on(device):
    images = torch.randn(2, 3, CROP, CROP).to(device, memory_format=torch.channels_last)
    return images, torch.zeros(2, 3).to(device)


def forward(config, device=GPU):
    """Network and both losses, as `train_step` computes them; returns output, losses, and the last layer's type."""
    dtypes = []
    with fake_tensors():
        net = network_on(device, config)
        last = net.classifier if config.context == "none" else net.head[-1]
        last.register_forward_hook(lambda module, given, out: dtypes.append(out.dtype))
        images, tags = batch_on(device)
        with supervision.autocast(config, images.device):
            out = net(images)
        return out, supervision.training_losses(out, images, tags, config, with_masks=True), dtypes[0]


def whole_step(config, device=WITH_AUTOGRAD, backward=torch.Tensor.backward, truth=False):
    """The product's `train_step`; returns the network."""
    with fake_tensors():
        net = network_on(device, config)
        optimiser = train.build_optimiser(net, config)
        images, tags = batch_on(device)
        labels = torch.zeros(2, CROP, CROP, dtype=torch.uint8).to(device) if truth else None
        train.train_step(net, optimiser, images, tags, config, 1.0, True, lambda loss: backward(loss), labels)
        return net


def trained_on(net, device):
    """Whether each weight has its gradient on the device, but for norms that no forward pass calls."""
    weights = {name: weight for name, weight in net.named_parameters() if weight.requires_grad}
    without = {name for name, weight in weights.items() if weight.grad is None}
    there = all(str(weight.grad.device) == device for name, weight in weights.items() if name not in without)
    return there and all("unused_norm" in name for name in without)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("backbone", ALL)
def test_network_losses_and_pamr(backbone, precision):
    out, both, dtype = forward(settings(backbone, precision=precision))
    assert dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    assert {tensor.device.type for tensor in (*out, *both)} == {GPU}
    assert {tensor.dtype for tensor in (*out, *both)} == {torch.float32}
    assert out.masks.shape[:2] == (2, 4) and out.scores.shape == (2, 3)


MODULES = [
    {"context": "aspp", "fusion": "gci"},
    {"context": "none"},
    {"flow": "centred"},
    {"align": False, "channel_attention": False},
    {"deep_width": 32, "size_power": None},
]


@pytest.mark.parametrize("modules", MODULES, ids=str)
def test_other_modules(modules):
    for precision in ("fp32", "bf16"):
        out, both, _ = forward(settings(**modules, precision=precision))
        assert {tensor.device.type for tensor in (*out, *both)} == {GPU}
    if modules != {"context": "none"}:
        assert trained_on(whole_step(settings(**modules)), WITH_AUTOGRAD)


@pytest.mark.parametrize("backbone", ALL)
def test_the_way_back_and_the_update(backbone):
    assert trained_on(whole_step(settings(backbone, accumulate=2)), WITH_AUTOGRAD)


@pytest.mark.parametrize("optimiser", ["sgd", "adamw"])
@pytest.mark.parametrize("truth", [False, True], ids=["tags", "masks"])
def test_an_update_on_cuda(optimiser, truth):
    """All of a step but its gradients, which are zeros here."""
    config = settings(optimiser=optimiser, supervision="masks" if truth else "tags")

    def backward(loss):
        assert loss.device.type == GPU

    with patch.object(torch.optim.Optimizer, "zero_grad", set_zeros):
        net = whole_step(config, GPU, backward, truth)
    assert {weight.device.type for weight in net.parameters()} == {GPU}


def set_zeros(optimiser, set_to_none=True):
    for group in optimiser.param_groups:
        for weight in group["params"]:
            weight.grad = torch.zeros_like(weight)


def infer(config, bf16=False, canvas=None):
    image = np.zeros((40, 56, 3), np.uint8)
    with fake_tensors():
        net = network_on(GPU, config).eval()
        return predict_masks(net, image, (1.5,), canvas=canvas, bf16=bf16)


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("backbone", ALL)
def test_inference(backbone, bf16):
    masks, scores = infer(settings(backbone), bf16, canvas=None if bf16 else 96)
    assert masks.shape == (4, 40, 56) and scores.shape == (3,)
    matrix = ConfusionMatrix(4)
    matrix.update(masks.argmax(0).astype(np.uint8), np.zeros((40, 56), np.uint8))
    assert matrix.matrix.sum() == 40 * 56


class Batches(list):
    """What a loader gives, loaded before, so that images are real and numbers of images known."""

    def __init__(self, loader):
        super().__init__((images, tags, indices.tolist()) for images, tags, indices in loader)
        self.dataset = loader.dataset


def validated(tmp_path, config):
    data = TrainSet(folder_of(tmp_path, 3, range(3)), "test", config.crop, 0, augment=False)
    batches = Batches(torch.utils.data.DataLoader(data, 2))
    with fake_tensors(), patch.object(train, "require_finite", lambda *_: None):  # there are no values
        return train.validate(network_on(GPU, config), batches, config, 0, tmp_path)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_validation(tmp_path, precision):
    config = settings(precision=precision, warmup_epochs=0)
    loss, mean_ap = validated(tmp_path, config)
    assert isinstance(loss, torch.SymFloat), "a number without a value"
    assert np.isnan(mean_ap), "no image has a tag by these scores"


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_evaluation(tmp_path, bf16):
    manifest = folder_of(tmp_path, 3, range(3))
    asked = EvalSettings(images="test", scales=(1.0, 1.5), use_crf=False, bf16=bf16)
    with fake_tensors():
        net = network_on(GPU, settings()).eval()
        results = evaluate(net, manifest, asked, tmp_path / "run")
        quality = pseudo_label_quality(net, manifest, settings(), 2, 40)
    assert len(results.rows) == 3 and (tmp_path / "run/metrics.json").is_file()
    assert quality and len(CLASSES) == 3


def on_the_cpu(function):
    """The function without its argument `device`, as if it had been forgotten."""
    return lambda *inputs, device=None, **more: function(*inputs, **more)


class _GradientElsewhere(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.size = x.shape
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return torch.ones(ctx.size)


def elsewhere(function):
    return lambda scores, tags: function(_GradientElsewhere.apply(scores), tags)


FAULTS = {
    "the gate's draws": (torch, "rand", on_the_cpu, lambda: forward(settings())),
    "the regular grid": (torch, "linspace", on_the_cpu, lambda: forward(settings())),
    "a timm map's places": (
        torch,
        "linspace",
        on_the_cpu,
        lambda: forward(settings("timm:tf_efficientnet_lite0", fusion="gci")),
    ),
    "PAMR's neighbours": (torch, "arange", on_the_cpu, lambda: forward(settings())),
    "the classes of true labels": (
        torch,
        "arange",
        on_the_cpu,
        lambda: whole_step(settings(supervision="masks"), truth=True),
    ),
    "a gradient": (supervision, "classification_loss", elsewhere, lambda: whole_step(settings())),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_tensor_on_the_wrong_device_is_noticed(name, monkeypatch):
    owner, attribute, change, check = FAULTS[name]
    check()
    monkeypatch.setattr(owner, attribute, change(getattr(owner, attribute)))
    with pytest.raises(RuntimeError, match=MIXED):
        check()


def test_cuts_made_on_the_wrong_device_are_noticed(monkeypatch):
    original = losses.pseudo_labels
    monkeypatch.setattr(supervision, "pseudo_labels", lambda masks, *cuts: original(masks.cpu(), *cuts))
    with pytest.raises(RuntimeError, match=MIXED):
        forward(settings())


def test_a_result_left_on_the_gpu_is_noticed(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: tensor)
    with pytest.raises(TypeError, match="can't convert cuda"):
        infer(settings())


def test_a_view_left_on_the_cpu_is_noticed():
    with fake_tensors():
        net = network_on(GPU, settings()).eval()
        with pytest.raises(RuntimeError, match=MIXED):
            net(torch.zeros(1, 3, 64, 64))


def test_nothing_is_left_behind():
    """After fake tensors the same process computes with real ones, forth and back."""
    forward(settings())
    net = build_network(settings().network(4)).train()
    net(torch.randn(2, 3, CROP, CROP)).logits.sum().backward()
    assert net.head[-1].weight.grad.isfinite().all()
    refined = pamr.pamr(torch.rand(1, 3, 17, 17), torch.rand(1, 4, 17, 17), (1, 2))
    assert type(refined) is torch.Tensor and refined.isfinite().all()
