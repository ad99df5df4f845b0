"""A prediction is what the harness would score, whatever the image comes as, and stays where it belongs."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageChops

import usbench as api
from usbench.data.pack import Pack
from usbench.data.packing import letterbox, place
from usbench.errors import UsbenchError
from usbench.report.masks import Masks
from usbench.share.choose import choose
from usbench.share.images import FIRST, TURNED, Found, read_scan, result_names
from usbench.share.network import Loaded, read
from usbench.share.predict import outlined
from usbench.share.segmenter import Segmenter
from usbench.train.loop import Compute

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def exported(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "tiny"
    api.export(tiny_run, folder)
    return folder


def scan(seed: int = 0, height: int = 48, width: int = 60) -> np.ndarray:
    """A bright noisy image, different for every seed."""
    return np.random.default_rng(seed).integers(60, 255, (height, width)).astype(np.uint8)


def put(path: Path, pixels: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(scan() if pixels is None else pixels).save(path)
    return path


def mask_of(folder: Path, name: str) -> np.ndarray:
    with Image.open(folder / "masks" / f"{name}.png") as image:
        assert image.mode == "L"
        return np.asarray(image)


@pytest.mark.parametrize("which", ["exported", "tiny_run"])
def test_a_pack_image_at_native_size_gives_the_mask_of_the_store(
    which: str, request: pytest.FixtureRequest, tiny_pack: Path, tiny_run: Path, tmp_path: Path
) -> None:
    pack, trained = Pack(tiny_pack), choose(str(tiny_run))
    row = {name: row for row, name in enumerate(pack.table.name)}
    names, kept = pd.read_csv(trained.first.folder / "scores.csv").name, Masks(trained.first.folder).all()
    for name in names:
        put(tmp_path / "in" / f"{name}.png", np.array(pack.images[row[name]]))
    made = api.predict(request.getfixturevalue(which), tmp_path / "in", tmp_path / "out", batch=3)
    assert made.done == len(names) and kept.any()
    for name, mask in zip(names, kept, strict=True):
        found = mask_of(tmp_path / "out", name)
        assert set(np.unique(found)) <= {0, 255}
        assert np.array_equal(found > 0, mask)


def test_a_phantom_written_as_png_gives_the_mask_of_the_harness(exported: Path, tmp_path: Path) -> None:
    from usbench.data.feed import Feed
    from usbench.data.home import find_pack
    from usbench.evaluate.testing import predict
    from usbench.hooks import registry

    pack = find_pack(registry(), "phantom:l7,patients=3,size=64", lambda *_: None)
    loaded, rows = read(exported), np.arange(4)
    for row in rows:
        put(tmp_path / "in" / f"{row}.png", np.array(pack.images[row]))
    api.predict(exported, tmp_path / "in", tmp_path / "out")
    compute = Compute(torch.device("cpu"), "float32")
    feed = Feed([(pack, rows)], loaded.config.size, compute.device)
    expected = predict(compute.place(loaded.model), loaded.protocol, feed, pack.size, compute)
    for row in rows:
        assert np.array_equal(mask_of(tmp_path / "out", str(row)) > 0, expected[row] & pack.plane("sector", rows)[row])


class Disc(torch.nn.Module):
    """A network that sees a disc in every image, whatever it shows."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        at = torch.linspace(-1, 1, images.shape[-1])
        return (0.4 - at[:, None] ** 2 - at**2).expand(len(images), 1, -1, -1) * 10


@pytest.mark.parametrize("shape", [(64, 64), (200, 150), (97, 331), (500, 471)])
def test_a_mask_at_native_size_is_the_scored_one_enlarged(shape: tuple[int, int], exported: Path) -> None:
    loaded = read(exported)
    segmenter = Segmenter(Loaded(loaded.config, Disc(), loaded.protocol), Compute(torch.device("cpu"), "float32"))
    (found,) = segmenter([segmenter.prepare(scan(1, *shape))])
    size = loaded.config.canvas
    assert found.mask.shape == shape and found.mask.any()
    back = place(found.mask, letterbox(*shape, size), size)
    assert (back != found.canvas).mean() < 0.002


