"""Six public sets of breast ultrasound with lesion masks, from the files that their sites give."""

from usbench import hookimpl


@hookimpl
def usbench_datasets(register):
    register(
        "busi",
        "usbench_breast.busi:BUSI",
        summary="BUSI: 780 images, benign, malignant and normal, without patients; full of near-duplicates",
        reference="Al-Dhabyani et al., Data in Brief 28, 2020, doi.org/10.1016/j.dib.2019.104863",
    )
    register(
        "breast",
        "usbench_breast.breast:BrEaST",
        summary="BrEaST-Lesions-USG: 256 images of 256 patients, 252 with a tumour, with pixel sizes",
        reference="Pawłowska et al., Scientific Data 11, 2024, doi.org/10.1038/s41597-024-02984-z",
    )
    register(
        "udiat",
        "usbench_breast.udiat:UDIAT",
        summary="UDIAT (Dataset B): 163 lesions of one scanner; on request from its authors",
        reference="Yap et al., IEEE JBHI 22, 2018, doi.org/10.1109/JBHI.2017.2731873",
    )
    register(
        "busbra",
        "usbench_breast.busbra:BUSBRA",
        summary="BUS-BRA: 1875 images of 1064 patients from four scanners, with official folds",
        reference="Gómez-Flores et al., Medical Physics 51, 2024, doi.org/10.1002/mp.16812",
        options={"folds": 5},
    )
    register(
        "busuclm",
        "usbench_breast.busuclm:BUSUCLM",
        summary="BUS-UCLM: 683 images of 38 patients, benign, malignant and normal",
        reference="Vallez et al., Scientific Data 12, 2025, doi.org/10.1038/s41597-025-04562-3",
    )
    register(
        "stu",
        "usbench_breast.stu:STU",
        summary="STU-Hospital: 42 lesions without class; small, to test on",
        reference="Zhuang et al., PLOS ONE 14, 2019, doi.org/10.1371/journal.pone.0221535",
    )
