"""The page: a leaderboard as one file that needs no network, no server and no other file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from usbench import __version__
from usbench.report import page_figures as figures
from usbench.report.cells import Cell
from usbench.report.columns import DISTANCES
from usbench.report.files import number, visible
from usbench.report.folds import folded
from usbench.report.gallery import SHARED, gallery
from usbench.report.leaderboard import table_of
from usbench.report.origin import Origins
from usbench.report.page_lines import legend, methods_of, shown_together
from usbench.report.page_ranks import rank_panels
from usbench.report.page_table import FILTERS, SURE, Table, tables_of
from usbench.report.summary import places_of
from usbench.report.table import TRANSDUCTIVE, footnotes, title_of
from usbench.runs.store import Store


def page_text(
    every: Sequence[Cell], stores: Sequence[Store], missing: Sequence[str], *, images: bool, live: str = ""
) -> str:
    """The page of some rows; `live` is the state that a served page was made of, and lets it ask for a newer one."""
    by_fold, every = every, folded(every)
    table = table_of(every)
    tables, filters = tables_of(table, every)
    figured = shown_together(every)
    primary = figured[0].primary if figured else ""
    methods = methods_of(figured)
    origins = Origins(stores)
    cases = gallery(by_fold, places_of(stores), images=images)
    rows = _rows(table, every, origins)
    shown = {id(cell) for cell in every}
    if apart := [cell for cell in by_fold if id(cell) not in shown]:  # cases are shown of folds, and ask for their rows
        rows += _rows(table_of(apart), apart, origins)
    robust_of, robust = figures.robustness_panels([c for c in every if c.primary == primary], methods)
    budget_of, budget, same = figures.budget_panels(methods)
    data = {
        "rows": rows, "runs": origins.runs, "versions": origins.versions, "stages": origins.identities,
        "gallery": cases.groups, "cases": SHARED, "live": live,
    }  # fmt: skip
    style, script = (_asset(name) for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; base-uri 'none'; "
        f"form-action 'none'{'; connect-src ' + chr(39) + 'self' + chr(39) if live else ''}"
    )
    environment = Environment(
        loader=PackageLoader("usbench.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("page.html").render(
        title=_title(methods_of(figured, of_panels=True)), facts=_facts(every, origins), finding=_finding(tables),
        policy=policy, style=Markup(style), script=Markup(script), data=_inert(data), tables=tables,
        filters=[(FILTERS[k], place, some) for place, (k, some) in enumerate(filters.items()) if len(some) > 1],
        notes=[visible(note) for note in (*footnotes(by_fold, missing), *_unpictured(every, primary))],
        metric=title_of(primary),
        methods=list(methods.values()), legend=legend(methods.values()), curves=figures.against_labels(methods),
        heats=figures.heat_maps(methods), robust=robust, robust_of=robust_of, budget=budget, budget_of=budget_of,
        budget_same=same,
        ranks=rank_panels(every, methods), cases=cases, live=bool(live), version=__version__,
        made=visible(origins.finished[:16].replace("T", " ")),
    )  # fmt: skip


def _asset(name: str) -> str:
    return files("usbench.report").joinpath("templates", name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _inert(data: Mapping[str, Any]) -> Markup:
    """JSON that no parser of HTML can take for anything else."""
    parts = json.loads(json.dumps(data, default=str), parse_constant=str)  # a NaN is no JSON, and would stop the script
    text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _title(methods: Mapping[str, Any]) -> str:
    own = [m.name for m in methods.values() if not m.cells[0].row["baseline"]]
    baselines = len(methods) - len(own)
    beside = f" and {baselines} supervised baseline{'s' if baselines > 1 else ''}" if baselines else ""
    if not own:
        return "Supervised baselines" if methods else "Leaderboard"
    return f"{own[0]}{beside}" if len(own) == 1 else f"{len(own)} pretraining methods{beside}"


def _facts(every: Sequence[Cell], origins: Origins) -> list[tuple[str, str]]:
    """What was compared, on what machine, and how many runs that took."""

    def names(what: str) -> list[str]:
        return [visible(v) for v in dict.fromkeys(str(cell.row.get(what, "")) for cell in every) if v]

    fractions = sorted({float(cell.row["label_fraction"]) for cell in every})
    parts = [part for cell in every for result in cell.results for part in result.each]
    trainings = {part.finetuned for part in parts}
    devices = ", ".join(names("device"))
    machines = ", ".join(map(visible, sorted(origins.machines)))
    found = [
        ("trained on", _few(names("train_data"))), ("tested on", _few(names("test_data"))),
        ("labels", ", ".join(f"{f:g}" for f in fractions) + " %"), ("network", _few(names("backbone"))),
        ("seeds", str(len({seed for cell in every for seed in cell.seeds}))),
        ("runs", f"{len(trainings)} fine-tunes, {len(parts)} tests"),
        ("machine", f"{devices} ({machines})" if machines else devices),
    ]  # fmt: skip
    return [(name, text) for name, text in found if text]


def _unpictured(every: Sequence[Cell], primary: str) -> Iterator[str]:
    """Which rows the figures leave out."""
    if primary and any(cell.primary != primary for cell in every):
        yield f"Figures are of {title_of(primary)}: rows with another metric stand in their tables."
    if any(cell.row["shift"] == TRANSDUCTIVE for cell in every):
        yield "Rows whose pretraining saw images of a test set are in no figure but the mean ranks, among themselves."


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 5 else f"{', '.join(names[:3])} and {len(names) - 3} more"


def _finding(tables: Sequence[Table]) -> str:
    """How many differences of the first table are told apart from none, in a sentence."""
    if not tables:
        return "There is no finished result yet."
    lines = tables[0].lines
    differences = [line.cells["delta"].value for line in lines if line.cells["delta"].value is not None]
    tested = [line for line in lines if line.cells["p_holm"].value is not None]
    if not differences:
        return "No row stands beside a supervised baseline of its own arena, so no difference is taken."
    if not tested:
        count = "1 difference" if len(differences) == 1 else f"{len(differences)} differences"
        return f"{count} to the supervised baseline, from one seed: no test is made."
    sure = [line.cells["delta"].value or 0.0 for line in tested if (line.cells["p_holm"].value or 0.0) < SURE]
    better = sum(value > 0 for value in sure)
    said = f"of {len(tested)} differences to the supervised baseline"
    if not sure:
        return f"None {said} is significant (Holm-adjusted p < {SURE:g})."
    verb = "is" if len(sure) == 1 else "are"
    return (
        f"{len(sure)} {said} {verb} significant (Holm-adjusted p < {SURE:g}): {better} above it, "
        f"{len(sure) - better} below."
    )


def _rows(table: Any, every: Sequence[Cell], origins: Origins) -> list[dict[str, Any]]:
    """What a dialog tells of each row, in the order of the table."""
    found = []
    for row, cell in zip(table.to_dict("records"), every, strict=True):
        scores = []
        for metric in dict.fromkeys(cell.metrics):
            for name in (metric, *([f"{metric}_mm"] if metric in DISTANCES else [])):
                parts = [number(row.get(f"{name}{end}"), ".4g") for end in ("_mean", "_low", "_high")]
                if parts[0]:
                    scores.append([visible(name.replace("_", " ")), *parts])
        said = {
            "labels": f"{row['label_fraction']:g} %", "fold": row["fold"], "size": f"{row['size']} px",
            "protocol": row["protocol"], "precision": row["precision"], "device": row["device"],
            "chosen step by": row["selection"], "setting chosen": row["chosen"], "suite": row["suite"],
            "inner validation": number(row["score_inner"], ".3f"), "steps": number(row["steps"], ",.0f"),
            "images seen": number(row["images_seen"], ",.0f"), "pixels seen": number(row["pixels_seen"], ",.0f"),
            "device seconds": number(row["device_seconds"], ",.1f"),
            "peak memory, MiB": number(row["peak_mib"], ",.0f"),
            "false positives on normal images": number(row["normal_fp_rate"], ".1%"),
            "near-duplicates let pass": str(row["leaks"]) if row["leaks"] else "",
        }  # fmt: skip
        name = visible(row["loss"] if row["aug"] == "none" else f"{row['loss']} · {row['aug']}")
        where = visible(f"{row['train_data']} → {row['test_data']} ({row['shift']})")
        start = "" if row["init"] == "random" else f" · {visible(row['init'].removesuffix('.safetensors'))}"
        found.append({
            "key": str(row["key"]), "name": f"{name}{start}", "where": where, "labels": said["labels"],
            "arena": visible(cell.row["arena"]), "baseline": bool(cell.row["baseline"]),
            "facts": [[k, visible(v)] for k, v in said.items() if str(v) not in ("", "nan")], "scores": scores,
            **origins.of(cell),
        })  # fmt: skip
    return found


def write_page(path: Path, text: str) -> None:
    """Write the page whole or not at all."""
    from usbench.report.files import write_text

    write_text("--html", path, text)
