"""Plugins: what registers, what clashes, what breaks, and what an option may be."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from usbench import hookimpl, source
from usbench.errors import UsbenchError
from usbench.hooks import Entry, Registry
from usbench.hookspecs import HOOK_OF, KINDS
from usbench.registration import words
from usbench.source import digest


def plugin(hook: str, *names: str, **more: object) -> ModuleType:
    """A module that registers the names through one hook."""

    def function(register):
        for name in names:
            register(name, object, summary=f"the {name}", **more)

    made = ModuleType(f"stranger_{hook}")
    made.__file__ = __file__
    setattr(made, hook, hookimpl(function))
    return made


@pytest.mark.parametrize(
    ("kind", "hook"),
    [
        ("loss", "usbench_losses"),
        ("augmentation", "usbench_augmentations"),
        ("backbone", "usbench_backbones"),
        ("dataset", "usbench_datasets"),
        ("protocol", "usbench_protocols"),
    ],
)
def test_each_hook_fills_its_own_registry(bare: Registry, kind: str, hook: str) -> None:
    bare.add(plugin(hook, "b", "a"), "stranger")
    assert HOOK_OF[kind] == hook
    assert [entry.name for entry in bare.entries(kind)] == ["a", "b"]
    assert all(not list(bare.entries(other)) for other in KINDS if other != kind)
    assert bare.get(kind, "a").plugin == "stranger"


def test_a_removed_plugin_leaves_nothing_and_can_come_again(bare: Registry) -> None:
    stranger = plugin("usbench_losses", "mine")
    bare.add(stranger, "stranger")
    bare.remove("stranger")
    assert not list(bare.entries())
    bare.add(stranger, "stranger")
    assert bare.get("loss", "mine").summary == "the mine"


def test_two_plugins_with_one_name_are_an_error_that_names_both_and_the_first_stays(bare: Registry) -> None:
    bare.add(plugin("usbench_losses", "mine"), "first")
    with pytest.raises(UsbenchError, match=r"loss 'mine': 'first' and 'second'"):
        bare.add(plugin("usbench_losses", "other", "mine"), "second")
    assert [entry.name for entry in bare.entries("loss")] == ["mine"]
    assert bare.get("loss", "mine").plugin == "first"


def test_a_loose_file_called_like_a_plugin_is_not_passed_over(installed: Registry, tmp_path: Path) -> None:
    (tmp_path / "rcl.py").write_text("")
    with pytest.raises(UsbenchError, match=r"two plugins are called 'rcl': .*usbench_rcl.* and .*rcl\.py"):
        installed.load_folder(tmp_path)


def test_a_folder_named_twice_is_loaded_once(bare: Registry, tmp_path: Path) -> None:
    head = "from usbench import hookimpl\n@hookimpl\ndef usbench_losses(register):\n"
    (tmp_path / "mine.py").write_text(head + "    register('mine', 'x:Y', summary='s')\n")
    bare.load_folder(tmp_path)
    bare.load_folder(tmp_path / ".." / tmp_path.name)
    assert len(list(bare.entries())) == len(bare.folders) == 1


def test_one_name_may_stand_in_two_kinds(bare: Registry) -> None:
    bare.add(plugin("usbench_losses", "freq"), "first")
    bare.add(plugin("usbench_augmentations", "freq"), "second")
    assert bare.get("loss", "freq").plugin == "first"
    assert bare.get("augmentation", "freq").plugin == "second"


def test_a_plugin_that_raises_is_set_aside_whole_with_its_reason(bare: Registry) -> None:
    broken = ModuleType("broken")

    @hookimpl
    def usbench_losses(register):
        register("half", object, summary="registered before the failure")
        raise RuntimeError("no licence found")

    broken.usbench_losses = usbench_losses
    broken.__file__ = __file__
    bare.add(broken, "broken")
    bare.add(plugin("usbench_losses", "sound"), "sound")
    assert [entry.name for entry in bare.entries()] == ["sound"]
    assert bare.broken == {"broken": "RuntimeError: no licence found"}
    with pytest.raises(UsbenchError, match="no licence found"):
        bare.get("loss", "half")


def test_a_misspelt_hook_is_found(bare: Registry) -> None:
    bare.add(plugin("usbench_loses", "mine"), "stranger")
    assert bare.broken["stranger"] == "unknown hook 'usbench_loses': did you mean 'usbench_losses'?"


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a+b", "a/b"])
def test_a_name_that_the_command_line_could_not_carry_is_refused(bare: Registry, name: str) -> None:
    with pytest.raises(UsbenchError, match="use letters"):
        bare.add(plugin("usbench_losses", name), "stranger")


def test_an_unknown_name_is_answered_with_the_nearest(bare: Registry) -> None:
    bare.add(plugin("usbench_losses", "simclr", "vicreg"), "stranger")
    with pytest.raises(UsbenchError, match="did you mean 'simclr'"):
        bare.get("loss", "simcrl")
    with pytest.raises(UsbenchError, match="known: simclr, vicreg"):
        bare.get("loss", "zzzzzzz")


def test_a_loose_file_is_a_plugin_and_one_that_cannot_be_imported_is_listed(bare: Registry, tmp_path: Path) -> None:
    sound = "from usbench import hookimpl\n@hookimpl\ndef usbench_losses(register):\n"
    (tmp_path / "sound.py").write_text(sound + "    register('loose', 'nowhere:Loss', summary='from a loose file')\n")
    (tmp_path / "broken.py").write_text("import a_module_that_is_not_there\n")
    (tmp_path / "_helper.py").write_text("raise AssertionError('a file with an underscore is no plugin')\n")
    bare.load_folder(tmp_path)
    assert [entry.name for entry in bare.entries()] == ["loose"]
    assert list(bare.broken) == ["broken"] and "a_module_that_is_not_there" in bare.broken["broken"]


@pytest.mark.parametrize(
    "text", ["x = 1\n", "from usbench import hookimpl\n@hookimpl\ndef usbench_losses(register):\n    pass\n"]
)
def test_a_loose_file_that_registers_nothing_is_listed_as_broken(bare: Registry, tmp_path: Path, text: str) -> None:
    (tmp_path / "empty.py").write_text(text)
    bare.load_folder(tmp_path)
    assert bare.broken["empty"].startswith("it registers nothing") and not bare.pm.has_plugin("empty")
    with pytest.raises(UsbenchError, match=r"unknown plugin 'empty'.* 'empty' \(it registers nothing"):
        raise bare.unknown(None, "empty")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"options": {"sizes": [1, 2]}}, r"option 'sizes' of loss 'mine' has the default \[1, 2\]"),
        ({"options": {"act": print}}, "option 'act' of loss 'mine' has the default"),
        ({"options": {"pair": (1, (2, 3))}}, "option 'pair' of loss 'mine'"),
        ({"activation": print}, "argument 'activation' of loss 'mine' is .*, which is no JSON"),
        ({"baseline": "longer"}, "baseline of loss 'mine' is 'longer': 'plain' or 'long'"),
        ({"needs": None}, "needs of loss 'mine' is None"),
        ({"needs": ("masks",)}, "loss 'mine' needs 'masks', which nothing has: did you mean 'mask'"),
        ({"uses": ("mask",)}, "loss 'mine' uses mask"),
        ({"revision": "2"}, "revision of loss 'mine' is '2': a whole number"),
    ],
    ids=str,
)
def test_what_register_cannot_take_is_named_when_the_plugin_is_loaded(bare: Registry, more: dict, words: str) -> None:
    bare.add(plugin("usbench_losses", "mine", **more), "stranger")
    assert not list(bare.entries()) and re.search(words, bare.broken["stranger"])


def test_nothing_to_build_is_for_baselines_alone(bare: Registry) -> None:
    module = plugin("usbench_losses")
    module.usbench_losses = hookimpl(lambda register: register("mine", None, summary="nothing"))
    bare.add(module, "stranger")
    assert "loss 'mine' has no factory" in bare.broken["stranger"]


def test_every_kind_of_option_is_taken(bare: Registry) -> None:
    bare.add(plugin("usbench_losses", "mine", options={**DEFAULTS, "none": None, "names": ("a", "b")}), "stranger")
    assert not bare.broken


def test_a_module_can_be_named_without_an_entry_point(bare: Registry) -> None:
    bare.load_modules("usbench_baseline, usbench_not_there")
    assert bare.get("loss", "none").plugin == "baseline"
    assert list(bare.broken) == ["not_there"]


def test_a_factory_string_is_resolved_when_it_is_used(bare: Registry) -> None:
    module = plugin("usbench_losses")

    @hookimpl
    def usbench_losses(register):
        register("lazy", "fractions:Fraction", summary="a fraction", options={"numerator": 3}, denominator=4)
        register("gone", "fractions:Ratio", summary="not there")

    module.usbench_losses = usbench_losses
    bare.add(module, "stranger")
    assert float(bare.get("loss", "lazy").build()) == 0.75
    assert float(bare.get("loss", "lazy").build(numerator=1)) == 0.25
    with pytest.raises(UsbenchError, match="fractions:Ratio"):
        bare.get("loss", "gone").build()


def test_a_value_that_the_factory_refuses_is_a_sentence(bare: Registry) -> None:
    def picky(width: int) -> None:
        raise ValueError(f"the width is {width}: at least 16")

    entry = Entry("backbone", "net", picky, "", "", "stranger", __file__, options={"width": 8})
    with pytest.raises(UsbenchError, match=r"backbone 'net' refuses width=4: the width is 4: at least 16"):
        entry.build(width=4)
    with pytest.raises(UsbenchError, match=r"backbone 'net' refuses its defaults: the width is 8"):
        entry.build(width=8)


DEFAULTS = {"steps": 3, "rate": 0.5, "on": False, "span": (0.1, 0.3), "name": "a"}


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"steps": "7"}, 7),
        ({"rate": "2"}, 2.0),
        ({"rate": 2}, 2.0),
        ({"on": "Yes"}, True),
        ({"on": "false"}, False),
        ({"span": "0.2/1"}, (0.2, 1.0)),
        ({"span": [0.2, 1.0]}, (0.2, 1.0)),
        ({"span": [0.2, 1]}, (0.2, 1.0)),
        ({"name": "3"}, "3"),
    ],
)
def test_an_option_is_cast_to_the_type_of_its_default(given: dict, value: object) -> None:
    entry = Entry("loss", "mine", object, "", "", "stranger", __file__, options=DEFAULTS)
    (name,) = given
    resolved = entry.parse(given)
    assert resolved == {**DEFAULTS, name: value} and type(resolved[name]) is type(value)


@pytest.mark.parametrize(
    "given",
    [
        {"steps": "many"}, {"steps": 1.5}, {"on": "perhaps"}, {"rate": "nan"}, {"rate": "inf"},
        {"span": "wide"}, {"span": "0.1"}, {"span": "0.1/0.2/0.3"}, {"span": "nan/1"}, {"span": [0.1]},
        {"span": [0.1, "a"]}, {"span": 0.1}, {"rate": float("nan")}, {"steps": True}, {"rate": True},
    ],
    ids=str,
)  # fmt: skip
def test_an_option_of_another_type_is_refused_by_name(given: dict) -> None:
    entry = Entry("loss", "mine", object, "", "", "stranger", __file__, options=DEFAULTS)
    (name,) = given
    with pytest.raises(UsbenchError, match=f"option '{name}' of loss 'mine' must be"):
        entry.parse(given)


def test_an_unknown_option_is_answered_with_the_nearest() -> None:
    entry = Entry("loss", "mine", object, "", "", "stranger", __file__, options=DEFAULTS)
    with pytest.raises(UsbenchError, match=r"unknown option 'step' of loss 'mine'.*did you mean 'steps'"):
        entry.parse({"step": "1"})


def test_edited_source_gives_another_digest_and_the_same_source_the_same(tmp_path: Path) -> None:
    digests = []
    for folder, text in (("a", "x = 1\n"), ("b", "x = 1\n"), ("c", "x = 2\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "loose.py").write_text(text)
        digests.append(Entry("loss", "m", None, "", "", "p", str(tmp_path / folder / "loose.py")).source)
    assert digests[0] == digests[1] != digests[2]


def test_a_module_of_a_package_gets_another_digest_when_its_neighbour_is_edited(tmp_path: Path) -> None:
    package = tmp_path / "stranger"
    (package / "hooks").mkdir(parents=True)
    for file in ("__init__.py", "losses.py", "hooks/__init__.py", "hooks/plugin.py"):
        (package / file).write_text("")
    before = Entry("loss", "m", None, "", "", "p", str(package / "hooks" / "plugin.py")).source
    digest.cache_clear()
    (package / "losses.py").write_text("x = 2\n")
    assert Entry("loss", "m", None, "", "", "p", str(package / "hooks" / "plugin.py")).source != before


def test_a_plugin_gets_another_digest_when_one_that_it_imports_is_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in {
        "usbench_upper": "from usbench_lower.steps import x\n",
        "usbench_lower": "",
        "usbench_far": "",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    (tmp_path / "usbench_lower" / "steps.py").write_text("x = 1\n")

    def of(name: str) -> str:
        digest.cache_clear()
        return Entry("loss", "m", None, "", "", "p", str(tmp_path / name / "__init__.py")).source

    before = of("usbench_upper"), of("usbench_far")
    (tmp_path / "usbench_lower" / "steps.py").write_text("x = 2\n")
    assert of("usbench_upper") != before[0] and of("usbench_far") == before[1]


@pytest.mark.parametrize(
    ("text", "helper"),
    [
        ("from labtools.maths import x\n", "labtools/maths.py"),
        ("import _shared\n", "_shared.py"),
        ("FACTORY = 'labtools.maths:Loss'\n", "labtools/maths.py"),
        ("from spaced.maths import x\n", "spaced/maths.py"),
        ("from spaced import maths\n", "spaced/maths.py"),
        ("import spaced.deep.maths\n", "spaced/deep/maths.py"),
        ("FACTORY = 'spaced.maths:Loss'\n", "spaced/maths.py"),
        ("from . import _shared\n", "_shared.py"),
        ("from .spaced.maths import x\n", "spaced/maths.py"),
        ("def usbench_losses(register):\n    from _shared import x\n", "_shared.py"),
    ],
)
def test_a_loose_file_gets_another_digest_when_own_code_that_it_imports_or_names_is_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, helper: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "labtools").mkdir()
    (tmp_path / "spaced" / "deep").mkdir(parents=True)  # without an __init__.py
    for file in ("labtools/__init__.py", "labtools/maths.py", "_shared.py", "_other.py", "spaced/other.py"):
        (tmp_path / file).write_text("x = 1\n")
    for file in ("spaced/maths.py", "spaced/deep/maths.py"):
        (tmp_path / file).write_text("x = 1\n")
    (tmp_path / "mine.py").write_text(f"import json, torch, pytest\n{text}")

    def of() -> str:
        digest.cache_clear()
        return Entry("loss", "m", None, "", "", "p", str(tmp_path / "mine.py")).source

    before = of()
    for other in ("_other.py", "spaced/other.py"):
        (tmp_path / other).write_text("x = 2\n")
    assert of() == before
    (tmp_path / helper).write_text("x = 2\n")
    assert of() != before


def test_a_process_refuses_what_was_edited_since_it_loaded_it(
    bare: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "_loaded", {})
    monkeypatch.syspath_prepend(tmp_path)
    file, helper = tmp_path / "loose" / "edited.py", tmp_path / "helper_of_edited.py"
    file.parent.mkdir()
    text = "import helper_of_edited\nfrom usbench import hookimpl\n\n@hookimpl\ndef usbench_losses(register):\n"
    text += '    register("edited", "edited:X", summary="a loss to edit")\n'
    file.write_text(text)
    helper.write_text("x = 1\n")
    bare.load_folder(file.parent)
    source.refuse_edited([str(file)])
    file.write_text(text + "x = 2\n")  # before any key was made
    with pytest.raises(UsbenchError, match=r"edited\.py was changed since this process loaded it"):
        source.refuse_edited([str(file)])
    Registry().load_folder(file.parent)  # executed again, as by another process
    source.refuse_edited([str(file)])
    digest(file)
    helper.write_text("x = 2\n")
    with pytest.raises(UsbenchError, match=r"helper_of_edited\.py was changed"):
        source.refuse_edited([str(file)])


def test_loose_files_share_code_in_files_that_begin_with_an_underscore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    (tmp_path / "_shared_by_two.py").write_text("from usbench import hookimpl\n")
    for name in ("one", "two"):
        (tmp_path / f"{name}.py").write_text(
            f"from _shared_by_two import hookimpl\n\n\n@hookimpl\ndef usbench_losses(register):\n"
            f"    register('{name}', 'builtins:object', summary='{name}')\n"
        )
    registry = Registry()
    registry.load_folder(tmp_path)
    assert not registry.broken and [e.name for e in registry.entries("loss")] == ["one", "two"]
    assert importlib.util.find_spec("one") is None, "a loose file is no module for others"


def test_two_folders_with_one_shared_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "_same.py").touch()
    registry = Registry()
    registry.load_folder(tmp_path / "a")
    with pytest.raises(UsbenchError, match=r"/a and .*/b both hold _same\.py: rename one"):
        registry.load_folder(tmp_path / "b")


def test_words_that_were_given_as_a_set_stand_in_one_order(bare: Registry) -> None:
    assert words({"mask", "label", "tag"}) == ("label", "mask", "tag")


def test_first_party_plugins_load_and_say_what_they_are(installed: Registry) -> None:
    assert not installed.broken
    for entry in installed.entries():
        assert entry.summary and Path(entry.where).is_file()
    assert {kind for kind in KINDS if list(installed.entries(kind))} == set(KINDS)
