"""Fast ways of a network's work, each beside a plain one that gives the same numbers.

Here, in `alexnet.region` (threads) and nowhere else private parts of torch are used. A way whose
private part this version of torch lacks is replaced by the plain one, and a line says so;
ALEXNET_PLAIN=1 takes the plain ways everywhere. These names are stable. The modules they come from
are not.
"""

from alexnet.models.fast.int8 import IntegerPool, Product, Steps, ToIntegers, has_int8
from alexnet.models.fast.norm import Window, chunked_norm, plain_norm
from alexnet.models.fast.order import order_of_training_step
from alexnet.models.fast.strided import MOST_CHANNELS, StridedConv
from alexnet.models.fast.update import EXACT, plain_update, update_weights

__all__ = [
    "EXACT",
    "MOST_CHANNELS",
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
