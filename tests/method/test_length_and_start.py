"""Trainings counted in steps, begun from trained networks, or told the true masks as a ceiling."""

import shutil
from collections import Counter

import numpy as np
import pytest
import torch

from factories import equal, settings, weights, without_times
from wsfcn_lib.checkpoints import facts_of, find_snapshot, load_snapshot, save_snapshot, snapshots
from wsfcn_lib.config import SUPERVISION, TrainConfig
from wsfcn_lib.data.files import DataError
from wsfcn_lib.data.images import read_mask
from wsfcn_lib.data.manifest import Manifest, write_manifest
from wsfcn_lib.data.model_zoo import WeightsError
from wsfcn_lib.data.training_set import MaskedTrainSet, TrainSet, repeated_batches
from wsfcn_lib.evaluation.inputs import load_trained
from wsfcn_lib.losses import mask_loss
from wsfcn_lib.network import build_network
from wsfcn_lib.supervision import labels_of_truth, training_losses
from wsfcn_lib.train import build_optimiser, epoch_starts, train, train_step, trainable_network
from wsfcn_lib.weights import inherited_protocol, start_from


def test_epochs_divide_the_steps():
    config = TrainConfig(steps=10, epochs=4, warmup_epochs=1)
    assert epoch_starts(config, images=3) == [0, 2, 5, 8, 10]
    assert epoch_starts(config.model_copy(update={"steps": 0}), images=40) == [0, 2, 4, 6, 8]
    with pytest.raises(ValueError, match="steps=3 is less than epochs=4"):
        TrainConfig(steps=3, epochs=4, warmup_epochs=1)


def test_a_repeated_list_brings_every_image_equally_often():
    batches = repeated_batches(length=5, batch_size=4, seed=3, count=5)
    assert [len(batch) for batch in batches] == [4] * 5
    items = [item for batch in batches for item in batch]
    assert Counter(index for _, index in items) == dict.fromkeys(range(5), 4)
    assert [number for number, _ in items] == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5
    orders = {tuple(index for number, index in items if number == k) for k in range(4)}
    assert len(orders) > 1, "each pass has an order of its own"
    assert batches == repeated_batches(5, 4, 3, 9)[:5], "a longer training begins the same"


