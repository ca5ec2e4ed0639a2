"""The heads that look at one region (Mask R-CNN, figure 4, right; Faster R-CNN's two layers for the box).

R regions   C classes   s cells a side of a pooled region   m cells a side of a mask
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


class BoxHead(nn.Module):
    """Two fully connected layers, then a class (the last one is background) and the deltas of a box for each class."""

    def __init__(self, channels: int, classes: int, *, pool: int = 7, width: int = 1024) -> None:
        super().__init__()
        self.pool, self.classes = pool, classes
        first, second = nn.Linear(channels * pool * pool, width), nn.Linear(width, width)
        self.hidden = nn.Sequential(nn.Flatten(), first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True))
        self.classify = nn.Linear(width, classes + 1)
        self.regress = nn.Linear(width, 4 * classes)
        for layer in (first, second):
            nn.init.xavier_uniform_(layer.weight)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.normal_(self.regress.weight, std=0.001)
        for layer in (first, second, self.classify, self.regress):
            nn.init.zeros_(layer.bias)

    def forward(
        self, regions: Float[Tensor, "R D s s"]
    ) -> tuple[Float[Tensor, "R {self.classes}+1"], Float[Tensor, "R {self.classes} 4"]]:
        """Class logits and deltas."""
        hidden = self.hidden(regions)
        return self.classify(hidden), self.regress(hidden).view(-1, self.classes, 4)


class MaskHead(nn.Module):
    """Convolutions, a transposed one that doubles the size, and a mask for each class."""

    def __init__(self, channels: int, classes: int, *, pool: int = 14, width: int = 256, depth: int = 4) -> None:
        super().__init__()
        self.pool = pool
        self.convs = nn.ModuleList(
            nn.Conv2d(channels if step == 0 else width, width, 3, padding=1) for step in range(depth)
        )
        self.upsample = nn.ConvTranspose2d(width, width, 2, stride=2)
        self.logits = nn.Conv2d(width, classes, 1)
        for layer in (*self.convs, self.upsample, self.logits):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    @property
    def size(self) -> int:
        """Cells a side of a mask."""
        return 2 * self.pool

    def forward(self, regions: Float[Tensor, "R D s s"]) -> Float[Tensor, "R C m m"]:
        for conv in self.convs:
            regions = F.relu(conv(regions))
        return self.logits(F.relu(self.upsample(regions)))
