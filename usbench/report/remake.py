"""Per-image scores made again from the predicted masks and the pack."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from usbench.data.pack import Pack
from usbench.errors import UsbenchError
from usbench.hooks import Entry, registry
from usbench.report.masks import MASKS, Masks
from usbench.report.results import SCORES, Result
from usbench.report.summary import places_of
from usbench.runs.store import Store
from usbench.source import told


@dataclass(frozen=True)
class Answer:
    """Whether scores are what their masks give: what is wrong, or why nobody can say."""

    wrong: str = ""
    skipped: str = ""


class Remaker:
    """Scores evaluations again. Packs are found by their digest: those of the store's runs, then the data home's."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._packs: dict[str, Pack | str] = {}
        self._places: dict[str, Path] | None = None

    def compare(self, result: Result, record: Mapping[str, Any]) -> Answer:
        """Score the masks of an evaluation and compare with what stands there."""
        if not (result.folder / MASKS).is_file():
            said = "" if self.store.leaves_out(MASKS) else "an evaluation that keeps no masks"
            return Answer(skipped=said)
        name, digest = result.row["test_data"], str(result.facts.get("pack", ""))
        pack = self._pack(digest)
        if isinstance(pack, str):
            return Answer(skipped=f"an evaluation on '{name}', {pack}")
        identity = dict(record["identity"]).get("protocol") or {}
        if not isinstance(identity, dict) or not isinstance(identity.get("options", {}), dict):
            return Answer(wrong="record.json: it does not say what protocol it was")
        entries = {entry.name: entry for entry in registry().entries("protocol")}
        entry = entries.get(identity.get("name", ""))
        if entry is None:
            return Answer(skipped=f"an evaluation by protocol '{identity.get('name')}', which is not installed")
        try:
            remade = self._scored(entry, identity.get("options", {}), result, pack)
            wrong = remade if isinstance(remade, str) else _apart(result.folder / SCORES, remade)
        except UsbenchError as error:
            wrong = f"{MASKS}: {error}"
        if wrong and entry.source != identity.get("source"):
            return Answer(skipped=f"an evaluation by protocol '{entry.name}', which was changed since")
        return Answer(wrong=wrong)

    def _scored(self, entry: Entry, options: dict[str, Any], result: Result, pack: Pack) -> pd.DataFrame | str:
        from usbench.evaluate.testing import score_images

        try:
            masks = Masks(result.folder).all()
        except UsbenchError as error:
            return f"{MASKS}: {error.__cause__ or error!s}"
        names = result.scores().get("name")
        if names is None:
            return f"{SCORES}: it has no column 'name'"
        place = pd.Series(np.arange(pack.count), index=pack.table.name)
        if strangers := [name for name in names if name not in place.index]:
            return f"{SCORES}: the pack has no image '{strangers[0]}'"
        if len(names) != len(masks):
            return f"{MASKS}: it holds {len(masks)} masks for {len(names)} images"
        if masks.shape[1:] != (pack.size, pack.size):
            return f"{MASKS}: its masks are {masks.shape[1]} × {masks.shape[2]}, the pack's images {pack.size}"
        rows = place[names].to_numpy()
        with told(f"protocol '{entry.name}'", [entry.where]):
            return score_images(entry.build(**entry.parse(options)), masks, pack, rows)

    def _pack(self, digest: str) -> Pack | str:
        """The pack, or why there is none to score with."""
        if self._places is None:
            self._places = places_of([self.store])
        if digest not in self._packs:
            self._packs[digest] = self._opened(self._places[digest]) if digest in self._places else (
                f"whose pack {digest} is not here"
            )  # fmt: skip
        return self._packs[digest]

    @staticmethod
    def _opened(place: Path) -> Pack | str:
        try:
            pack = Pack(place)
            pack.check()
        except UsbenchError as error:
            return f"whose pack is of no use here: {str(error).rstrip('.')}"
        return pack


def _apart(path: Path, remade: pd.DataFrame) -> str:
    """The first number that is another one; empty where all are the same. Columns of either alone do not count."""
    text = remade.to_csv(index=False, float_format="%.6g")
    if path.read_bytes() == text.encode():
        return ""
    kept, made = (pd.read_csv(f, dtype=str, keep_default_na=False) for f in (path, io.StringIO(text)))
    for column in [c for c in kept.columns if c in made]:
        for name, mine, again in zip(kept["name"], kept[column], made[column], strict=True):
            if mine != again:
                return f"{path.name}: {column} of image '{name}' is {mine}, and its mask gives {again}"
    return ""
