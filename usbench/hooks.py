"""The plugin manager, and the registries that the plugins fill.

Listing, validating and planning read only what is here: nothing of torch is imported until a factory is resolved.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pluggy

from usbench.errors import Refused, UsbenchError, unknown
from usbench.hookspecs import GROUP, HOOK_OF, KINDS, Hooks
from usbench.loose import Shared, import_file, shared_names
from usbench.options import cast
from usbench.registration import check_registration, misspelt, words
from usbench.source import digest, forget_loaded, note_loaded


@dataclass(frozen=True)
class Entry:
    """One registered name: all that is known about it without importing what it needs."""

    kind: str
    name: str
    factory: str | Callable[..., Any] | None
    summary: str
    reference: str
    plugin: str
    where: str  # the file that registered it
    needs: tuple[str, ...] = ()
    reconstruction: bool = False
    baseline: str = ""  # of a loss without pretraining: "plain", or "long" for as many steps as a pretrained row
    generated: bool = False  # a data set that needs no download
    revision: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    gives: tuple[str, ...] = ()  # what a backbone has beyond maps, for losses that need it: "tokens"
    frozen: bool = False  # a protocol that fits frozen features once, without a training step
    uses: tuple[str, ...] = ()  # what a loss learns from where it is there: "label"

    @property
    def learns_labels(self) -> bool:
        """Whether a loss is shown labels; no other one is."""
        return "label" in (*self.needs, *self.uses)

    def resolve(self) -> Callable[..., Any]:
        """The factory itself; imports what it needs."""
        if self.factory is None:
            raise UsbenchError(f"{self.kind} '{self.name}' is a baseline and builds nothing.")
        if not isinstance(self.factory, str):
            return self.factory
        return load_object(self.factory, f"{self.kind} '{self.name}'")

    def build(self, *args: Any, **options: Any) -> Any:
        """Call the factory with the registered defaults, the fixed arguments and the given options."""
        try:
            return self.resolve()(*args, **{**self.options, **self.fixed, **options})
        except (ValueError, TypeError, SystemExit) as error:
            chosen = {k: v for k, v in options.items() if k not in self.options or v != self.options[k]}
            shown = ", ".join(f"{k}={v!r}" for k, v in chosen.items()) or "its defaults"
            why = f"it leaves the program (SystemExit: {error})" if isinstance(error, SystemExit) else error
            raise Refused(f"{self.kind} '{self.name}' refuses {shown}: {why}") from error

    def parse(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """All options resolved: given ones checked against the declared defaults and cast to their type."""
        resolved = dict(self.options)
        for key, value in options.items():
            if key not in self.options:
                raise unknown("option", key, self.options, where=f"of {self.kind} '{self.name}'")
            resolved[key] = cast(value, self.options[key], f"option '{key}' of {self.kind} '{self.name}'")
        return resolved

    @functools.cached_property
    def source(self) -> str:
        """A digest of the plugin's source, and of the plugins that it imports."""
        return digest(Path(self.where))


def load_object(path: str, asker: str) -> Any:
    """The object that a "module:Name" string names."""
    module_name, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, SyntaxError, SystemExit) as error:
        raise UsbenchError(f"{asker} names '{path}', which cannot be loaded: {error}.") from error


