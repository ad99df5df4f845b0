"""Any images of one's own: a folder with masks and a table, or a folder a clip."""

from usbench import hookimpl


@hookimpl
def usbench_datasets(register):
    own = {"name": "", "licence": "", "tag": ""}
    register(
        "folder",
        "usbench_folder.images:Folder",
        summary="your own: images/, and where you have them masks/ and a CSV with label, patient, video, frame, tag, …",
        options=own,
    )
    register(
        "clips",
        "usbench_folder.clips:Clips",
        summary="your own: a folder of frames or a video file a clip, below a folder a class where there are classes",
        options={**own, "fps": 0.0, "every": 1},
    )
    register(
        "dicom",
        "usbench_folder.dicom:Dicom",
        summary="your own: DICOM stills and clips in any folders, with what their headers know; masks and a CSV beside",
        options={**own, "every": 1},
    )
