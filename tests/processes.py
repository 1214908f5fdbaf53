"""What two processes do in one launch: `torchrun tests/processes.py FOLDER`; FOLDER holds the settings."""

import json
import sys
from pathlib import Path
from unittest.mock import patch

import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from wsfcn_lib.config import TrainConfig
from wsfcn_lib.data.manifest import Manifest
from wsfcn_lib.data.training_set import TrainSet
from wsfcn_lib.evaluation.__main__ import main as evaluate
from wsfcn_lib.train import (
    build_accelerator,
    build_optimiser,
    initial_network,
    main,
    step_loader,
    train,
    train_step,
)


def learn(config, order=None):
    """Losses and gradients of three steps with mask loss, then the weights, and the count of exchanges.

    `order` rearranges the images of each batch. Dropout is off, as the gate should be in `config`.
    """
    accelerator = build_accelerator(config)
    manifest = Manifest.load(config.data)
    data = TrainSet(manifest, "train", config.crop, config.seed)
    torch.manual_seed(0)
    net = initial_network(config, [info.name for info in manifest.classes], accelerator)
    for module in net.modules():
        if "Dropout" in type(module).__name__:
            module.p = 0.0
    optimiser, model = build_optimiser(net, config), accelerator.prepare_model(net)
    exchanges, steps = [], []
    if accelerator.num_processes > 1:
        model.register_comm_hook(
            None, lambda state, bucket: exchanges.append(1) or allreduce_hook(None, bucket)
        )
    for images, tags, _ in step_loader(data, config, accelerator, 0):
        if order:
            images, tags = images[order], tags[order]
        losses = train_step(model, optimiser, images, tags, config, 1.0, True, accelerator.backward)
        losses = accelerator.reduce(torch.tensor(losses), "mean")
        gradients = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
        steps.append((losses, gradients))
        if len(steps) == 3:
            break
    return steps, net.state_dict(), len(exchanges)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    given = json.loads((folder / "settings.json").read_text())
    for accumulate in (1, 2):
        learned = learn(TrainConfig(**given["learn"], accumulate=accumulate))
        process = build_accelerator(TrainConfig(**given["train"])).process_index
        torch.save(learned, folder / f"learned-{accumulate}-{process}")

    config = TrainConfig(**given["train"])
    for _ in train(config, folder / "whole"):
        pass
    for row in train(config, folder / "parts"):
        if row["step"] == 2 and process == 0:
            (folder / "parts" / "stop").touch()
    (folder / f"rows-{process}.json").write_text(json.dumps(row))
    sys.argv[1:] = [str(folder / "parts")]
    with patch("wsfcn_lib.train.leave_others"):  # which ends what follows
        main()
    sys.argv[1:] = [str(folder / "whole"), "--settings", str(folder / "evaluation.json")]
    evaluate()
    threads = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
    (folder / f"threads-{process}.json").write_text(json.dumps(threads))
