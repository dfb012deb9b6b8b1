"""Signals in a process of its own: what they end, and how soon."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest

from backstay.cli.stop import CODES, WORDS, Stop

BEFORE = """
    import os, signal, sys, threading, time
    from backstay.cli import stop as stopping
    stopping.GRACE = 0.5
    stop = stopping.Stop()
    stop.listen()
"""


def run(body, *numbers, before=BEFORE):
    """Run a script, send signals once it has said that it is ready; gives code, words, seconds."""
    script = textwrap.dedent(before) + textwrap.dedent(body)
    running = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert running.stdout.readline() == "ready\n"
    began = time.monotonic()
    for number in numbers:
        running.send_signal(number)
        time.sleep(0.05)
    out, err = running.communicate(timeout=20)
    return running.returncode, out + err, time.monotonic() - began


@pytest.mark.parametrize(("number", "code"), CODES.items())
def test_what_is_held_is_put_back(number, code):
    body = """
        try:
            print("ready", flush=True)
            time.sleep(20)
        except stopping.Stopped:
            print("put back", flush=True)
            stopping.leave(stop.code)
    """
    found, words, took = run(body, number)
    assert (found, words) == (code, "put back\n")
    assert took < 5
    assert WORDS[code]


def test_a_second_signal_does_not_disturb_the_tidying_up():
    body = """
        try:
            print("ready", flush=True)
            time.sleep(20)
        finally:
            time.sleep(0.3)
            print("put back", flush=True)
            stopping.leave(stop.code)
    """
    found, words, _ = run(body, signal.SIGTERM, signal.SIGINT, signal.SIGTERM)
    assert (found, words) == (143, "put back\n")


@pytest.mark.parametrize("call", ["libc.sleep(20)", "time.sleep(20)"])
def test_what_hangs_is_ended(call):
    """In a library that Python can't interrupt, and in a way out that takes too long."""
    body = f"""
        import ctypes
        libc = ctypes.CDLL(None)
        def hang():
            until = time.monotonic() + 20
            while time.monotonic() < until:
                {call}
        try:
            print("ready", flush=True)
            hang()
        finally:
            hang()
    """
    found, words, took = run(body, signal.SIGTERM)
    assert found == 143
    assert words.splitlines()[-1] == "backstay: stopped, and tidying up took too long"
    assert took < 5


def test_a_signal_that_was_ignored_stays_so():
    before = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)" + BEFORE.replace(
        "\n    ", "\n"
    )
    body = """
        print("ready", flush=True)
        time.sleep(0.5)
        print(stop.code)
    """
    assert run(body, signal.SIGHUP, before=before)[:2] == (0, "None\n")


def test_who_was_not_told_to_stop_has_no_code():
    assert Stop().code is None
