"""Vision transformers, the methods that want their tokens, and masked image modelling for any network."""

from usbench import hookimpl

VIT = "usbench_tokens.vit:vit"


@hookimpl
def usbench_backbones(register):
    for name, dim in (("tiny", 192), ("small", 384)):
        register(
            f"vit-{name}", VIT, timm_name=f"vit_{name}_patch16_224", gives=("tokens",),
            options={"patch": 8, "dim": dim, "depth": 12, "width": 64},
            reference="Dosovitskiy et al., ICLR 2021, https://arxiv.org/abs/2010.11929",
            summary=f"ViT-{name.capitalize()} with a small dense decoder; patch=16 takes the published weights",
        )  # fmt: skip
