"""Fast implementations of network operations, each beside a plain one with the same results.

Private parts of torch are used only here and in `alexnet.support.region` (threads). If this version
of torch lacks one, the plain implementation takes over and a line says so. ALEXNET_PLAIN=1 selects
the plain implementations everywhere.

These names are stable. The modules they come from are not.
"""

from alexnet.models.fast.int8 import IntegerPool, Product, Steps, ToIntegers, has_int8
from alexnet.models.fast.norm import Window, chunked_norm, plain_norm
from alexnet.models.fast.order import order_of_training_step
from alexnet.models.fast.strided import MAX_CHANNELS, StridedConv
from alexnet.models.fast.update import EXACT, plain_update, update_weights

__all__ = [
    "EXACT",
    "MAX_CHANNELS",
    "IntegerPool",
    "Product",
    "Steps",
    "StridedConv",
    "ToIntegers",
    "Window",
    "chunked_norm",
    "has_int8",
    "order_of_training_step",
    "plain_norm",
    "plain_update",
    "update_weights",
]
