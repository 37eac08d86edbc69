"""Detects compilers, exporters and torch.func, which need plain operations."""

import torch

from alexnet.support.plain import report_missing


def is_traced() -> bool:
    """Whether a compiler or exporter records the operations."""
    return torch.compiler.is_compiling() or bool(torch.jit.is_tracing())  # type: ignore[attr-defined,no-untyped-call]


def is_transformed() -> bool:
    """Whether torch.func (vmap, grad, jacobians) is active; True if this torch cannot tell."""
    active = getattr(torch._C, "_are_functorch_transforms_active", None)
    if active is None:
        report_missing("torch._C._are_functorch_transforms_active", "response norm is plain")
        return True
    return bool(active())
