"""Methods made of lightly's losses and heads."""

from usbench import hookimpl

PAIR = "usbench_lightly.pairs:Pair"


@hookimpl
def usbench_losses(register):
    register(
        "simclr", PAIR, criterion="lightly.loss:NTXentLoss", options={"temperature": 0.1, "projection": 128},
        reference="Chen et al., ICML 2020, https://arxiv.org/abs/2002.05709",
        summary="contrast of two views against the rest of the batch",
    )  # fmt: skip
    register(
        "vicreg", PAIR, criterion="lightly.loss:VICRegLoss", head="VICRegProjectionHead",
        options={"lambda_param": 25.0, "mu_param": 25.0, "nu_param": 1.0, "projection": 512},
        reference="Bardes et al., ICLR 2022, https://arxiv.org/abs/2105.04906",
        summary="invariance, variance and covariance; no negatives, no teacher",
    )  # fmt: skip
    register(
        "byol", "usbench_lightly.teachers:BYOL", options={"hidden": 512, "projection": 128},
        reference="Grill et al., NeurIPS 2020, https://arxiv.org/abs/2006.07733",
        summary="predicts a slowly moving teacher's view; no negatives",
    )  # fmt: skip
    register(
        "moco", "usbench_lightly.teachers:MoCo", options={"temperature": 0.1, "queue": 4096, "projection": 128},
        reference="He et al., CVPR 2020, https://arxiv.org/abs/1911.05722",
        summary="contrast against a queue of a slowly moving teacher's embeddings",
    )  # fmt: skip
