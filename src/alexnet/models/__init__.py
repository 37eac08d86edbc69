"""Networks: the AlexNet family, the parts they are made of, and response normalisation.

These names are stable. The modules they come from are not.
"""

from alexnet.models.compare import compare_presets
from alexnet.models.family import FAMILY
from alexnet.models.fast import has_int8
from alexnet.models.layers import (
    BatchNorm,
    Conv,
    Dropout,
    Linear,
    Local,
    MeanTo,
    Part,
    Pool,
    ReLU,
    ResponseNorm,
    Tanh,
)
from alexnet.models.net import (
    LayerRow,
    Net,
    Preset,
    Spec,
    named_parts,
    summarize,
    training_operations,
)
from alexnet.models.norm import ResponseNormLayer, response_norm
from alexnet.models.small import RETIRED, SMALL
from alexnet.models.zoo import (
    MODELS,
    build_model,
    find_model,
    model_spec,
    narrowed,
    refuse_retired,
)

__all__ = [
    "FAMILY",
    "MODELS",
    "RETIRED",
    "SMALL",
    "BatchNorm",
    "Conv",
    "Dropout",
    "LayerRow",
    "Linear",
    "Local",
    "MeanTo",
    "Net",
    "Part",
    "Pool",
    "Preset",
    "ReLU",
    "ResponseNorm",
    "ResponseNormLayer",
    "Spec",
    "Tanh",
    "build_model",
    "compare_presets",
    "find_model",
    "has_int8",
    "model_spec",
    "named_parts",
    "narrowed",
    "refuse_retired",
    "response_norm",
    "summarize",
    "training_operations",
]
