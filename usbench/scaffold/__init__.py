"""A package with one working plugin, to begin one's own with: what `usbench plugins new` writes."""

from __future__ import annotations

import importlib.util
import keyword
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

from usbench import __version__
from usbench.errors import UsbenchError
from usbench.hooks import registry
from usbench.hookspecs import HOOK_OF

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


@dataclass(frozen=True)
class Kind:
    """What differs between the packages of two kinds."""

    factory: str  # what the module defines and `register` is given
    summary: str
    more: str  # arguments of `register`
    use: str  # a command that uses the plugin


KINDS = {
    "loss": Kind(
        "$class_name", "two views of an image should be more alike than those of two images",
        'options={"temperature": 0.2, "projection": 64}', "usbench run --loss $name --aug freq",
    ),
    "augmentation": Kind(
        "$class_name", "random gamma: greys become brighter or darker, black and white stay",
        'options={"gamma": (0.7, 1.4)}', "usbench preview --aug spatial+$name -o views.png",
    ),
    "backbone": Kind(
        "build", "three levels of convolutions and a decoder with skips",
        'options={"width": 16}', "usbench run --loss none --backbone $name",
    ),
    "dataset": Kind(
        "$class_name", "images in images/, masks of the same name in masks/, a table with patients and findings",
        "", "usbench data import $name PATH",
    ),
    "protocol": Kind(
        "$class_name", "fine-tunes the whole network with a focal loss; Dice and distances an image",
        'needs=("mask",)', "usbench run --loss none --protocol $name",
    ),
}  # fmt: skip


def write_package(name: str, kind: str, parent: Path) -> Path:
    """Write the package of a plugin into `parent`/`name`, which must not be there yet; returns that folder."""
    module = _checked(name, kind)
    folder = parent / name
    if folder.exists():
        raise UsbenchError(f"{folder} is there already: choose another name, or another place with -o.")
    chosen = KINDS[kind]
    words = {
        "name": name, "module": module, "kind": kind, "hook": HOOK_OF[kind], "version": __version__,
        "class_name": "".join(part.capitalize() for part in name.split("-")), "summary": chosen.summary,
    }  # fmt: skip
    words["factory"] = Template(chosen.factory).substitute(words)
    words["use"] = Template(chosen.use).substitute(words)
    words["more"] = f"\n        {chosen.more}," if chosen.more else ""
    places = {
        "pyproject.toml": "pyproject.toml", "README.md": "README.md", "init.py": f"{module}/__init__.py",
        f"{kind}.py": f"{module}/{kind}.py", "test.py": f"tests/test_{module}.py",
    }  # fmt: skip
    for template, place in places.items():
        text = files("usbench.scaffold").joinpath("templates", f"{template}.txt").read_text("utf-8")
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Template(text).substitute(words), "utf-8")
    return folder


def _checked(name: str, kind: str) -> str:
    """The module of a plugin of that name; refuses a name that cannot be one, or is taken."""
    if not NAME.fullmatch(name):
        raise UsbenchError(f"'{name}' cannot name a plugin: use lower-case letters, digits and '-', as in my-{kind}.")
    known = registry()
    if taken := [entry for entry in known.entries(kind) if entry.name == name]:
        raise UsbenchError(f"there is a {kind} '{name}' already, from plugin '{taken[0].plugin}': choose another name.")
    module = name.replace("-", "_")
    if keyword.iskeyword(module) or known.pm.has_plugin(name) or importlib.util.find_spec(module) is not None:
        raise UsbenchError(f"'{name}' would hide a module or a plugin of that name: choose another, as my-{name}.")
    return module
