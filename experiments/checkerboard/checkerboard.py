"""Which ways to double a map leave a checkerboard: python experiments/checkerboard/checkerboard.py

A map that is the same everywhere is doubled, first by steps as they begin, then by steps that have learnt to draw discs
of twice their resolution. What differs between the four cells of a block is the checkerboard: away from the border, all
energy but the mean's lies at the highest frequency of rows, columns or both. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskbench.nn import upsample

CHANNELS, SIDE = 16, 16


class Overlapping(upsample.Doubling, nn.ConvTranspose2d):
    """A 3 × 3 transposed convolution of stride 2, whose kernels overlap in some cells only (Odena et al., 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2, padding=1, output_padding=1)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")


WAYS: dict[str, upsample.Upsample] = {
    "transposed 3 × 3": Overlapping,
    "transposed_conv": upsample.TransposedConv,
    "bed_of_nails": upsample.BedOfNails,
    "bilinear_transposed_conv": upsample.BilinearTransposedConv,
    "nearest_conv": upsample.NearestConv,
    "bilinear_conv": upsample.BilinearConv,
    "nearest": upsample.Nearest,
    "bilinear": upsample.Bilinear,
}


def checkerboard(doubled: Tensor) -> float:
    """Share of the energy that lies at the highest frequencies, away from the border."""
    inner = doubled[..., 8:-8, 8:-8]
    spectrum, highest = torch.fft.fft2(inner).abs() ** 2, inner.shape[-1] // 2
    rows, columns = spectrum[..., highest, :].sum(), spectrum[..., :, highest].sum()
    return ((rows + columns - spectrum[..., highest, highest].sum()) / spectrum.sum()).item()


def discs(count: int) -> Tensor:
    """Discs of some size anywhere, in the middle of which a map is the same everywhere."""
    cells = torch.arange(2 * SIDE) + 0.5
    y, x = 2 * SIDE * torch.rand(2, count, 1, 1)
    radius = 2 * SIDE * (0.1 + 0.4 * torch.rand(count, 1, 1))
    return ((cells[:, None] - y) ** 2 + (cells - x) ** 2 < radius**2).float()[:, None]


class Head(nn.Module):
    """A mask head in miniature: a convolution, the step, and a 1×1 convolution that says the mask."""

    def __init__(self, way: upsample.Upsample) -> None:
        super().__init__()
        self.look, self.step, self.last = nn.Conv2d(1, CHANNELS, 3, padding=1), way(CHANNELS), nn.Conv2d(CHANNELS, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.step.predict(F.relu(self.look(images)), self.last)


def learn(way: upsample.Upsample, steps: int) -> tuple[Head, float]:
    """A head that draws discs from what is left of them at half the resolution, and its loss at last."""
    head = Head(way)
    optimiser = torch.optim.Adam(head.parameters(), lr=1e-2)
    losses = []
    for _ in range(steps):
        masks = discs(32)
        loss = F.binary_cross_entropy_with_logits(head(F.avg_pool2d(masks, 2)), masks)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return head, sum(losses[-50:]) / 50


def measure(way: upsample.Upsample, seeds: int, steps: int) -> tuple[dict[str, float], list[Tensor]]:
    """Means over seeds of both checkerboards and the loss, and what the first seed's look like."""
    rows, pictures = [], []
    for seed in range(seeds):
        torch.manual_seed(seed)
        flat = torch.rand(1, CHANNELS, 1, 1).expand(1, CHANNELS, SIDE, SIDE)
        fresh = way(CHANNELS)(flat).detach()
        head, loss = learn(way, steps)
        learnt = head(torch.ones(1, 1, SIDE, SIDE)).detach()
        rows.append((checkerboard(fresh), checkerboard(learnt), loss))
        pictures.append([fresh[0, 0, 8:-8, 8:-8], learnt[0, 0, 8:-8, 8:-8]])
    begins, learnt_share, loss = torch.tensor(rows).mean(dim=0).tolist()
    return {"begins": begins, "learnt": learnt_share, "loss": loss}, pictures[0]


def draw(pictures: dict[str, list[Tensor]], path: Path) -> None:
    """A column a way: its first channel as it begins, and the logits of a head that has learnt."""
    figure, axes = plt.subplots(2, len(pictures), figsize=(1.9 * len(pictures), 4.2), layout="constrained")
    for (name, shown), column in zip(pictures.items(), axes.T, strict=True):
        column[0].set_title(name, fontsize=9)
        for axis, picture in zip(column, shown, strict=True):
            # Around its mean, by as much as the mean: a faint checkerboard looks faint.
            mean = picture.mean()
            reach = max(mean.abs().item(), 1e-6)
            axis.imshow(picture, cmap="RdBu", vmin=mean - reach, vmax=mean + reach)
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, label in zip(axes[:, 0], ("as it begins", "after learning"), strict=True):
        axis.set_ylabel(label)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400)
    chosen = parser.parse_args()
    found, pictures = {}, {}
    for name, way in WAYS.items():
        found[name], pictures[name] = measure(way, chosen.seeds, chosen.steps)
    draw(pictures, Path(__file__).with_name("checkerboard.png"))
    print("| way | checkerboard as it begins | after learning | loss |")
    print("| :-- | --: | --: | --: |")
    for name, row in found.items():
        print(f"| {name} | {100 * row['begins']:.1f} | {100 * row['learnt']:.3f} | {row['loss']:.4f} |")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
