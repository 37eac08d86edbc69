"""What the processor hands to a GPU while that is still computing."""

import torch
from torch import Tensor


def sent(values: Tensor, device: torch.device) -> Tensor:
    """A small tensor of the processor on the device, without waiting for what runs there.

    A copy from ordinary memory ends when all that was begun before it has ended; one from
    page-locked memory takes its turn.
    """
    if values.device == device:
        return values
    if device.type == "cuda":
        values = values.pin_memory()
    return values.to(device, non_blocking=True)
