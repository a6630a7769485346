"""Decoding in processes of their own: bombs are refused or bounded, and whatever ends a process costs one image."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
from bombs import BOMBS, mutated
from decoding import SECONDS, attempt, kill_at_work, processes
from pictures import encoded, picture

from alserve.errors import ImageError, ImageLimitError, ImageSizeError, ImageTimeoutError
from alserve.geometry import resize, working_shape
from alserve.images.codec import decode
from alserve.images.decode_process import BYTES_PER_PIXEL, SPARE_BYTES
from alserve.images.decoders import Decoders
from alserve.images.header import MAX_PIXELS

PNG = encoded(picture())


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    with Decoders(2, SECONDS, spare=1) as decoders:
        yield decoders


def test_the_same_pixels_as_without(decoders: Decoders) -> None:
    for kind in ("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM"):
        data = encoded(picture(), kind)
        np.testing.assert_array_equal(decoders.decode(data).pixels, decode(data))


def test_at_the_working_size(decoders: Decoders) -> None:
    for size in ((96, 128), (300, 200), (20, 3000)):
        data = encoded(picture(*size))
        found = decoders.decode(data, short_side=64)
        np.testing.assert_array_equal(found.pixels, resize(decode(data), working_shape(*size, 64)))
        assert (found.height, found.width) == size


def test_the_same_words_as_without(decoders: Decoders) -> None:
    for data in (b"", b"text", PNG[:-30], encoded(picture()[..., 0].astype(np.float32), "TIFF")):
        with pytest.raises(ImageError) as there:
            decoders.decode(data)
        with pytest.raises(ImageError) as here:
            decode(data)
        assert (type(there.value), str(there.value)) == (type(here.value), str(here.value))
    with pytest.raises(ImageSizeError, match="more than the 12,000 allowed"):
        decoders.decode(PNG, 12_000)
    assert decoders.decode(PNG, 96 * 128).warning is None


def test_from_many_threads(decoders: Decoders) -> None:
    images = [encoded(picture(seed=seed)) for seed in range(12)]
    with ThreadPoolExecutor(12) as pool:
        for image, found in zip(images, pool.map(decoders.decode, images), strict=True):
            np.testing.assert_array_equal(found.pixels, decode(image))
    assert len(processes()) == 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "PPM"])
def test_mutated_files_raise_image_errors_only(decoders: Decoders, kind: str) -> None:
    random = np.random.default_rng(0)
    data = encoded(picture(40, 56), kind)
    for _ in range(150):
        found = attempt(decoders, mutated(data, random))
        assert isinstance(found, ImageError) or found.pixels.size <= 3 * MAX_PIXELS


def test_a_time_limit_costs_nobody_else_anything() -> None:
    """Limits near the time that an image takes: whoever is told no is late, and the next has a process that lives."""
    start = time.perf_counter()
    with Decoders(1, SECONDS) as decoders:
        decoders.decode(PNG)
    seconds = time.perf_counter() - start
    with Decoders(1, SECONDS, spare=1) as decoders:
        for limit in np.linspace(0, seconds, 30):
            begun = time.perf_counter()
            try:
                decoders.decode(PNG, seconds=limit)
            except ImageTimeoutError:
                assert time.perf_counter() - begun >= limit
            np.testing.assert_array_equal(decoders.decode(PNG).pixels, picture())


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no way to hold a process up")
def test_a_process_that_hangs_is_killed_and_costs_its_image() -> None:
    with Decoders(1, 0.5, spare=1) as decoders:
        for _ in range(2):
            decoders.decode(PNG)
        held = processes()
        for process in held:
            process.send_signal(signal.SIGSTOP)
        for _ in held:
            with pytest.raises(ImageTimeoutError, match=r"not decoded within 0\.5 s"):
                decoders.decode(PNG)
        np.testing.assert_array_equal(decoders.decode(PNG).pixels, picture())
        assert not set(held) & set(processes())


def test_a_process_that_crashes_costs_its_image() -> None:
    large = BOMBS["PNG of 16 bits, interlaced"]()
    with Decoders(1, SECONDS, spare=1) as decoders, ThreadPoolExecutor(1) as pool:
        decoders.decode(PNG)
        waiting = pool.submit(decoders.decode, large)
        kill_at_work(processes(), waiting.done)
        with pytest.raises(ImageLimitError, match="more memory"):
            waiting.result()
        np.testing.assert_array_equal(decoders.decode(PNG).pixels, picture())


def test_a_process_that_was_killed_while_idle_costs_nothing() -> None:
    with Decoders(1, SECONDS, spare=1) as decoders:
        for _ in range(2):
            decoders.decode(PNG)
        for process in processes():
            process.kill()
            process.wait()
        np.testing.assert_array_equal(decoders.decode(PNG).pixels, picture())


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no way to hold a process up")
def test_who_waits_for_a_process_waits_no_longer_than_asked() -> None:
    with Decoders(1, SECONDS, spare=1) as decoders, ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            decoders.decode(PNG)
        for process in processes():
            process.send_signal(signal.SIGSTOP)
        waiting = pool.submit(decoders.decode, PNG)
        time.sleep(0.2)
        with pytest.raises(ImageTimeoutError, match=r"waited 0\.1 s"):
            decoders.decode(PNG, seconds=0.1)
        for process in processes():
            process.send_signal(signal.SIGCONT)
        np.testing.assert_array_equal(waiting.result().pixels, picture())


LIMIT = """
import sys
import alserve.images.decode_process as process
process.SPARE_BYTES = process.BYTES_PER_PIXEL = 0
print(process._decode(sys.stdin.buffer.read(), 10**9, 0)[0])
print(process._decode(sys.stdin.buffer.read(), 10**9, 0)[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux only")
def test_memory_has_a_limit() -> None:
    large = encoded(picture(5000, 5000), "BMP")
    done = subprocess.run([sys.executable, "-c", LIMIT], input=large, capture_output=True, check=True)
    assert b"ImageLimitError" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux only")
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"progressive": True, "subsampling": 0, "quality": 95}),
        ("PNG", {}),
        ("WEBP", {"lossless": True, "method": 0}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("GIF", {}),
    ],
)
def test_a_large_image_has_the_memory_that_it_needs(decoders: Decoders, kind: str, options: dict[str, object]) -> None:
    data = encoded(picture(3000, 4000), kind, **options)
    assert decoders.decode(data).pixels.shape == (3000, 4000, 3)
    assert BYTES_PER_PIXEL * 3000 * 4000 > SPARE_BYTES


