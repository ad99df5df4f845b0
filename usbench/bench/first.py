"""How long it takes to the first step, from the start of a process: `python -m usbench.bench.first` says it as JSON."""

from __future__ import annotations

import itertools
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory


def main() -> None:
    """Import, load, warm up; the clock began when the parent started this process."""
    given = json.loads(sys.argv[1])
    marks = [("began", given["began"]), ("python", time.time())]
    import torch

    marks.append(("import torch", time.time()))
    from usbench.bench.setting import make_setting
    from usbench.bench.subject import pretraining

    setting = make_setting(given["setting"], quick=given["quick"])
    backbone, size = setting.backbones[0], setting.sizes[0]
    torch.set_num_threads(setting.threads)
    marks.append(("import usbench", time.time()))
    with TemporaryDirectory() as folder:
        subject = pretraining(setting, backbone, size, Path(folder))
        marks.append(("network, loss and images", time.time()))
        subject.go_on(1)
        marks.append(("first step", time.time()))
        subject.go_on(1)
        marks.append(("second step", time.time()))
    print(json.dumps({name: at - before for (_, before), (name, at) in itertools.pairwise(marks)}))


if __name__ == "__main__":
    main()
