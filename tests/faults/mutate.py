"""Damages of files: of bytes, of JSON, of TOML, of tables. Each takes a path and a generator, and writes there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Rng = np.random.Generator
Damage = Callable[[Path, Rng], None]

DEEP = 100_000
HOSTILE: list[Any] = [
    None, True, -1, 0, 7.5, 1e308, float("nan"), float("inf"), 10**400, "", "../../../tmp/outside", "a\0b", "CON",
    "x" * 5000, "\x1b[31mred", "\udcff", [], {}, [[]], {"a": {}}, [1, "a", None],
]  # fmt: skip
CELLS = ["", "nan", "inf", "-1", "1e999", "=1+1", "../../x", "a\0b", "x" * 5000, '"', "\x1b[2J", "ä", "\u2028", "1,5"]
LITERALS = [
    "nan", "inf", "-1", "0", "1e308", "99999999999999999999999999", '""', '"../../x"', '"a\\u0000b"', "[]", "{}",
    "[[]]", "true", "1979-05-27", '["a", 1]', '[""]', "{ a = { b = [1] } }", '"' + "x" * 5000 + '"',
]  # fmt: skip


def _bytes(change: Callable[[bytearray, Rng], bytearray | bytes]) -> Damage:
    def damage(path: Path, rng: Rng) -> None:
        data = bytearray(path.read_bytes())
        path.unlink()  # it may be a link to the good one
        path.write_bytes(change(data, rng))

    return damage


def _flip(data: bytearray, rng: Rng, end: int, times: int) -> bytearray:
    for place in rng.integers(max(1, min(end, len(data))), size=times):
        data[place] ^= 1 << int(rng.integers(8))
    return data


def _zeroed(data: bytearray, rng: Rng) -> bytearray:
    start = int(rng.integers(len(data)))
    length = min(len(data) - start, int(rng.integers(1, 4096)))
    data[start : start + length] = bytes(length)
    return data


def _cut_out(data: bytearray, rng: Rng) -> bytearray:
    start = int(rng.integers(len(data)))
    del data[start : start + int(rng.integers(1, 64))]
    return data


def _put_in(data: bytearray, rng: Rng) -> bytearray:
    start = int(rng.integers(len(data)))
    data[start:start] = rng.bytes(int(rng.integers(1, 64)))
    return data


BYTES: dict[str, Damage] = {
    "empty": _bytes(lambda data, rng: b""),
    "cut short": _bytes(lambda data, rng: data[: int(rng.integers(len(data)))]),
    "half": _bytes(lambda data, rng: data[: len(data) // 2]),
    "last byte gone": _bytes(lambda data, rng: data[:-1]),
    "a bit of the head": _bytes(lambda data, rng: _flip(data, rng, 512, 1)),
    "eight bits of the head": _bytes(lambda data, rng: _flip(data, rng, 512, 8)),
    "a bit": _bytes(lambda data, rng: _flip(data, rng, len(data), 1)),
    "64 bits": _bytes(lambda data, rng: _flip(data, rng, len(data), 64)),
    "a hole of zeros": _bytes(_zeroed),
    "bytes cut out": _bytes(_cut_out),
    "bytes put in": _bytes(_put_in),
    "noise": _bytes(lambda data, rng: rng.bytes(2000)),
    "text": _bytes(lambda data, rng: b"name,label\na,b\n"),
}


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value of a JSON document."""
    yield at
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(part, (*at, key))


def _json(change: Callable[[Any, Any, Rng], None]) -> Damage:
    """A change of the value at a random place: given what holds it, and its key there."""

    def damage(path: Path, rng: Rng) -> None:
        whole = [json.loads(path.read_text("utf-8"))]
        every = [at for at in places(whole) if at]
        at = every[int(rng.integers(len(every)))]
        holder: Any = whole
        for key in at[:-1]:
            holder = holder[key]
        change(holder, at[-1], rng)
        path.unlink()
        path.write_text(json.dumps(whole[0] if whole else None), "utf-8", errors="surrogateescape")

    return damage


def _replaced(holder: Any, key: Any, rng: Rng) -> None:
    holder[key] = HOSTILE[int(rng.integers(len(HOSTILE)))]


def _wrapped(holder: Any, key: Any, rng: Rng) -> None:
    holder[key] = [holder[key], holder[key]]


def _removed(holder: Any, key: Any, rng: Rng) -> None:
    del holder[key]


