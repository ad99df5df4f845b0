"""smp's U-Net behind the Network contract: one grey channel in, one logit out, random starting weights."""

from __future__ import annotations

import difflib
import logging

import segmentation_models_pytorch as smp
import timm

from usbench import Network


def encoder_name(name: str) -> str:
    """smp's name of an encoder: its own, or a timm model behind the prefix 'tu-'; ValueError with the nearest one."""
    bare = name.removeprefix("tu-")
    if name in smp.encoders.encoders:
        return name
    if timm.is_model(bare):
        return f"tu-{bare}"
    near = difflib.get_close_matches(bare, [*smp.encoders.encoders, *timm.list_models()], n=1)
    raise ValueError(f"no encoder '{name}' in smp or timm" + (f": did you mean '{near[0]}'?" if near else ""))


def unet(encoder: str, width: int = 256) -> Network:
    """A five-level U-Net; the decoder's widths halve from `width` upwards."""
    if width < 16:
        raise ValueError(f"the decoder width is {width}: at least 16")
    name = encoder_name(encoder)
    widths = [max(16, width >> level) for level in range(5)]
    logging.getLogger("timm").setLevel(logging.ERROR)
    try:
        model = smp.Unet(name, encoder_weights=None, in_channels=1, classes=1, decoder_channels=widths)
    except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise ValueError(f"'{encoder}' gives no pyramid of maps, so no U-Net can be built on it ({error})") from error
    return Network(
        model.encoder,
        model.decoder,
        model.segmentation_head,
        dim=model.encoder.out_channels[-1],
        stride=2**5,
        timm_name=name.removeprefix("tu-"),
    )