class Registry:
    """Every loaded plugin and every name they registered."""

    def __init__(self) -> None:
        self.pm = pluggy.PluginManager(GROUP)
        self.pm.add_hookspecs(Hooks)
        self.broken: dict[str, str] = {}  # plugin → why it could not be loaded
        self.folders: list[Path] = []  # of loose files, for workers that must load the same
        self._entries: dict[str, dict[str, Entry]] = {kind: {} for kind in KINDS}
        self._found: set[str] = set()  # plugins that another process finds too

    @property
    def travels(self) -> bool:
        """Whether another process would find the same plugins; none that was handed over as an object."""
        return all(name in self._found for name, _ in self.pm.list_name_plugin())

    def add(self, plugin: Any, name: str) -> None:
        """Load one plugin and take in what it registers; a plugin that fails is set aside with its reason."""
        if self.pm.is_registered(plugin):
            return
        if other := self.pm.get_plugin(name):
            raise UsbenchError(
                f"two plugins are called '{name}': {_where(other)} and {_where(plugin)}; rename or remove one."
            )
        before = {kind: dict(entries) for kind, entries in self._entries.items()}
        try:
            self.pm.register(plugin, name)
            self.pm.check_pending()
            where = _where(plugin)
            note_loaded(where)
            for kind, hook in HOOK_OF.items():
                if function := getattr(plugin, hook, None):
                    function(functools.partial(self._register, kind, name, where))
        except UsbenchError:
            self._entries = before
            self.pm.unregister(name=name)
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's plugin may raise anything
            self._entries = before
            if self.pm.has_plugin(name):
                self.pm.unregister(name=name)
            self.broken[name] = misspelt(plugin) or f"{type(error).__name__}: {error}"

    def remove(self, name: str) -> None:
        """Forget a plugin and what it registered."""
        self.pm.unregister(name=name)
        for entries in self._entries.values():
            for key in [k for k, e in entries.items() if e.plugin == name]:
                del entries[key]

    def _register(
        self, kind: str, plugin: str, where: str, name: str, factory: str | Callable[..., Any] | None, *, summary: str,
        reference: str = "", needs: tuple[str, ...] = (), uses: tuple[str, ...] = (), gives: tuple[str, ...] = (),
        reconstruction: bool = False, baseline: str = "", generated: bool = False, frozen: bool = False,
        revision: int = 1, options: Mapping[str, Any] | None = None, **fixed: Any,
    ) -> None:  # fmt: skip
        other = self._entries[kind].get(name) if isinstance(name, str) else None
        if other is not None:
            raise UsbenchError(
                f"two plugins register the {kind} '{name}': '{other.plugin}' and '{plugin}'; rename or remove one."
            )
        if not isinstance(name, str) or not name or not all(c.isalnum() or c in "-_." for c in name):
            raise UsbenchError(f"plugin '{plugin}' registers the {kind} {name!r}: use letters, digits, '-', '_', '.'.")
        said = {
            "summary": summary, "reference": reference, "baseline": baseline, "revision": revision,
            "needs": needs, "uses": uses, "gives": gives,
        }  # fmt: skip
        check_registration(f"{kind} '{name}'", factory, said, {} if options is None else options, fixed)
        self._entries[kind][name] = Entry(
            kind, name, factory, summary, reference, plugin, where, words(needs), reconstruction, baseline, generated,
            revision, options or {}, fixed, words(gives), frozen, words(uses),
        )  # fmt: skip

    def entries(self, kind: str | None = None) -> Iterator[Entry]:
        """Every registered entry of a kind, or of all, by name."""
        for each in KINDS if kind is None else (kind,):
            yield from (self._entries[each][name] for name in sorted(self._entries[each]))

    def get(self, kind: str, name: str) -> Entry:
        """The entry of that name, or a sentence with the nearest one."""
        try:
            return self._entries[kind][name]
        except KeyError:
            raise self.unknown(kind, name) from None

    def unknown(self, kind: str | None, name: str) -> UsbenchError:
        """The error for a name of a kind, or of any, that nobody registered; a plugin that is broken may have."""
        error = unknown(kind or "plugin", name, {entry.name for entry in self.entries(kind)})
        if not self.broken:
            return error
        reasons = "; ".join(f"'{plugin}' ({why})" for plugin, why in self.broken.items())
        return UsbenchError(f"{error} These plugins could not be loaded: {reasons}.")

    def load_folder(self, folder: Path) -> None:
        """Load every loose .py file of a folder as a plugin."""
        if not folder.is_dir():
            raise UsbenchError(f"the plugins folder {folder} is not a folder: name one that holds your .py files.")
        folder = folder.resolve()
        if folder in self.folders:
            return
        for other in self.folders:  # both would be imported by the name alone
            if both := shared_names(folder) & shared_names(other):
                raise UsbenchError(f"the plugins folders {other} and {folder} both hold {min(both)}: rename one.")
        self.folders.append(folder)
        if Shared(folder) not in sys.meta_path:
            sys.meta_path.append(Shared(folder))
        for file in sorted(folder.glob("*.py")):
            if not file.name.startswith("_"):
                forget_loaded(file)
                self._import(file.stem, functools.partial(import_file, file))
                if file.stem not in self.broken and not any(e.plugin == file.stem for e in self.entries()):
                    self.pm.unregister(name=file.stem)
                    self.broken[file.stem] = (
                        "it registers nothing: give it a hook with @hookimpl, or a name that begins with an underscore"
                    )

    def load_modules(self, names: str) -> None:
        """Load modules by name, comma-separated, without entry points."""
        for name in filter(None, (part.strip() for part in names.split(","))):
            self._import(name.removeprefix("usbench_"), functools.partial(importlib.import_module, name))

    def load_entry_points(self) -> None:
        """Load what is installed under the entry-point group `usbench`."""
        for point in sorted(entry_points(group=GROUP), key=lambda p: p.name):
            self._import(point.name, point.load)

    def _import(self, name: str, load: Callable[[], Any]) -> None:
        try:
            plugin = load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - importing a stranger's module may raise anything
            self.broken[name] = f"{type(error).__name__}: {error}"
            return
        self._found.add(name)
        self.add(plugin, name)


def _where(plugin: Any) -> str:
    """The file of a plugin: a module, or an object of a class in one."""
    return getattr(plugin, "__file__", None) or sys.modules[type(plugin).__module__].__file__ or ""


@functools.cache
def registry() -> Registry:
    """The process's registry: entry points, then USBENCH_PLUGINS, then the loose files of USBENCH_PLUGINS_DIR."""
    loaded = Registry()
    loaded.load_entry_points()
    loaded.load_modules(os.environ.get("USBENCH_PLUGINS", ""))
    if folder := os.environ.get("USBENCH_PLUGINS_DIR"):
        loaded.load_folder(Path(folder))
    return loaded
