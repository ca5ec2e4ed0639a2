"""Published checkpoints by name, fetched by those who published them."""

from __future__ import annotations

from torchvision.models import get_model_weights

from maskbench.errors import WeightsError
from maskbench.weights.converting import Published, publish

NAMES = {
    "torchvision/maskrcnn_resnet50_fpn": ("mask_rcnn", "COCO_V1"),
    "torchvision/maskrcnn_resnet50_fpn_v2": ("mask_rcnn", "COCO_V1"),
}
"""Name → our method, and which of torchvision's entries it is."""


def fetch(name: str) -> Published:
    """A checkpoint of torchvision, from its cache or over the network, converted.

    Raises:
        WeightsError: it has none of this name that converts, or it could not be fetched.
    """
    if name not in NAMES:
        raise WeightsError(f"weights={name}: neither a file nor one of {', '.join(NAMES)}")
    method, entry = NAMES[name]
    weights = get_model_weights(name.removeprefix("torchvision/"))[entry]
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
    except Exception as error:  # the hub raises the system's, the transport's and pickle's errors
        raise WeightsError(
            f"weights={name}: could not be fetched ({type(error).__name__}: {error}). Fetch {weights.url} on a machine "
            "with a network and copy it to the folder hub/checkpoints of torch's cache (TORCH_HOME), or convert a copy "
            f"of your own: maskbench convert source=FILE layout=torchvision method={method} out=FILE.safetensors"
        ) from error
    return publish(state, layout="torchvision", method=method)
