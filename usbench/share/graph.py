"""The network as an ONNX graph, for runtimes without torch."""

from __future__ import annotations

import importlib.util
import warnings
from pathlib import Path

import torch
from torch import nn

from usbench.errors import RunFailed, UsbenchError

OPSET = 17
TOLERANCE = 1e-3  # of a logit: other kernels add in another order


def check_installed() -> None:
    """Refuse, before anything is written, what the extra is needed for."""
    if importlib.util.find_spec("onnx") is None:
        raise UsbenchError("--onnx needs the package onnx, which is not installed: pip install 'usbench[onnx]'.")


def write_graph(model: nn.Module, size: int, path: Path) -> None:
    """Write the network: `images` (n, 1, size, size) → `logits`, any n; checked where onnxruntime is installed."""
    images = torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(0))
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model, (images,), str(path), input_names=["images"], output_names=["logits"], opset_version=OPSET,
                dynamic_axes={"images": {0: "n"}, "logits": {0: "n"}}, dynamo=False,
            )  # fmt: skip
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        first = str(error).strip().partition("\n")[0]
        raise RunFailed(f"the network cannot be written as ONNX ({first}): export it without --onnx.") from error
    if importlib.util.find_spec("onnxruntime") is not None:
        _check(model, images[:1], path)


def _check(model: nn.Module, images: torch.Tensor, path: Path) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    with torch.inference_mode():
        apart = float((found - model(images)).abs().max())
    if not apart <= TOLERANCE:
        raise RunFailed(f"the ONNX graph gives logits {apart:.2g} apart from the network's: export it without --onnx.")
