import os
import signal
import subprocess
import sys

import pytest

from pathweave.train.stop import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_the_second_kills(number):
    with StopRequest() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def fail_within():
    with StopRequest():
        assert signal.getsignal(signal.SIGINT) != signal.default_int_handler
        raise ZeroDivisionError("within")


def test_the_handlers_of_before_come_back_also_after_an_error():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError, match="within"):
        fail_within()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_child_is_asked_to_stop_when_its_parent_ends():
    """Its standard input ends then, as it does when the pipe is closed."""
    code = (
        "import time; from pathweave.train.stop import StopRequest, stop_with_parent\n"
        "with StopRequest() as stop:\n"
        "    stop_with_parent()\n"
        "    print('begun', stop.requested, flush=True)\n"
        "    while not stop.requested: time.sleep(0.01)\n"
        "print('saved')\n"
    )
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"begun False\n"
        child.stdin.close()
        assert child.stdout.read() == b"saved\n"
    assert child.returncode == 0
