"""config.json of an export: all that its weights do not say. It may come from a stranger. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from usbench.errors import UsbenchError

FORMAT = 1
CONFIG, ENCODER, NETWORK, GRAPH = "config.json", "encoder.safetensors", "unet.safetensors", "unet.onnx"
MAX_BYTES = 1_000_000


class Plugin(BaseModel):
    """A plugin as a run used it."""

    model_config = ConfigDict(frozen=True, strict=True)
    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    source: str = ""  # a digest of its source


class Config(BaseModel):
    """How a trained network is built, and how an image becomes its input."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)
    format: int
    key: str  # of the row in a leaderboard
    finetuned: str  # the key of the fine-tune
    pretrained: str | None
    backbone: Plugin
    protocol: Plugin
    classes: list[str] = Field(default_factory=list)
    channels: Literal[1]
    canvas: int = Field(ge=16, le=4096)  # the square that an image is letter-boxed into, and that masks are made at
    side: int = Field(ge=16, le=4096)  # what the canvas is shrunk to by area, where it is larger
    size: int = Field(ge=32, le=1024)  # what the network sees
    mean: float
    deviation: float = Field(gt=0)
    threshold: float = Field(gt=0, lt=1)
    sector: Literal["found", "all"]  # where a lesion can be: in the region that shows echoes, or in all of the image
    precision: Literal["bf16", "float32"]
    files: dict[str, str] = Field(default_factory=dict)  # what the export holds → SHA-256
    versions: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits(self) -> Config:
        if self.side > self.canvas:
            raise ValueError(f"its side ({self.side}) is larger than its canvas ({self.canvas})")
        return self


def read_config(path: Path) -> Config:
    """Read and check config.json; what does not hold is said in a sentence."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        given = json.loads(path.read_text("utf-8"))
        if isinstance(given, dict) and isinstance(given.get("format"), int) and given["format"] > FORMAT:
            raise UsbenchError(
                f"{path} has format {given['format']}, newer than the {FORMAT} known here: update usbench."
            )
        return Config.model_validate(given)
    except OSError as error:
        raise UsbenchError(f"{path} cannot be read ({error.strerror}): name a folder that was exported.") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        said = first["msg"].removeprefix("Value error, ")
        raise UsbenchError(
            f"{path} is no config of an export ({where}: {said[0].lower()}{said[1:]}): export again."
        ) from None
    except (ValueError, RecursionError) as error:
        raise UsbenchError(f"{path} is not JSON ({error}): export again.") from None
