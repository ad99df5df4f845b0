"""A signal asks to save and stop; what has not left after a while is interrupted where it is."""

from __future__ import annotations

import io
import os
import signal
import time

import pytest
from rich.console import Console

from usbench.api import progress
from usbench.api.progress import Display
from usbench.errors import Interrupted


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_what_does_not_leave_by_itself_is_interrupted(number: int, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "GRACE_SECONDS", 0.2)
    before = signal.getsignal(number)
    asked = time.monotonic()
    with (
        pytest.raises(Interrupted, match="last checkpoint") as stopped,
        Display(Console(file=io.StringIO())) as display,
    ):
        os.kill(os.getpid(), number)
        while time.monotonic() - asked < 5:  # as a test on many images, which asks nobody
            time.sleep(0.01)
    assert display.stopping and stopped.value.exit_code == code
    assert time.monotonic() - asked < 2
    assert signal.getsignal(number) == before and signal.getitimer(signal.ITIMER_REAL)[0] == 0


def test_what_leaves_in_time_has_the_exit_code_of_its_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Interrupted) as stopped, Display(Console(file=io.StringIO())) as display:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # schedulers repeat themselves
        assert display.stopping
        raise Interrupted("saved")
    assert stopped.value.exit_code == 143
    assert Interrupted.exit_code == 130
