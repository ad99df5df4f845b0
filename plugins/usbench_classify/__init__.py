"""Protocols that tell classes apart: a fine-tune with a linear layer, that of POCUS, and probes of frozen features."""

from usbench import hookimpl

US_UCL = "Chen et al., MICCAI 2021, https://arxiv.org/abs/2011.13066"


@hookimpl
def usbench_protocols(register):
    register(
        "classify", "usbench_classify.classify:Classify", needs=("label",), options={"train": "full", "balance": True},
        summary="fine-tunes the encoder (train=full, last-stage, last-block or head) and a linear layer on labels",
    )  # fmt: skip
    register(
        "pocus", "usbench_classify.pocus:Pocus", needs=("label", "video"),
        options={"train": "last-block", "lr": 0.01, "weight_decay": 1e-4, "warmup": 0.0, "batch": 32},
        summary="last block and a linear layer, per frame and per video; the published best-on-test rule stands beside",
        reference=US_UCL,
    )  # fmt: skip
    register(
        "probe", "usbench_classify.probe:Probe", needs=("label",), options={"k": 20}, frozen=True,
        summary="logistic regression and nearest neighbours on frozen features; no step is taken",
        reference="Alain and Bengio, ICLR workshop 2017, https://arxiv.org/abs/1610.01644",
    )  # fmt: skip
