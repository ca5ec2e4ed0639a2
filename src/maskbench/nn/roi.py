"""The heads that look at one region (Mask R-CNN, figure 4, right; for the box Faster R-CNN's two layers, or more).

R regions   C classes   s cells a side of a pooled region   m cells a side of a mask
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from maskbench.nn.blocks import convolution, in_cache, kaiming
from maskbench.nn.upsample import Doubling, TransposedConv, Upsample
from maskbench.phases import phase


class BoxHead(nn.Module):
    """Fully connected layers, then a class (the last one is background) and the deltas of boxes.

    Args:
        channels: of a pooled region.
        classes: without background.
        pool: cells a side of a pooled region.
        width: of the fully connected layers: two, or one where convolutions come before.
        convs: convolutions before them, as wide as what comes in.
        norm: whether the convolutions have batch normalisation.
        agnostic: one box for all classes, and not one for each.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        *,
        pool: int = 7,
        width: int = 1024,
        convs: int = 0,
        norm: bool = False,
        agnostic: bool = False,
    ) -> None:
        super().__init__()
        self.pool, self.classes, self.boxes = pool, classes, 1 if agnostic else classes
        self.convs = nn.ModuleList(convolution(channels, channels, norm=norm) for _ in range(convs))
        layers = [nn.Linear(channels * pool * pool, width), *([] if convs else [nn.Linear(width, width)])]
        self.hidden = nn.Sequential(nn.Flatten())
        for layer in layers:
            self.hidden.extend([layer, nn.ReLU(inplace=True)])
        self.classify = nn.Linear(width, classes + 1)
        self.regress = nn.Linear(width, 4 * self.boxes)
        kaiming(*self.convs)
        for layer in layers:
            nn.init.xavier_uniform_(layer.weight)
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.normal_(self.regress.weight, std=0.001)
        for layer in (*layers, self.classify, self.regress):
            nn.init.zeros_(layer.bias)

    @phase("heads")
    def forward(
        self, regions: Float[Tensor, "R D s s"]
    ) -> tuple[Float[Tensor, "R {self.classes}+1"], Float[Tensor, "R {self.boxes} 4"]]:
        """Class logits and deltas."""
        for conv in self.convs:
            regions = F.relu_(conv(regions))
        hidden = self.hidden(regions)
        return self.classify(hidden), self.regress(hidden).view(-1, self.boxes, 4)


class MaskHead(nn.Module):
    """Convolutions, a step that doubles the size, and the channels of the mask.

    Args:
        channels: of a pooled region.
        outputs: channels of the mask, by its kind.
        pool: cells a side of a pooled region.
        width: of the convolutions, of which there are `depth`.
        depth: see there.
        norm: whether the convolutions have batch normalisation.
        upsample: the step that doubles the size.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        *,
        pool: int = 14,
        width: int = 256,
        depth: int = 4,
        norm: bool = False,
        upsample: Upsample = TransposedConv,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.convs = nn.ModuleList(
            convolution(channels if step == 0 else width, width, norm=norm) for step in range(depth)
        )
        self.upsample: Doubling = upsample(width)
        self.logits = nn.Conv2d(width, outputs, 1)
        kaiming(*self.convs, self.logits)

    @property
    def size(self) -> int:
        """Cells a side of a mask."""
        return 2 * self.pool

    def forward(self, regions: Float[Tensor, "R D s s"]) -> Float[Tensor, "R K m m"]:
        """Mask logits."""
        return self.draw(self.look(regions))

    @phase("heads")
    def look(self, regions: Float[Tensor, "R D s s"]) -> Float[Tensor, "R E s s"]:
        """What the convolutions make of regions; HTC hands it on to the next stage's head."""
        for conv in self.convs:
            regions = F.relu_(conv(regions))
        return regions

    @phase("heads")
    def draw(self, seen: Float[Tensor, "R E s s"]) -> Float[Tensor, "R K m m"]:
        """Mask logits of what was seen."""
        doubled = 4 * seen.shape[1:].numel()
        return in_cache(lambda part: self.upsample.predict(part, self.logits), seen, values=doubled)
