"""Public ultrasound sets of other organs: fetal head, lung, and the clips of US-4."""

from usbench import hookimpl


@hookimpl
def usbench_datasets(register):
    register(
        "hc18",
        "usbench_organs.hc18:HC18",
        summary="HC18: 1334 fetal heads, 999 of them outlined, with pixel sizes",
        reference="van den Heuvel et al., PLOS ONE 13, 2018, doi.org/10.1371/journal.pone.0200412",
    )
    register(
        "pocus",
        "usbench_organs.pocus:POCUS",
        summary="POCUS: lung video frames, COVID-19, pneumonia, healthy; frames know their clip",
        reference="Born et al., Applied Sciences 11, 2021, doi.org/10.3390/app11020672",
    )
    register(
        "us4",
        "usbench_organs.us4:US4",
        summary="US-4: frames of liver and lung videos, a folder a clip, for pretraining",
        reference="Chen et al., USCL, MICCAI 2021, arxiv.org/abs/2011.13066",
    )
