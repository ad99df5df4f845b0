"""What is said of where a network comes from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from usbench.runs.store import Store
from usbench.share.provenance import sources


def trained(tmp_path: Path, labels: str, pretrain_data: str) -> Any:
    """A network that was fine-tuned on one set, pretrained on more, and tested on a third."""
    return SimpleNamespace(
        store=Store(tmp_path), record={"row": {"train_data": "busi"}},
        tests=[SimpleNamespace(row={"test_data": "breast"}, facts={"pack": "b"})],
        pretrained={"row": {"pretrain_data": pretrain_data}, "facts": {"pretrain_labels": labels}},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "pretrain_data", "uses"),
    [
        ("none", "busi+breast/train", {"busi": "without labels", "breast": "without labels"}),
        ("all", "busi+breast/train", {"busi": "labels: all", "breast": "without labels"}),
        ("all", "busi+pocus", {"busi": "labels: all", "pocus": "without labels"}),
    ],
)
def test_each_set_stands_once_with_the_labels_that_the_pretraining_knew(
    tmp_path: Path, labels: str, pretrain_data: str, uses: dict[str, str]
) -> None:
    found = sources(trained(tmp_path, labels, pretrain_data))
    assert [source.name for source in found] == list(dict.fromkeys([*uses, "breast"]))
    for source in found:
        said = [use for use in source.uses if use.startswith("pretraining")]
        assert said == ([f"pretraining, {uses[source.name]}"] if source.name in uses else [])
