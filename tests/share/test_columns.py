"""Tables joined by their columns come back byte for byte, and what cannot is left alone."""

from __future__ import annotations

from usbench.share.columns import joined, parted

ONE = b'name,group,dice\na,0,0.5\n"b, c",1,\n'
TWO = ONE.replace(b"0.5", b"0.75")


def back(members: dict[str, bytes]) -> dict[str, bytes]:
    """What is joined, parted again."""
    found = {}
    for name, raw in joined(members).items():
        found.update(parted(name, raw) if name.startswith("tables/") else [(name, raw)])
    return found


def test_tables_of_the_same_images_are_one_and_come_back() -> None:
    members = {"stages/e-1/scores.csv": ONE, "stages/e-2/scores.csv": TWO}
    assert joined(members) == {
        "tables/1-scores.csv": b'e-1,e-2\n,name,a,"b, c"\n,group,0,1\ne-1,dice,0.5,\ne-2,dice,0.75,\n'
    }
    assert back(members) == members


def test_tables_of_other_images_columns_or_names_stand_apart() -> None:
    members = {
        "stages/e-1/scores.csv": ONE, "stages/e-2/scores.csv": ONE.replace(b"\na,", b"\nz,"),
        "stages/e-3/scores.csv": ONE.replace(b"dice", b"iou"), "stages/e-1/best.csv": ONE,
        "stages/e-4/scores.csv": b"name,group,dice\n",
    }  # fmt: skip
    assert len(joined(members)) == 5 and back(members) == members


def test_what_would_not_come_back_as_it_was_is_left_as_it_is() -> None:
    odd = [b"", b"a,b\r\n1,2\r\n", b"a,b\n1\n", b"a,b\n1,2", b'"a",b\n1,2\n', b"\xff\n", b"a\n" + b"1" * 200_000]
    members = {f"stages/p-{number}/notes.csv": raw for number, raw in enumerate(odd)}
    assert joined(members) == members
