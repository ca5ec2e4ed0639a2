"""Losses without weights of their own; the weighting stands in the method that uses them."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss


def dice(probabilities: Float[Tensor, " N *P"], targets: Bool[Tensor, " N *P"]) -> Float[Tensor, " N"]:
    """1 − 2·Σpt / (Σp² + Σt²), with 0.001 on each sum (V-Net, eq. 3, as SOLO uses it)."""
    p, t = probabilities.flatten(1).float(), targets.flatten(1).float()
    overlap = (p * t).sum(dim=1)
    return 1 - 2 * overlap / ((p * p).sum(dim=1) + 1e-3 + (t * t).sum(dim=1) + 1e-3)


def focal(
    logits: Float[Tensor, "N C"], labels: Int64[Tensor, " N"], alpha: float = 0.25, gamma: float = 2.0
) -> Float[Tensor, ""]:
    """Sigmoid focal loss, summed over all logits; a label of C means that no class is there (Lin et al., ICCV 2017)."""
    targets = F.one_hot(labels, logits.shape[1] + 1)[:, :-1].to(logits.dtype)
    return sigmoid_focal_loss(logits, targets, alpha=alpha, gamma=gamma, reduction="sum")


def lovasz_hinge(
    logits: Float[Tensor, " P"], truth: Bool[Tensor, " P"], group: Int64[Tensor, " P"], count: int
) -> Float[Tensor, " N"]:
    """The Lovász extension of 1 − IoU at hinge errors, for each of several masks (Berman et al., CVPR 2018, eq. 9).

    Cells of a logit of −1 that are not of the mask have no error and may as well be left out.

    Args:
        logits: of the cells that are looked at, sorted or not.
        truth: whether a cell is of its mask.
        group: which mask it is looked at for.
        count: of the masks.
    """
    errors = 1 - logits * (2 * truth.to(logits.dtype) - 1)
    order = errors.detach().argsort(descending=True, stable=True)
    order = order[group[order].argsort(stable=True)]
    errors, truth, group = errors[order], truth[order], group[order]
    size = torch.bincount(group, minlength=count)
    first = (size.cumsum(0) - size)[group]

    def so_far(chosen: Bool[Tensor, " P"]) -> Int64[Tensor, " P"]:
        """How many of the mask are chosen up to each cell."""
        total = chosen.cumsum(0)
        return total - total[first] + chosen[first].long()

    positives = torch.bincount(group[truth], minlength=count)[group]
    lost = 1 - (positives - so_far(truth)).to(errors.dtype) / (positives + so_far(~truth))
    before = torch.where(so_far(torch.ones_like(truth)) == 1, 0, lost.roll(1))
    return errors.new_zeros(count).index_add(0, group, errors.clamp(min=0) * (lost - before))


Reduction = Literal["paper", "authors", "pixels"]


def pull_push(
    embeddings: Float[Tensor, "P E"],
    instance: Int64[Tensor, " P"],
    labels: Int64[Tensor, " N"],
    pull_margin: float,
    push_margin: float,
    reduction: str = "paper",
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """Pull, push and regulariser of one image (De Brabandere et al. 2017, arXiv 1708.02551, eq. 1–3).

    Every pixel is pulled to within `pull_margin` of its instance's mean, the mean of each instance counting alike; the
    means of two instances of one class are pushed `2 · push_margin` apart; means are drawn weakly to the origin.

    Args:
        instance: of each pixel, 0…N−1.
        labels: class of each instance; instances of different classes are told apart by their class.
        reduction: "paper": means over instances, and over ordered pairs of them. "authors": as their Torch code, sums
            over instances, each pair once over the other instances of its class, and no regulariser. "pixels": as a
            popular re-implementation, where the pull is a mean over all pixels, so that large instances outweigh small
            ones.
    """
    embeddings, count = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32)), len(labels)
    pixels = torch.bincount(instance, minlength=count)
    seen = pixels > 0
    sums = embeddings.new_zeros((count, embeddings.shape[1])).index_add(0, instance, embeddings)
    means = sums / pixels.clamp(min=1)[:, None]

    outside = (_length(embeddings - means[instance]) - pull_margin).clamp(min=0) ** 2
    pulls = embeddings.new_zeros(count).index_add(0, instance, outside) / pixels.clamp(min=1)

    pairs = (labels[:, None] == labels[None, :]) & seen[:, None] & seen[None, :]
    pairs = pairs & ~torch.eye(count, dtype=torch.bool, device=labels.device)
    close = (2 * push_margin - _length(means[:, None] - means[None, :])).clamp(min=0) ** 2 * pairs

    instances = seen.sum().clamp(min=1)
    pull, push, regulariser = pulls.sum() / instances, close.sum() / pairs.sum().clamp(min=1), _length(means).sum()
    if reduction == "authors":
        return pulls.sum(), (close / pairs.sum(dim=1, keepdim=True).clamp(min=1)).sum() / 2, 0 * regulariser
    if reduction == "pixels":
        pull = outside.sum() / max(1, len(outside))
    return pull, push, regulariser / instances


def _length(vectors: Float[Tensor, "*N E"]) -> Float[Tensor, "*N"]:
    """Euclidean norm with a finite gradient at 0."""
    return (vectors * vectors).sum(dim=-1).clamp(min=1e-12).sqrt()