MODES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "1": lambda i: i.convert("1"), "L": lambda i: i, "LA": lambda i: i.convert("LA"), "P": lambda i: i.convert("P"),
    "RGB": lambda i: i.convert("RGB"), "RGBA": lambda i: i.convert("RGBA"),
    "CMYK": lambda i: i.convert("RGB").convert("CMYK"), "YCbCr": lambda i: i.convert("RGB").convert("YCbCr"),
    "I;16": lambda i: Image.fromarray(np.asarray(i).astype(np.uint16) * 257),
    "I": lambda i: Image.fromarray(np.asarray(i).astype(np.int32) * 257),
    "F": lambda i: Image.fromarray(np.asarray(i).astype(np.float32)),
    "F in [0, 1]": lambda i: Image.fromarray(np.asarray(i).astype(np.float32) / 255),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_any_colour_mode_gives_the_same_grey_values(mode: str, tmp_path: Path) -> None:
    made = MODES[mode](Image.fromarray(scan()))
    path = tmp_path / ("a.jpg" if mode in ("CMYK", "YCbCr") else "a.tif" if mode[0] in "IF" else "a.png")
    made.save(path, **({"quality": 100, "subsampling": 0} if path.suffix == ".jpg" else {}))
    with Image.open(path) as read_again:
        assert read_again.mode == {"YCbCr": "RGB"}.get(mode, mode.partition(" ")[0])
    grey, notes = read_scan(path)
    expected = np.asarray(made).astype(np.uint8) * 255 if mode == "1" else scan()
    assert grey.dtype == np.uint8 and not notes
    assert np.abs(grey.astype(int) - expected).max() <= (8 if path.suffix == ".jpg" else 1)


def test_a_turned_photograph_is_seen_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(scan()).save(tmp_path / "a.png", exif=exif)
    grey, notes = read_scan(tmp_path / "a.png")
    assert notes == [TURNED] and np.array_equal(grey, np.rot90(scan(), -1))


