"""`--track`: TensorBoard, Weights & Biases and MLflow look on, through Lightning's loggers.

They are told what a run is, how its trainings go and what they came to. They are part of no key, write below the run's
folder, and never stop it: one that fails is left out, with a warning. Lightning is imported only for those asked for.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console

from usbench.errors import UsbenchError, texts_of, unknown
from usbench.report.cells import Cell
from usbench.report.differences import difference
from usbench.report.files import one_line
from usbench.runs.stage import Stage
from usbench.train.schedule import Schedule

NAMES = ("tensorboard", "wandb", "mlflow")
# Nothing leaves the machine unless its user says so, and nobody writes between the lines of a display.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ALLOW_FILE_STORE": "true", "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true", "WANDB_CONSOLE": "off",
}  # fmt: skip


def tracker_names(given: str | Sequence[str] | None) -> list[str]:
    """The trackers that are asked for, by comma or as a list, each once."""
    names = [name for text in texts_of(given, "--track") for name in text.split(",")]
    asked = list(dict.fromkeys(name.strip() for name in names if name.strip()))
    for name in asked:
        if name not in NAMES:
            raise unknown("tracker", name, NAMES)
    return asked


class Trackers:
    """An observer that tells trackers what it sees. Used in a `with`: they are begun before anything runs."""

    stopping = False

    def __init__(self, names: Sequence[str], folder: Path, facts: Mapping[str, Any], console: Console) -> None:
        self.console = console
        self.facts = {key: str(value) if isinstance(value, list) else value for key, value in facts.items()}
        self.loggers: dict[str, Any] = {}
        self.tags: dict[str, str] = {}
        for name in names:
            self.loggers[name] = self._begun(name, folder.absolute())

    def _begun(self, name: str, folder: Path) -> Any:
        """A tracker that was heard to work, or a sentence."""
        for key, value in QUIET.items():
            os.environ.setdefault(key, value)
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        logging.getLogger("mlflow").setLevel(logging.ERROR)
        try:
            (folder / "track").mkdir(parents=True, exist_ok=True)
            logger = MAKERS[name](folder / "track", folder.name)
            _ = logger.experiment  # connects
            # TensorBoard lists no settings without a metric beside them.
            logger.log_hyperparams(self.facts, **({"metrics": {"begun": 1}} if name == "tensorboard" else {}))
            logger.save()
        except Exception as error:  # a tracker may raise anything
            self._close("failed")
            mend = f"pip install '{name}' or 'usbench[track]'" if isinstance(error, ImportError) else "mend that"
            why = one_line(str(error)).rstrip(".")[:300]
            raise UsbenchError(f"--track {name} cannot be used ({why}): {mend}, or run without it.") from error
        return logger

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close("failed" if kind else "success")

    def _close(self, status: str) -> None:
        def close(name: str, logger: Any) -> None:
            logger.finalize(status)
            if name == "wandb":
                logger.experiment.finish(int(status != "success"))

        self._all(close)
        self.loggers = {}

    def _all(self, tell: Callable[[str, Any], None]) -> None:
        """Tell every tracker; one that fails is not told anything again."""
        for name, logger in list(self.loggers.items()):
            try:
                tell(name, logger)
            except Exception as error:  # noqa: BLE001 - a tracker may raise anything, and the run matters more
                del self.loggers[name]
                why = one_line(str(error)).rstrip(".")[:300] or type(error).__name__
                said = f"warning: {name} is tracked no further ({why}); the run goes on."
                self.console.print(said, highlight=False, markup=False)

    def _log(self, metrics: Mapping[str, float], step: int) -> None:
        known = {key: value for key, value in metrics.items() if math.isfinite(value)}
        self._all(lambda name, logger: logger.log_metrics(known, step=step))

    def expect(self, stages: Iterable[Stage]) -> None:
        """Name the stages that will be told of: by title, and by key too where two have the same."""
        every = list(stages)
        self.tags = dict(zip([s.id for s in every], _apart([(s.title, s.key) for s in every]), strict=True))

    def begin(self, stage: Stage, place: int, total: int) -> None:
        """A stage begins."""

    def step(self, stage: Stage, done: int, total: int, loss: float, rate: float) -> None:
        """A point of a training's curve."""
        if self.loggers:
            tag = self.tags.get(stage.id) or _tag(stage.title)
            schedule = Schedule(**stage.identity["schedule"])
            lr = schedule.rate(done - 1)
            self._log({f"{tag}/loss": loss, f"{tag}/lr": lr, f"{tag}/images_per_second": rate}, done)

    def end(self, stage: Stage) -> None:
        """A stage is finished."""

    def fail(self, stage: Stage, why: str) -> None:
        """A stage failed."""

    def wait(self, stage: Stage, who: str) -> None:
        """Another process does what is left."""

    def finish(self, every: Sequence[Cell], pictures: Iterable[Path]) -> None:
        """What the run came to, also where it was computed before: a score a row, and the pictures."""
        if not self.loggers:
            return
        rows = zip(_apart([(_called(cell), cell.row["setting"]) for cell in every]), every, strict=True)
        scores: dict[str, float] = {}
        for name, cell in rows:
            scores |= {f"{_tag(cell.primary)}/{name}": cell.interval().mean}
            scores |= {f"difference to supervised/{name}": difference(cell, cell.base).mean}
        self._log(scores, 0)
        for path in pictures:
            self._all(functools.partial(_show, path))


def _called(cell: Cell) -> str:
    row = cell.row
    words = [row["loss"], row["aug"] if row["aug"] != "none" else "", row["init"] if row["init"] != "random" else ""]
    return " ".join([*filter(None, words), f"{row['label_fraction']:g} percent on {row['test_data']} {row['shift']}"])


def _tag(title: str) -> str:
    """A name that all of them take: MLflow knows few signs, and '/' makes groups."""
    return " ".join(re.sub(r"[^A-Za-z0-9_. -]+", " ", title.replace("%", "percent").replace("/", "-")).split())[:200]


def _apart(named: Sequence[tuple[str, str]]) -> list[str]:
    """Tags of titles; where two are the same, their keys tell them apart."""
    tags = [_tag(title) for title, _ in named]
    return [tag if tags.count(tag) == 1 else f"{tag} {key[:8]}" for tag, (_, key) in zip(tags, named, strict=True)]


def _tensorboard(folder: Path, run: str) -> Any:
    from pytorch_lightning.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="tensorboard", version="", default_hp_metric=False)


def _mlflow(folder: Path, run: str) -> Any:
    from pytorch_lightning.loggers import MLFlowLogger

    where = os.environ.get("MLFLOW_TRACKING_URI") or (folder / "mlflow").as_uri()
    return MLFlowLogger(experiment_name="usbench", run_name=run, tracking_uri=where)


def _wandb(folder: Path, run: str) -> Any:
    from pytorch_lightning.loggers import WandbLogger

    project = os.environ.get("WANDB_PROJECT", "usbench")
    (folder / "wandb").mkdir(exist_ok=True)
    return WandbLogger(name=run, save_dir=folder, project=project, offline="WANDB_MODE" not in os.environ)


MAKERS = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}


def _show(path: Path, name: str, logger: Any) -> None:
    """Hand a picture over: Lightning has one call for it with Weights & Biases only."""
    if name == "tensorboard":
        import numpy as np
        from PIL import Image

        with Image.open(path) as picture:
            logger.experiment.add_image(path.stem, np.asarray(picture.convert("RGB")), dataformats="HWC")
    elif name == "mlflow":
        logger.experiment.log_artifact(logger.run_id, str(path), "pictures")
    else:
        logger.log_image(path.stem, [str(path)])