def test_a_training_of_steps_goes_on_where_it_stopped(data, tmp_path):
    config = settings(data, steps=7, epochs=3, warmup_epochs=1, validate_every=1, log_every=1)
    whole = list(train(config, tmp_path / "whole"))
    assert [row["step"] for row in whole if "val_loss" in row] == [0, 2, 5, 7]
    assert [row["step"] for row in whole if row.get("mask_loss") == 0] == [1, 2], "the warm-up is two steps"
    rows = train(config, tmp_path / "run")
    for row in rows:
        if row["step"] == 3:
            (tmp_path / "run/stop").touch()
    list(train(config, tmp_path / "run"))
    assert equal(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    assert without_times(whole)[-1]["step"] == 7
    assert snapshots(tmp_path / "run/checkpoints")


@pytest.fixture
def snapshot(tmp_path):
    """Of a network that knows cat, dog and cow."""
    torch.manual_seed(0)
    net = build_network(settings("x").network(4))
    classes = [{"name": n, "mask_id": i, "colour": (i, 9, 9)} for i, n in enumerate(("cat", "dog", "cow"), 1)]
    return save_snapshot(net, tmp_path / "trained.safetensors", classes)


def test_a_trained_network_gives_all_but_what_its_classes_shape(snapshot, capsys):
    trained = load_snapshot(snapshot)[0].state_dict()
    torch.manual_seed(1)
    net = build_network(settings("x").network(4))
    fresh = {name: value.clone() for name, value in net.state_dict().items()}
    lines = start_from(net, str(snapshot), ["cow", "boat", "cat"])
    state = net.state_dict()
    last = [name for name in state if name.startswith(f"head.{len(net.head) - 1}")]
    assert len(last) == 2
    for name in state:
        if name not in last:
            assert torch.equal(state[name], trained[name])
    for name in last:
        assert torch.equal(state[name][0], trained[name][2]), "cow is found by its name, not by its place"
        assert torch.equal(state[name][2], trained[name][0])
        assert torch.equal(state[name][1], fresh[name][1])
    assert lines == [
        "starting from trained.safetensors, which knows cat, dog, cow",
        "the weights of the last layer begin anew for boat",
    ]


def test_another_number_of_classes_is_no_obstacle(snapshot):
    net = build_network(settings("x").network(3))
    assert start_from(net, str(snapshot), ["boat", "tree"])[-1].endswith("anew for boat, tree")


def test_settings_that_shape_nothing_may_differ_from_the_snapshots_and_are_said(snapshot):
    net = build_network(settings("x", dilations=(1, 2, 3, 4), gate_rate=0.2).network(4))
    line = start_from(net, str(snapshot), ["cat", "dog", "cow"])[-1]
    assert line.startswith("its settings were others: dilations (1, ") and line.endswith(
        ") there, (1, 2, 3, 4) here; gate_rate 0.3 there, 0.2 here"
    )


def test_the_snapshot_of_another_network_is_refused_by_what_differs(snapshot):
    net = build_network(settings("x", width=32, gate_rate=0.2).network(4))  # the latter shapes no weight
    with pytest.raises(
        WeightsError, match="another network .width 16 there, 32 here.; give these settings its"
    ):
        start_from(net, str(snapshot), ["cat", "dog", "cow"])
    net = build_network(settings("x", context="aspp", fusion="gci").network(4))
    with pytest.raises(WeightsError, match="context fca there, aspp here; fusion sf2 there, gci here"):
        start_from(net, str(snapshot), ["cat", "dog", "cow"])


def test_a_stranger_is_no_snapshot(tmp_path):
    (tmp_path / "odd.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(WeightsError):
        start_from(build_network(settings("x").network(4)), str(tmp_path / "odd.safetensors"), ["cat"] * 3)


def test_a_training_begins_from_a_snapshot_and_says_so(data, tmp_path, capsys):
    first, second = tmp_path / "first", tmp_path / "second"
    list(train(settings(data, epochs=1), first))
    trained = first / "checkpoints/last.safetensors"
    rows = list(train(settings(data, epochs=1, initial_weights=str(trained), lr=1e-6), second))
    assert "starting from last.safetensors" in capsys.readouterr().out
    a, b = weights(first), weights(second)
    assert all(
        (a[name] - b[name]).abs().max() < 1e-3
        for name in a
        if a[name].is_floating_point() and "running" not in name
    )
    assert rows[0]["step"] == 0, "a training of its own, not the first one's end"


def test_a_training_inherits_how_the_snapshot_it_starts_from_is_evaluated(data, tmp_path):
    names = Manifest.load(data).names[1:]
    classes = [{"name": n, "mask_id": i, "colour": (i, 9, 9)} for i, n in enumerate(names, 1)]
    protocol = {"recipe": "1stage", "scales": [0.5, 1.0], "long_side": 64, "score_cut": 0.4}
    net = build_network(settings(data).network(1 + len(names)))
    start = save_snapshot(
        net, tmp_path / "start.safetensors", classes, epoch=9, step=900, crop=32, **protocol
    )
    config = settings(data, epochs=1, initial_weights=str(start))
    list(train(config, tmp_path / "run"))
    own = load_snapshot(tmp_path / "run/checkpoints/last.safetensors")[2]
    expected = protocol | {"epoch": 1, "step": 4, "crop": config.crop}
    expected |= config.model_dump(mode="json", include=set(SUPERVISION))
    assert own == expected, "what is its own stays its own"
    assert inherited_protocol("") == inherited_protocol("hub") == {}
    plain = save_snapshot(net, tmp_path / "plain.safetensors", classes, epoch=1)
    assert inherited_protocol(str(plain)) == {} and facts_of(plain) == {"epoch": 1}
    (tmp_path / "odd.safetensors").write_bytes(b"no tensors")
    assert facts_of(tmp_path / "odd.safetensors") == {}


def test_what_is_frozen_does_not_move(data):
    images, tags = torch.randn(4, 3, 48, 48), torch.eye(6)[:4]
    for frozen, still in (("backbone", "backbone."), ("first", "none")):
        config = settings(data, frozen=frozen)
        net = trainable_network(config, 7).train()
        before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
        train_step(net, build_optimiser(net, config), images, tags, config, 1.0, True, torch.Tensor.backward)
        for name, weight in net.named_parameters():
            if name.startswith(still):
                assert torch.equal(weight, before[name])
        assert any(not torch.equal(weight, before[name]) for name, weight in net.named_parameters())
    net = trainable_network(settings(data, backbone="mobilenet_v2", frozen="depthwise"), 7)
    depthwise = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m.groups > 1]
    assert len(depthwise) == 17 and not any(m.weight.requires_grad for m in depthwise)
    assert net.backbone.features[9].conv[0][0].weight.requires_grad


def test_true_masks_move_with_their_images(data):
    """The crop, flip and colours of an image are those that it has without its mask."""
    manifest = Manifest.load(data)
    plain, masked = (kind(manifest, "train", 48, 5) for kind in (TrainSet, MaskedTrainSet))
    for index in (0, 3):
        image, tags, _, truth = masked[(2, index)]
        assert torch.equal(image, plain[(2, index)][0])
        assert truth.shape == (48, 48) and truth.dtype == torch.uint8
        present = {int(k) for k in truth.unique()} - {0, 255}
        assert present <= {k + 1 for k in range(6) if tags[k]}
    # without augmentation the mask is cut as the image is
    masked = MaskedTrainSet(manifest, "val", 48, 5, augment=False)
    whole = np.asarray(read_mask(masked.masks[0], manifest))
    truth = masked[0][3].numpy()
    assert abs((truth > 0).mean() - (whole > 0).mean()) < 0.15


def test_the_ceiling_learns_from_true_masks(data):
    config = settings(data, supervision="masks")
    torch.manual_seed(0)
    net = build_network(config.network(4)).eval()
    images, tags = torch.randn(2, 3, 48, 48), torch.tensor([[1.0, 0, 1], [0, 1, 0]])
    truth = torch.zeros(2, 48, 48, dtype=torch.uint8)
    truth[0, :9, :9], truth[0, 30:, :20], truth[1, 5:30, 5:30], truth[:, :, -3:] = 1, 3, 2, 255
    out = net(images)
    one_hot = torch.stack([(truth == k).float() for k in range(4)], 1)
    assert torch.equal(labels_of_truth(truth, 4), one_hot)
    expected = mask_loss(out.logits, one_hot, tags).mean()
    assert training_losses(out, images, tags, config, True, truth)[1] == expected
    assert training_losses(out, images, tags, config, True)[1] != expected


def test_a_ceiling_needs_every_mask(data, tmp_path):
    manifest = Manifest.load(data)
    samples = manifest.samples("val")
    bare = write_manifest(
        tmp_path / "bare", manifest.classes, {"train": manifest.masked_samples("train"), "val": samples[:1]}
    )
    rows = list(train(settings(data, supervision="masks", epochs=1), tmp_path / "run"))
    assert rows[-1]["val_loss"] > 0
    (bare.folder / "train_masks.csv").unlink()
    with pytest.raises(
        DataError, match="supervision='masks' needs a mask of every image, and .* of train have none"
    ):
        list(train(settings(bare.folder, supervision="masks"), tmp_path / "other"))


def test_without_kept_snapshots_the_last_network_is_the_one_used(data, tmp_path):
    config = settings(data, epochs=2, validate_every=1, warmup_epochs=0, snapshots_kept=0)
    rows = list(train(config, tmp_path / "run"))
    assert sum(row.get("val_loss") is not None for row in rows) == 3, "it still validates"
    assert [path.name for path in (tmp_path / "run/checkpoints").glob("*.safetensors")] == [
        "last.safetensors"
    ]
    assert find_snapshot(tmp_path / "run").name == "last.safetensors"


def test_a_file_remembers_how_its_pseudo_labels_were_made(data, tmp_path):
    config = settings(data, epochs=1, background_cut=0.85, pamr_dilations=(1, 3), pamr_iterations=4)
    list(train(config, tmp_path / "run"))
    copy = shutil.copy(tmp_path / "run/checkpoints/last.safetensors", tmp_path / "elsewhere.safetensors")
    alone = load_trained(tmp_path / "none", str(copy)).config
    for name in (*SUPERVISION, "crop"):
        assert getattr(alone, name) == getattr(config, name), name
