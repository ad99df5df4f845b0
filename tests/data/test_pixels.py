"""Every colour mode gives the same grey; masks are two-valued or refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

from usbench.data.pixels import fill_outline, read_colour, read_grey, read_mask
from usbench.data.release import Undecodable

RAMP = np.tile(np.arange(0, 250, 5, dtype=np.uint8), (20, 1))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    raw = io.BytesIO()
    image.save(raw, kind, **options)
    return raw.getvalue()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "PA"])
def test_every_colour_mode_gives_the_same_grey(mode: str) -> None:
    ramp = Image.fromarray(RAMP)
    image = ramp.convert(mode) if mode != "PA" else ramp.convert("P").convert("PA")
    np.testing.assert_array_equal(read_grey(encoded(image, "TIFF" if mode == "PA" else "PNG")), RAMP)


def test_bilevel_and_deep_images_fill_eight_bits() -> None:
    bits = RAMP > 100
    np.testing.assert_array_equal(read_grey(encoded(Image.fromarray(bits))), bits * np.uint8(255))
    for depth in (10, 12, 16):
        deep = RAMP.astype(np.uint16) << (depth - 8)
        deep[0, 0] = 2**depth - 1
        grey = read_grey(encoded(Image.fromarray(deep)))
        np.testing.assert_array_equal(grey[1:], RAMP[1:])
        assert grey[0, 0] == 255


def test_what_is_transparent_is_black_in_every_mode() -> None:
    alpha = np.full(RAMP.shape, 255, np.uint8)
    alpha[:5] = 0
    want = np.where(alpha > 0, RAMP, 0)
    layered = Image.merge("LA", (Image.fromarray(RAMP), Image.fromarray(alpha)))
    np.testing.assert_array_equal(read_grey(encoded(layered)), want)
    np.testing.assert_array_equal(read_grey(encoded(layered.convert("RGBA"))), want)
    np.testing.assert_array_equal(read_colour(encoded(layered))[..., 0], want)
    keyed = encoded(Image.fromarray(RAMP).convert("RGB"), transparency=(245, 245, 245))
    np.testing.assert_array_equal(read_grey(keyed), np.where(RAMP == 245, 0, RAMP))
    white = np.dstack([np.full((*RAMP.shape, 3), 255, np.uint8), alpha])
    np.testing.assert_array_equal(read_mask(encoded(Image.fromarray(white))), alpha > 0)


def disc(scale: int = 1) -> Image.Image:
    canvas = Image.new("L", (80 * scale, 60 * scale))
    ImageDraw.Draw(canvas).ellipse([v * scale for v in (20, 10, 60, 50)], fill=255)
    return canvas


def test_antialiased_and_jpeg_masks_are_masks() -> None:
    truth = np.asarray(disc()) > 0
    smooth = disc(4).resize((80, 60), Image.Resampling.LANCZOS)
    jpeg = encoded(disc(), "JPEG", quality=75)
    for data in (encoded(smooth), encoded(disc().filter(ImageFilter.GaussianBlur(0.7))), jpeg):
        found = read_mask(data)
        assert (truth & found).sum() / (truth | found).sum() > 0.95
    np.testing.assert_array_equal(read_mask(encoded(Image.fromarray((truth * 1).astype(np.uint8)))), truth)
    np.testing.assert_array_equal(read_mask(encoded(Image.fromarray((truth * 65535).astype(np.uint16)))), truth)
    assert not read_mask(encoded(Image.new("RGB", (9, 9)))).any()


def test_grey_masks_are_refused() -> None:
    two_classes = np.asarray(disc()) // 255 * 2
    two_classes[:8, :8] = 1
    heat = ndimage.gaussian_filter(np.asarray(disc()).astype(float), 8).astype(np.uint8)
    for pixels in (two_classes, heat, RAMP):
        with pytest.raises(Undecodable, match="grey levels"):
            read_mask(encoded(Image.fromarray(pixels)))


def test_a_faint_second_level_is_refused_and_noise_is_not() -> None:
    pixels = np.asarray(disc()).copy()
    columns = np.flatnonzero(pixels.any(0))
    pixels[:, columns[: len(columns) // 2]] //= 255  # half of it is drawn with 1
    with pytest.raises(Undecodable, match="a second, faint level"):
        read_mask(encoded(Image.fromarray(pixels)))
    noisy = np.where(np.asarray(disc()) > 0, 255, np.random.default_rng(0).choice([0, 0, 3], disc().size[::-1]))
    np.testing.assert_array_equal(read_mask(encoded(Image.fromarray(noisy.astype(np.uint8)))), np.asarray(disc()) > 0)


def test_what_does_not_decode_is_refused() -> None:
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)))
    for data in (b"", b"no image", whole[:300], whole[:20]):
        with pytest.raises(Undecodable, match="does not decode"):
            read_grey(data)
    with pytest.raises(Undecodable, match="9000 × 9000 pixels"):
        read_grey(encoded(Image.new("1", (9000, 9000))))
    with pytest.raises(Undecodable, match="floating-point"):
        read_grey(encoded(Image.new("F", (9, 9)), "TIFF"))


def test_closed_and_cut_outlines_are_filled() -> None:
    def ring(bounds: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        line, full = Image.new("1", (80, 60)), Image.new("1", (80, 60))
        ImageDraw.Draw(line).ellipse(bounds, outline=1)
        ImageDraw.Draw(full).ellipse(bounds, fill=1)
        return np.asarray(line), np.asarray(full)

    outline, filled = ring((20, 10, 60, 50))
    np.testing.assert_array_equal(fill_outline(outline), filled)
    for bounds in ((40, 20, 110, 90), (-20, 5, 50, 45), (30, -25, 75, 40)):
        outline, filled = ring(bounds)
        found = fill_outline(outline)
        assert (found & filled).sum() / (found | filled).sum() > 0.97
    assert not fill_outline(np.zeros((9, 9), np.bool_)).any()
    dot = np.zeros((9, 9), np.bool_)
    dot[4, 4] = True
    np.testing.assert_array_equal(fill_outline(dot), dot)
