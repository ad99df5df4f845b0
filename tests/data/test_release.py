"""Folders and zips: what is read, where the root is found, and what is not to be trusted."""

from __future__ import annotations

import io
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from usbench.data.release import NotThisSet, Release, open_release
from usbench.errors import UsbenchError

LAYOUT = r"pictures/p\d+\.png"


def picture() -> bytes:
    raw = io.BytesIO()
    Image.new("L", (8, 8), 100).save(raw, "PNG")
    return raw.getvalue()


def zipped(path: Path, fill: Callable[[zipfile.ZipFile], None]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("set/pictures/p1.png", picture())
        fill(file)
    return path


def test_files_are_listed_by_their_path_from_the_root(tmp_path: Path) -> None:
    def more(file: zipfile.ZipFile) -> None:
        file.writestr("set/pictures/p2.png", b"two")
        file.writestr("set/.hidden", b"")
        file.writestr("__MACOSX/set/pictures/._p1.png", b"")

    packed = open_release(zipped(tmp_path / "a.zip", more), LAYOUT)
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        file.extractall(tmp_path / "folder")
    for release in (packed, open_release(tmp_path / "folder", LAYOUT), open_release(tmp_path / "folder/set", LAYOUT)):
        assert list(release.files) == release.images == ["pictures/p1.png", "pictures/p2.png"]
        assert release.read("pictures/p2.png") == b"two"
        assert [match[1] for match in release.match(r"pictures/p(\d)\.png")] == ["1", "2"]


def link(file: zipfile.ZipFile) -> None:
    member = zipfile.ZipInfo("set/link.png")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    file.writestr(member, "/etc/passwd")


def twice(file: zipfile.ZipFile) -> None:
    with pytest.warns(UserWarning):
        file.writestr("set/pictures/p1.png", b"other")


TRICKS: dict[str, tuple[Callable[[zipfile.ZipFile], None], str]] = {
    "parent": (lambda file: file.writestr("set/../../evil.png", b""), "points outside"),
    "backslash": (lambda file: file.writestr("..\\evil.png", b""), "points outside"),
    "absolute": (lambda file: file.writestr("/tmp/evil.png", b""), "points outside"),
    "drive": (lambda file: file.writestr("C:/evil.png", b""), "points outside"),
    "link": (link, "which is a link"),
    "twice": (twice, "two members called"),
    "bomb": (lambda file: file.writestr("set/zeros.bin", bytes(70_000_000)), "a bomb"),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_a_zip_that_is_not_to_be_trusted_is_refused_and_nothing_is_written(trick: str, tmp_path: Path) -> None:
    fill, complaint = TRICKS[trick]
    path = zipped(tmp_path / "bad.zip", fill)
    with pytest.raises(UsbenchError, match=complaint) as said:
        open_release(path, LAYOUT)
    assert str(path) in str(said.value) and str(said.value).endswith((".", "?"))
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_member_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", lambda file: file.writestr("set/pictures/p2.png", bytes(range(256)) * 40))
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"p2.png") + 40] ^= 255
    path.write_bytes(raw)
    release = open_release(path, LAYOUT)
    with pytest.raises(UsbenchError, match="cannot be unpacked"):
        release.read("pictures/p2.png")


def test_what_is_no_release_is_told_apart_from_another_set(tmp_path: Path) -> None:
    with pytest.raises(UsbenchError, match="no image in"):
        open_release(tmp_path, LAYOUT)
    (tmp_path / "other.png").write_bytes(picture())
    with pytest.raises(NotThisSet, match=r"no image called like 'pictures/p1\.png'"):
        open_release(tmp_path, LAYOUT, example="pictures/p1.png")
    (tmp_path / "not.zip").write_bytes(b"PK nothing")
    with pytest.raises(UsbenchError, match="neither a folder nor a whole zip"):
        open_release(tmp_path / "not.zip", LAYOUT)


def test_a_neighbour_of_the_folder_is_not_taken_for_it(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/p1.png").write_bytes(picture())
    (tmp_path / "other").mkdir()
    (tmp_path / "other/x.png").write_bytes(picture())
    assert open_release(tmp_path / "pictures", LAYOUT).images
    with pytest.raises(NotThisSet):
        open_release(tmp_path / "other", LAYOUT)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_a_csv_is_text_whatever_its_separator_and_encoding(separator: str, encoding: str) -> None:
    text = "ID,Case ,Note\n001,NA, é \n".replace(",", separator)
    release = Release(Path("x"), {"t.csv": lambda _: text.encode(encoding)})
    table = release.table("t.csv", ("ID", "Case"))
    assert table.to_dict("records") == [{"ID": "001", "Case": "NA", "Note": "é"}]
    with pytest.raises(UsbenchError, match="no column 'Device': its columns are ID, Case, Note"):
        release.table("t.csv", ("Device",))
    with pytest.raises(UsbenchError, match=r"no table called 'u\.csv'"):
        release.table("u.csv", ())


def test_a_column_by_another_one_knows_what_it_lacks_and_what_contradicts_itself() -> None:
    release = Release(
        Path("x"), {"t.csv": lambda _: b"who,what\np1,a\np2,b\np1,a\n", "u.csv": lambda _: b"who,what\np1,a\np1,b\n"}
    )
    found = release.lookup("t.csv", "who", "what")
    assert (found["p1"], found["p2"], found.get("p3")) == ("a", "b", None)
    with pytest.raises(UsbenchError, match=r"the table 't\.csv' of x has no who 'p3', and an image is of it"):
        found["p3"]
    with pytest.raises(UsbenchError, match=r"the table 'u\.csv' of x has the who 'p1' twice, with 'a' and 'b'"):
        release.lookup("u.csv", "who", "what")


def test_a_table_is_found_whatever_the_case_of_its_name() -> None:
    release = Release(Path("x"), {"T.CSV": lambda _: b"ID\n1\n", "below/t.csv": lambda _: b"ID\n2\n"})
    assert release.table("*.csv", ("ID",)).ID.tolist() == ["1"]
    assert release.table("t.csv", ("ID",)).ID.tolist() == ["1"]


def book() -> dict[str, bytes]:
    """The members of a small Excel file."""
    raw = io.BytesIO()
    pd.DataFrame({"ID": ["001", "x & y"], "Size": [0.25, 3]}).to_excel(raw, index=False)
    with zipfile.ZipFile(raw) as file:
        return {name: file.read(name) for name in file.namelist()}


def bound(members: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return raw.getvalue()


@pytest.mark.parametrize(
    "member", ["xl/worksheets/sheet1.xml", "xl/workbook.xml", "xl/styles.xml", "[Content_Types].xml"]
)
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9])
def test_a_damaged_excel_file_is_named_and_to_be_had_again(member: str, share: float) -> None:
    whole = book()
    broken = bound({**whole, member: whole[member][: int(share * len(whole[member]))]})
    with pytest.raises(UsbenchError, match=r"^the table 't\.xlsx' of x cannot be read .*: download it again") as said:
        Release(Path("x"), {"t.xlsx": lambda _: broken}).table("*.xlsx", ("ID",))
    assert said.value.exit_code == 2 and "\n" not in str(said.value)
    kept = Release(Path("x"), {"t.xlsx": lambda _: bound(whole)}).table("*.xlsx", ("ID",))
    assert kept.to_dict("records") == [{"ID": "001", "Size": "0.25"}, {"ID": "x & y", "Size": "3"}]
