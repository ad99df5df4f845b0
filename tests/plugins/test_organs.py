"""The sets of other organs, from miniature releases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from miniature import grey, save
from PIL import Image, ImageDraw


def ellipse(bounds: tuple[int, int, int, int], *, filled: bool) -> np.ndarray:
    canvas = Image.new("L", (120, 100))
    ImageDraw.Draw(canvas).ellipse(bounds, fill=255 if filled else None, outline=255)
    return np.array(canvas) > 0


def test_hc18_outlines_are_filled_and_an_exam_is_one_patient(tmp_path: Path, read: Any) -> None:
    whole, cut = (20, 20, 100, 80), (60, 30, 150, 90)
    names = ["010_HC", "010_2HC", "011_HC"]
    for seed, (name, bounds) in enumerate(zip(names, (whole, whole, cut), strict=True)):
        save(tmp_path / f"training_set/{name}.png", grey(seed, (100, 120)))
        save(tmp_path / f"training_set/{name}_Annotation.png", ellipse(bounds, filled=False))
    save(tmp_path / "test_set/010_HC.png", grey(7, (100, 120)))
    column = "pixel size(mm)"
    table = {
        "filename": [f"{name}.png" for name in names],
        column: [0.1, 0.2, 0.3],
        "head circumference (mm)": [1, 2, 3],
    }
    pd.DataFrame(table).to_csv(tmp_path / "training_set_pixel_size_and_HC.csv", index=False)
    pd.DataFrame({"filename": ["010_HC.png"], column: [0.4]}).to_csv(tmp_path / "test_set_pixel_size.csv", index=False)
    for place in (tmp_path, tmp_path / "training_set"):
        items = read("hc18", place)
        assert set(items) == {*(f"training-{name}" for name in names), "test-010_HC"}
        assert items["training-010_HC"].patient == items["training-010_2HC"].patient != items["test-010_HC"].patient
        assert items["test-010_HC"].mask is None and items["test-010_HC"].pixel_mm == pytest.approx(0.4)
        np.testing.assert_array_equal(items["training-010_HC"].mask, ellipse(whole, filled=True))
        truth, found = ellipse(cut, filled=True), items["training-011_HC"].mask
        assert (truth & found).sum() / (truth | found).sum() > 0.97


def test_pocus_frames_know_their_clip_and_fold(tmp_path: Path, read: Any) -> None:
    files = {
        "covid/Cov-Atlas+(44).gif_frame0.jpg": 0, "covid/Cov-Atlas+(44).gif_frame12.jpg": 0,
        "pneumonia/Pneu_lift.v2.mp4_frame9.jpg": 3, "regular/Reg_Avi_still.JPG": 4,
    }  # fmt: skip
    for seed, name in enumerate(files):
        save(tmp_path / "image_dataset" / name, grey(seed))
    table = pd.DataFrame({"frame": [name.split("/")[1] for name in files], "split": files.values()})
    table.to_csv(tmp_path / "frames.csv", index=False)
    items = read("pocus", tmp_path / "image_dataset")
    assert [(item.video, item.frame, item.label, item.fold) for item in items.values()] == [
        ("Cov-Atlas+(44)", 0, 0, 0), ("Cov-Atlas+(44)", 12, 0, 0), ("Pneu_lift.v2", 9, 1, 3),
        ("Reg_Avi_still", 0, 2, 4),
    ]  # fmt: skip
    assert {item.tag for item in items.values()} == {"lung"} and all(item.mask is None for item in items.values())
    (tmp_path / "frames.csv").unlink()
    assert {item.fold for item in read("pocus", tmp_path).values()} == {-1}


def test_pocus_clips_of_one_person_as_their_names_say_it_are_one_patient(tmp_path: Path, read: Any) -> None:
    people = {
        "regular/Reg_pat1Image_132943.mp4": "pat1", "regular/Reg_pat1Image_133043.mp4": "pat1",
        "regular/Reg_pat2Image_133824.mp4": "pat2", "regular/Reg_Image_181602.mp4": "",
        "regular/Reg_liftl_case3_clip2.mp4": "liftl case3", "pneumonia/Pneu_liftl_pneu_case3_clip3.mp4": "liftl case3",
        "regular/Reg_liftl_pneucase3_clip1.mp4": "liftl case3", "pneumonia/Pneu_basal_liftle_case1.mp4": "liftl case1",
        "pneumonia/Pneu_northumbria_0409_set3_vid1.mp4": "northumbria_0409 set3",
        "regular/Reg_northumbria_0409_set3_vid2.mp4": "northumbria_0409 set3",
        "pneumonia/Pneu_northumbria_1009_vid1.mp4": "", "covid/Cov-Atlas-Day+1.gif": "Cov-Atlas-Day",
        "covid/Cov-Atlas-Day+2.gif": "Cov-Atlas-Day", "covid/Cov-Atlas+(44).gif": "",
    }  # fmt: skip
    for seed, clip in enumerate(people):
        save(tmp_path / "image_dataset" / f"{clip}_frame0.jpg", grey(seed))
    assert [item.patient for item in read("pocus", tmp_path).values()] == [people[c] for c in sorted(people)]


def test_pocus_keeps_three_frames_a_second(tmp_path: Path, read: Any) -> None:
    for seed, frame in enumerate((0, 8, 16, 32)):
        save(tmp_path / "image_dataset/regular" / f"clip.mp4_frame{frame}.jpg", grey(seed))
    save(tmp_path / "image_dataset/regular/still.jpg", grey(9))
    items = read("pocus", tmp_path)
    assert [items[f"clip.mp4_frame{n}.jpg"].fps for n in (0, 8, 16, 32)] == [24.0] * 4
    assert np.isnan(items["still.jpg"].fps)


def test_us4_takes_the_class_from_three_letters(tmp_path: Path, read: Any) -> None:
    clips = {
        "Rb1_a": 0,
        "Rb5_b": 4,
        "F0_c": 5,
        "F4_d": 9,
        "Reg_e": 10,
        "Ali_f": 10,
        "Cov_g": 11,
        "Oth_h": 11,
        "Xyz_i": -1,
    }
    for seed, clip in enumerate(clips):
        for frame in (2, 10):
            save(tmp_path / "US-4" / clip / f"{clip}_frame{frame}.jpg", grey(seed))
    items = read("us4", tmp_path)
    assert {item.video: item.label for item in items.values()} == clips
    assert {item.frame for item in items.values()} == {2, 10}
