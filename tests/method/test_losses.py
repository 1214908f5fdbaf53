"""Scores and losses: limits, orderings, and a slow version that follows the definitions pixel by pixel."""

import pytest
import torch
from torch.nn.functional import log_softmax

from wsfcn_lib.losses import classification_loss, image_scores, mask_loss, pseudo_labels


def slow_mask_loss(logits, pseudo, tags):
    """The definition, one pixel at a time, at the pseudo labels' own size."""
    losses = []
    for logit, label, tag in zip(logits, pseudo, tags):
        counts = label.sum((1, 2))
        labelled, total = counts.sum().item(), 0.0
        for y in range(label.shape[1]):
            for x in range(label.shape[2]):
                for c in range(label.shape[0]):
                    if label[c, y, x]:
                        total -= (
                            log_softmax(logit[:, y, x], 0)[c].item()
                            * (labelled - counts[c].item())
                            / (1 + labelled)
                        )
        complete = counts[0] > 0 and all(counts[c + 1] > 0 for c in range(len(tag)) if tag[c])
        losses.append(total / (label.shape[1] * label.shape[2]) if complete else 0.0)
    return torch.tensor(losses)


@pytest.fixture
def batch():
    torch.manual_seed(0)
    logits = torch.randn(3, 4, 6, 7)
    tags = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 1, 1]])
    masks = logits.softmax(1) * torch.cat((torch.ones(3, 1), tags), 1)[:, :, None, None]
    return logits, masks, tags


def test_mask_loss_equals_the_slow_version(batch):
    logits, masks, tags = batch
    pseudo = pseudo_labels(masks)
    fast = mask_loss(logits, pseudo, tags)
    assert torch.allclose(fast, slow_mask_loss(logits, pseudo, tags), atol=1e-6) and fast.max() > 0


def test_a_missing_class_or_background_silences_the_image(batch):
    """The two parts that are left would still give a loss, so only the rule makes it 0."""
    logits, masks, tags = batch
    pseudo = pseudo_labels(masks)
    assert mask_loss(logits, pseudo, tags)[0] > 0
    for gone in (0, 1, 3):
        broken = pseudo.clone()
        broken[0, gone] = 0
        assert (broken[0].sum((1, 2)) > 0).sum() == 2
        assert mask_loss(logits, broken, tags)[0] == 0
    untagged = tags.clone()
    untagged[0, 2] = 0
    broken = pseudo.clone()
    broken[0, 3] = 0
    assert mask_loss(logits, broken, untagged)[0] > 0, "a class without a tag may be missing"


def test_mask_loss_falls_as_logits_agree(batch):
    logits, masks, tags = batch
    pseudo = pseudo_labels(masks)
    better = mask_loss(logits + 3 * pseudo, pseudo, tags)
    assert (better < mask_loss(logits, pseudo, tags)).all()


def test_pseudo_labels_by_hand():
    masks = torch.zeros(1, 3, 1, 4)
    masks[0, 0, 0] = torch.tensor([0.9, 0.1, 0.65, 0.1])  # cut 0.63
    masks[0, 1, 0] = torch.tensor([0.1, 0.8, 0.5, 0.4])  # cut 0.48
    masks[0, 2, 0] = torch.tensor([0.0, 0.15, 0.0, 0.0])  # below the floor of 0.2
    expected = torch.tensor([[[1, 0, 0, 0]], [[0, 1, 0, 0]], [[0, 0, 0, 0]]]).float()
    assert torch.equal(pseudo_labels(masks)[0], expected)  # pixel 2 is claimed twice, pixel 3 by none
    assert pseudo_labels(masks, floor=0.1)[0, 2].sum() == 0  # there it meets class 1: ambiguous, so neither
    assert pseudo_labels(masks, floor=0.1)[0, 1, 0, 1] == 0


def test_scores_rise_with_evidence_and_with_size():
    weak, strong = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8)
    weak[:, 1, 2:4, 2:4] = 4
    strong[:, 1, 2:4, 2:4] = 8
    large = torch.zeros(1, 3, 8, 8)
    large[:, 1, 1:7, 1:7] = 4
    assert (
        image_scores(strong)[0, 0] > image_scores(weak)[0, 0]
        and image_scores(large)[0, 0] > image_scores(weak)[0, 0]
    )
    assert image_scores(weak, size_offset=0.01)[0, 0] < image_scores(weak, size_offset=0.1)[0, 0]
    assert image_scores(weak).shape == (1, 2)


def test_without_the_penalty_the_score_is_normalised_pooling(batch):
    logits, _, _ = batch
    masks = logits.softmax(1)
    pooled = (logits * masks).sum((2, 3)) / (1 + masks.sum((2, 3)))
    assert (
        torch.allclose(image_scores(logits, None), pooled[:, 1:])
        and (image_scores(logits) < pooled[:, 1:]).all()
    )


def test_classification_loss_prefers_the_right_tags():
    scores = torch.tensor([[3.0, -3.0]])
    assert classification_loss(scores, torch.tensor([[1.0, 0.0]])) < classification_loss(
        scores, torch.tensor([[0.0, 1.0]])
    )