@pytest.mark.parametrize("suffix", ["gif", "tif"])
def test_of_several_frames_the_first_is_taken_and_that_is_said(
    suffix: str, exported: Path, tmp_path: Path, usbench: Callable[..., Any]
) -> None:
    frames = [Image.fromarray(scan(seed)) for seed in (0, 1, 2)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    grey, notes = read_scan(tmp_path / f"a.{suffix}")
    assert notes == [FIRST] and np.abs(grey.astype(int) - scan(0)).max() <= 1
    assert usbench("predict", exported, tmp_path / f"a.{suffix}", "-o", tmp_path / "out").code == 0
    assert pd.read_csv(tmp_path / "out" / "predictions.csv").notes.tolist() == [FIRST]


def test_files_that_cannot_be_read_are_named_and_the_rest_is_done(
    exported: Path, tmp_path: Path, usbench: Callable[..., Any]
) -> None:
    put(tmp_path / "in" / "good.png")
    whole = io.BytesIO()
    Image.fromarray(scan()).save(whole, "PNG")
    for name, data in {"cut.png": whole.getvalue()[:300], "empty.jpg": b"", "text.bmp": b"no image"}.items():
        (tmp_path / "in" / name).write_bytes(data)
    (tmp_path / "in" / "notes.txt").write_text("not asked for")
    said = usbench("predict", exported, tmp_path / "in", "-o", tmp_path / "out")
    assert said.code == 0 and "1 images" in said.out and "3 could not be used" in said.out
    assert {Path(line.split(": ")[1]).name for line in said.err.splitlines()} == {"cut.png", "empty.jpg", "text.bmp"}
    assert pd.read_csv(tmp_path / "out" / "predictions.csv").name.tolist() == ["good"]
    said = usbench("predict", exported, tmp_path / "in" / "cut.png", "-o", tmp_path / "none")
    assert said.code == 2 and "cut.png" in said.one_sentence()


def test_equal_names_keep_apart(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one/a.png", "one/deep/a.png", "one/a.jpg", "two/a.png", "two/b.png"):
        put(tmp_path / name)
    made = api.predict(exported, ["one", "two", "two/b.png", "../" + tmp_path.name + "/two/a.png"], "out")
    names = pd.read_csv(made.table).name.tolist()
    assert names == ["a.jpg", "one/a.png", "deep/a", "two/a.png", "b"] and made.done == 5
    written = {p.relative_to("out/masks").with_suffix("").as_posix() for p in Path("out/masks").rglob("*.png")}
    assert written == set(names)


def test_names_never_fall_together() -> None:
    names = result_names([Found(Path(f"/x/{n}"), n) for n in ("a.png", "A.jpg", "a.png.gif", "a.PNG.bmp", "b/a.png")])
    assert len({name.casefold() for name in names}) == 5


def test_nothing_is_written_outside_the_folder(exported: Path, tmp_path: Path) -> None:
    put(tmp_path / "in" / "sub" / "a.png")
    (tmp_path / "outside").mkdir()
    (tmp_path / "out" / "masks").mkdir(parents=True)
    (tmp_path / "out" / "masks" / "sub").symlink_to(tmp_path / "outside")
    with pytest.raises(UsbenchError, match="not empty"):
        api.predict(exported, tmp_path / "in", tmp_path / "out")
    with pytest.raises(UsbenchError, match="leads out"):
        api.predict(exported, tmp_path / "in", tmp_path / "out", force=True)
    assert not list((tmp_path / "outside").iterdir())


def test_results_are_not_taken_for_images(exported: Path, tmp_path: Path) -> None:
    put(tmp_path / "in" / "a.png")
    for _ in range(2):
        made = api.predict(exported, tmp_path / "in", tmp_path / "in" / "out", force=True)
        assert made.done == 1


def test_patterns_and_single_files_are_images_too(exported: Path, tmp_path: Path, usbench: Callable[..., Any]) -> None:
    put(tmp_path / "in" / "x" / "a.png"), put(tmp_path / "in" / "y" / "a.png"), put(tmp_path / "in" / "y" / "b.png")
    made = api.predict(exported, f"{tmp_path}/in/*/a.png", tmp_path / "out", overlays=False)
    assert pd.read_csv(made.table).name.tolist() == ["x/a", "y/a"] and not (tmp_path / "out" / "overlays").exists()
    for word in (f"{tmp_path}/in/*.gif", tmp_path / "nowhere.png", tmp_path / "in" / "x" / ".."):
        said = usbench("predict", exported, word, "-o", tmp_path / "other", "--no-overlays")
        assert said.code == (0 if str(word).endswith("..") else 2)


@pytest.mark.parametrize("word", ["**.png", "in/**b", "in/***/a.png"])
def test_a_pattern_that_cannot_be_is_one_sentence(
    word: str, exported: Path, tmp_path: Path, usbench: Callable[..., Any]
) -> None:
    (tmp_path / "in").mkdir()
    said = usbench("predict", exported, tmp_path / word, "-o", tmp_path / "out")
    assert said.code == 2 and "*.png'" in said.one_sentence()


def test_the_table_says_what_the_mask_shows(tiny_run: Path, tiny_pack: Path, tmp_path: Path) -> None:
    pack = Pack(tiny_pack)
    for row in range(6):
        put(tmp_path / "in" / f"{row}.png", np.array(pack.images[row]))
    areas = []
    for threshold in (0.3, 0.5, 0.7):
        made = api.predict(tiny_run, tmp_path / "in", tmp_path / str(threshold), threshold=threshold)
        table = pd.read_csv(made.table)
        for row in table.itertuples():
            mask = mask_of(made.folder, str(row.name))
            assert row.area == (mask > 0).sum() and row.share == pytest.approx((mask > 0).mean(), rel=1e-4)
            assert (row.width, row.height) == mask.shape[::-1]
            assert np.isnan(row.probability) if not row.area else row.probability >= threshold - 1e-3
        areas.append(table.area.sum())
    assert areas[0] >= areas[1] >= areas[2] and areas[0] > areas[2]


def test_what_a_run_returned_names_its_network(tiny_run: Path, tmp_path: Path) -> None:
    result = api.load(tiny_run)
    assert api.export(result, tmp_path / "taken").title == api.export(tiny_run, tmp_path / "too").title
    put(tmp_path / "a.png")
    assert api.predict(result, tmp_path / "a.png", tmp_path / "made").done == 1
    for wrong in ({"run": 3}, {"images": 3}, {"out": None}, {"threshold": "x"}, {"device": "gpu"}, {"stores": 3}):
        given = {"run": result, "images": tmp_path / "a.png", "out": tmp_path / "no", **wrong}
        with pytest.raises(UsbenchError):
            api.predict(**given)
    assert not (tmp_path / "no").exists()


def test_an_overlay_shows_the_outline_and_leaves_the_rest() -> None:
    grey, mask = scan(height=300, width=300), np.zeros((300, 300), np.bool_)
    mask[100:200, 50:150] = True
    picture = outlined(grey, mask)
    changed = np.asarray(ImageChops.difference(Image.fromarray(picture), Image.fromarray(grey).convert("RGB"))).any(2)
    assert changed.any() and not changed[~mask].any() and not changed[110:190, 60:140].any()
    assert changed[100, 50:150].all() and changed[100:200, 149].all()


def test_memory_does_not_grow_with_the_images(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many images are held at once is what could grow; the benchmark measures bytes."""
    for k in range(120):
        put(tmp_path / "in" / f"{k:03d}.png", scan(k, 32, 32))
    read, written, most = 0, 0, 0
    from usbench.share import predict as module

    def counted(path: Path) -> Any:
        nonlocal read, most
        read += 1
        most = max(most, read - written)
        return read_scan(path)

    def progress(done: int, total: int) -> None:
        nonlocal written
        written = done

    monkeypatch.setattr(module, "read_scan", counted)
    monkeypatch.setattr("usbench.data.importing.available_cores", lambda: 2)
    api.predict(exported, tmp_path / "in", tmp_path / "out", batch=4, overlays=False, progress=progress)
    assert written == 120 and most <= 4 + 2 * 4 * 2 + 4


def test_where_no_image_can_be_used_what_was_there_before_stays(exported: Path, tmp_path: Path) -> None:
    put(tmp_path / "a.png")
    api.predict(exported, tmp_path / "a.png", tmp_path / "out")
    before = (tmp_path / "out" / "predictions.csv").read_bytes()
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(UsbenchError, match="none of 1 images can be used"):
        api.predict(exported, tmp_path / "broken.png", tmp_path / "out", force=True)
    assert (tmp_path / "out" / "predictions.csv").read_bytes() == before
    with pytest.raises(UsbenchError):
        api.predict(exported, tmp_path / "broken.png", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_is_one_sentence(exported: Path, tmp_path: Path, usbench: Callable[..., Any]) -> None:
    put(tmp_path / "a.png")
    for words, part in (
        (("nothing", "--in", tmp_path), "store.json"), ((exported, "--threshold", "1"), "between 0 and 1"),
        ((exported, "--device", "tpu"), "cuda"), ((exported, "--batch", "0"), "at least one"),
    ):  # fmt: skip
        said = usbench("predict", words[0], tmp_path / "a.png", *words[1:], "-o", tmp_path / "out")
        assert said.code == 2 and part in said.one_sentence()
    assert not (tmp_path / "out").exists()
