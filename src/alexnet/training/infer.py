"""A trained network made for answers alone: folded and cast once, not at every call."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from alexnet.models.net import Net


class Inference(nn.Module):
    """What a network answers, as fast as torch gets it. Shapes: (N, C, H, W) -> logits (N, K).

    Batch norms go into the layer before them. With `precision` bf16 the weights are cast here;
    autocast casts them at every call, which for one image takes longer than the products. The last
    layer stays float32, as in `Net`. Shares what it need not change with the network.
    """

    def __init__(self, net: Net, precision: str) -> None:
        super().__init__()
        self.kind = torch.bfloat16 if precision == "bf16" else torch.float32
        self.layers = nn.ModuleDict(folded({name: net.part(name) for name in net.parts}))
        *body, self.last = self.layers
        for name in body:
            self.layers[name] = self._cast(self.layers[name])
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        x = images.to(self.kind)
        for name, layer in self.layers.items():
            if isinstance(layer, nn.Linear) and x.dim() > 2:
                x = x.flatten(1)
            x = layer(x.float() if name == self.last else x)
        return x

    def _cast(self, layer: nn.Module) -> nn.Module:
        if self.kind == torch.float32 or isinstance(layer, _BatchNorm):
            return layer
        return (
            copy.deepcopy(layer).to(self.kind) if any(True for _ in layer.parameters()) else layer
        )


def folded(layers: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """The layers, each batch norm that follows a convolution or product at once made part of it."""
    found: dict[str, nn.Module] = {}
    before = ""
    for name, layer in layers.items():
        onto = found.get(before)
        if type(layer) is nn.BatchNorm2d and isinstance(onto, nn.Conv2d):
            found[before] = fuse_conv_bn_eval(onto.eval(), layer.eval())
        elif type(layer) is nn.BatchNorm1d and isinstance(onto, nn.Linear):
            found[before] = fuse_linear_bn_eval(onto.eval(), layer.eval())
        else:
            found[name] = layer
        before = name
    return found
