"""Relation Contrastive Learning. The paper's formula was not readable to us: this is our reconstruction of it."""

from usbench import hookimpl

RELATION = "usbench_rcl.relation:RelationContrast"
PAPER = "Ellis et al., arXiv 2502.02489, https://arxiv.org/abs/2502.02489"
OPTIONS = {
    "form": "infonce", "negatives": "all", "temperature": 1.0, "hidden": 256, "projection": 128,
    "nt_xent_weight": 0.0,
}  # fmt: skip
DENSE = {"dense_weight": 0.5, "dense_points": 48, "dense_stride": 8, "dense_hidden": 64}


@hookimpl
def usbench_losses(register):
    register(
        "rcl", RELATION, options={**OPTIONS, **DENSE}, reference=PAPER, reconstruction=True,
        summary="learned similarity of image pairs and of pixel pairs (our reconstruction of the formula)",
    )  # fmt: skip
    register(
        "rcl-image", RELATION, options=OPTIONS, dense_weight=0.0, reference=PAPER, reconstruction=True,
        summary="learned similarity of image pairs alone (our reconstruction of the formula)",
    )  # fmt: skip
