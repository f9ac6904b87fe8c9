"""Passes reuse the memory of those before, in a process of its own: what is set is set for good."""

import os
import platform
import resource
import subprocess
import sys
from collections.abc import Mapping

import pytest

PROGRAM = """
import resource, sys, threading

from forebay_consumer.{caller}

def passes():
    for _ in range(20):
        blocks = [b"x" * (1 << 20) for _ in range(40)]
        del blocks

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    thread = threading.Thread(target=passes)  # as an instance's is not the main one
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults())
"""
SET = "allocator import keep_memory; assert keep_memory() is (not sys.argv[1:])"
BUILD = (
    "build import make_models; from forebay_consumer.config import ModelSettings; "
    "make_models(ModelSettings(task='text-classification', path='none', name='none'))"
)
PAGES = 40 * (1 << 20) // resource.getpagesize()
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator alone has these settings")


def faults(caller: str, said: Mapping[str, str] | None = None) -> int:
    command = [sys.executable, "-c", PROGRAM.replace("{caller}", caller), *(said or ())]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    return int(subprocess.run(command, env=clean | dict(said or {}), check=True, stdout=subprocess.PIPE).stdout)


@glibc
@pytest.mark.parametrize("caller", [SET, BUILD], ids=["set", "make_models"])
def test_twenty_passes_touch_their_pages_once(caller: str) -> None:
    assert faults("allocator import keep_memory") > 5 * PAGES, "left alone, they fault again and again"
    assert faults(caller) < 2 * PAGES


@glibc
@pytest.mark.parametrize(
    "said",
    [
        {"MALLOC_TRIM_THRESHOLD_": "131072"},
        {"MALLOC_MMAP_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"},
    ],
    ids=str,
)
def test_what_the_environment_says_holds(said: Mapping[str, str]) -> None:
    assert faults(SET, said) > 5 * PAGES
