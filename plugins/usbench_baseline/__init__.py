"""The two baselines that no table may lack: no pretraining, and its steps spent on supervised training instead."""

from usbench import hookimpl


@hookimpl
def usbench_losses(register):
    register("none", None, summary="no pretraining: the supervised baseline", baseline="plain")
    register(
        "none-long", None, baseline="long",
        summary="no pretraining, and the pretraining's steps are added to the supervised training",
    )  # fmt: skip