def _renamed(holder: Any, key: Any, rng: Rng) -> None:
    if isinstance(holder, dict):
        holder[f"{key}_"] = holder.pop(key)
    else:
        holder.append(holder[key])


def _text(change: Callable[[str, Rng], str | bytes]) -> Damage:
    def damage(path: Path, rng: Rng) -> None:
        made = change(path.read_text("utf-8"), rng)
        path.unlink()
        path.write_bytes(made.encode("utf-8", "surrogateescape") if isinstance(made, str) else made)

    return damage


TEXTS: dict[str, Damage] = {
    "not UTF-8": _text(lambda text, rng: text.encode() + b"\xff\xfe\x80"),
    "UTF-16": _text(lambda text, rng: text.encode("utf-16")),
    "with a mark": _text(lambda text, rng: "\ufeff" + text),
    "NUL": _text(lambda text, rng: text[: len(text) // 2] + "\0" + text[len(text) // 2 :]),
}
JSON: dict[str, Damage] = {
    "a value replaced": _json(_replaced),
    "another value replaced": _json(_replaced),
    "a value doubled": _json(_wrapped),
    "a key removed": _json(_removed),
    "a key renamed": _json(_renamed),
    "nested deeply": _text(lambda text, rng: "[" * DEEP + "]" * DEEP),
    "objects nested deeply": _text(lambda text, rng: '{"a":' * DEEP + "1" + "}" * DEEP),
    "a list": _text(lambda text, rng: f"[{text}]"),
    "a number": _text(lambda text, rng: "3"),
    **{name: BYTES[name] for name in ("empty", "cut short", "a bit", "bytes cut out", "noise")},
    **TEXTS,
}


def _line(change: Callable[[str, Rng], str]) -> Damage:
    """A change of a random line that holds a setting."""

    def changed(text: str, rng: Rng) -> str:
        lines = text.splitlines()
        settings = [place for place, line in enumerate(lines) if "=" in line]
        place = settings[int(rng.integers(len(settings)))]
        lines[place] = change(lines[place], rng)
        return "\n".join(lines) + "\n"

    return _text(changed)


def _valued(line: str, rng: Rng) -> str:
    return re.sub(r"=.*", lambda _: f"= {LITERALS[int(rng.integers(len(LITERALS)))]}", line, count=1)


TOML: dict[str, Damage] = {
    "a value replaced": _line(_valued),
    "another value replaced": _line(_valued),
    "one more value replaced": _line(_valued),
    "a line twice": _line(lambda line, rng: f"{line}\n{line}"),
    "a line gone": _line(lambda line, rng: ""),
    "a key renamed": _line(lambda line, rng: f"x{line}"),
    "nested deeply": _text(lambda text, rng: f"a = {'[' * DEEP}{']' * DEEP}\n{text}"),
    "tables nested deeply": _text(lambda text, rng: f"{text}\n[{'.'.join('a' * 5000)}]\nb = 1\n"),
    **{name: BYTES[name] for name in ("empty", "cut short", "a bit", "bytes cut out", "noise")},
    **TEXTS,
}


def _cell(text: str, rng: Rng) -> str:
    lines = text.splitlines()
    row = int(rng.integers(len(lines)))
    cells = lines[row].split(",")
    cells[int(rng.integers(len(cells)))] = CELLS[int(rng.integers(len(CELLS)))]
    lines[row] = ",".join(cells)
    return "\n".join(lines) + "\n"


def _shuffled(text: str, rng: Rng) -> str:
    lines = text.splitlines()
    lines[int(rng.integers(len(lines)))] = lines[int(rng.integers(len(lines)))]
    return "\n".join(lines) + "\n"


CSV: dict[str, Damage] = {
    "a cell replaced": _text(_cell),
    "another cell replaced": _text(_cell),
    "one more cell replaced": _text(_cell),
    "a row by another": _text(_shuffled),
    "no head": _text(lambda text, rng: text.partition("\n")[2]),
    "the head alone": _text(lambda text, rng: text.partition("\n")[0] + "\n"),
    "a cell too many": _text(lambda text, rng: text.rstrip("\n") + ",more,more\n"),
    "an open quote": _text(lambda text, rng: text.replace(",", ',"', 1)),
    "semicolons": _text(lambda text, rng: text.replace(",", ";")),
    "many columns": _text(lambda text, rng: ",".join(map(str, range(20_000))) + "\n" + text),
    **{name: BYTES[name] for name in ("empty", "cut short", "a bit", "64 bits", "bytes cut out", "noise")},
    **TEXTS,
}