ABANDON = """
import os, sys, psutil
from alserve.images.decoders import Decoders
Decoders(1, 20, spare=1).decode(sys.stdin.buffer.read())
print(*(child.pid for child in psutil.Process().children()), flush=True)
os._exit(0)
"""


def test_processes_end_with_the_one_that_asks() -> None:
    done = subprocess.run([sys.executable, "-c", ABANDON], input=PNG, stdout=subprocess.PIPE, check=True)
    left = [int(word) for word in done.stdout.split()]
    assert len(left) == 2
    end = time.monotonic() + SECONDS
    while any(map(psutil.pid_exists, left)):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_a_stop_of_the_service_does_not_stop_what_it_still_decodes(decoders: Decoders) -> None:
    for _ in range(2):
        decoders.decode(PNG)
    held = processes()
    for process in held:
        process.terminate()
        process.send_signal(signal.SIGINT)
    for _ in range(2):
        decoders.decode(PNG)
    assert processes() == held


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_a_stop_of_the_service_does_not_stop_a_process_that_is_starting() -> None:
    with Decoders(2, SECONDS) as decoders:
        held = processes()
        for process in held:
            process.terminate()
        for _ in range(2):
            decoders.decode(PNG)
        assert processes() == held


MANY_PIPES = """
import os
from fcntl import F_SETPIPE_SZ, fcntl
import numpy as np
from alserve.images.codec import encode_png
from alserve.images.decoders import Decoders
pipes = [os.pipe() for _ in range(200)]
try:
    for _, end in pipes:
        fcntl(end, F_SETPIPE_SZ, 1 << 20)
except PermissionError:
    with Decoders(1, 60) as decoders:
        print(decoders.decode(encode_png(np.zeros((4, 5, 3), np.uint8))).height)
else:
    print("no limit")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of Linux")
def test_a_user_who_may_have_no_more_large_pipes_gets_small_ones() -> None:
    command = [sys.executable, "-c", MANY_PIPES]
    if setpriv := shutil.which("setpriv"):  # root has no limit but for this
        unprivileged = [setpriv, "--bounding-set", "-sys_resource,-sys_admin"]
        if subprocess.run([*unprivileged, "true"], check=False, capture_output=True).returncode == 0:
            command = [*unprivileged, *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.stdout == "no limit\n":
        pytest.skip("this user may have any number of large pipes")
    assert (done.returncode, done.stdout, done.stderr) == (0, "4\n", "")
