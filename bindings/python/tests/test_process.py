# SPDX-License-Identifier: BSD-3-Clause
"""Threads, forked children, signals, memory."""

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np

import libattention
from libattention import Context, MultiheadAttention, scaled_dot_product_attention


def arrays(rows=512):
    random = np.random.default_rng(3)
    return random.normal(size=(3, 1, 4, rows, 64)).astype("float32")


def test_the_gil_is_released():
    """A thread that only counts goes on while another one computes on one core."""
    qkv = arrays(2048)
    context = Context(num_threads=1)
    counted = 0
    done = threading.Event()

    def compute():
        for _ in range(5):
            scaled_dot_product_attention(*qkv, context=context)
        done.set()

    worker = threading.Thread(target=compute)
    worker.start()
    while not done.is_set():
        counted += 1
    worker.join()
    assert counted > 1000


def test_many_threads_share_a_context_and_give_the_same_bits():
    qkv = arrays()
    context = Context(num_threads=2)
    expected = scaled_dot_product_attention(*qkv, context=context)
    wrong = []

    def compute():
        for _ in range(5):
            if not np.array_equal(scaled_dot_product_attention(*qkv, context=context), expected):
                wrong.append(threading.get_ident())

    threads = [threading.Thread(target=compute) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_layer_is_loaded_while_others_call_it():
    """Every result is that of one state or the other as a whole, and the memory of the one before
    is not given back to whoever still computes with it."""
    layer = MultiheadAttention(128, 4, batch_first=True)
    x = np.random.default_rng(3).normal(size=(1, 64, 128)).astype("float32")
    states, expected = [], []
    for seed in range(2):
        layer.init_parameters(seed)
        states.append(layer.state_dict())
        expected.append(layer(x, x, x)[0])
    end = time.monotonic() + 1.5
    seen = {0: 0, 1: 0, "neither": 0}

    def load():
        turn = 0
        while time.monotonic() < end:
            layer.load_state_dict(states[turn % 2])
            turn += 1
        layer.init_parameters(1)

    def call():
        context = Context(num_threads=1)
        while time.monotonic() < end:
            found = layer(x, x, x, context=context)[0]
            matches = [index for index in range(2) if np.array_equal(found, expected[index])]
            seen[matches[0] if matches else "neither"] += 1

    threads = [threading.Thread(target=load)] + [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(f"calls beside loads: {seen}")
    assert seen["neither"] == 0
    assert seen[0] > 5
    assert seen[1] > 5


def test_a_forked_child_computes():
    qkv = arrays()
    expected = scaled_dot_product_attention(*qkv)  # starts the threads that a child lacks
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for found in pool.starmap(scaled_dot_product_attention, [qkv] * 4):
            np.testing.assert_array_equal(found, expected)


def test_ctrl_c_is_raised_when_the_call_returns():
    program = """
        import numpy, libattention, signal, sys
        # A process in the background may have been started with the signal ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        qkv = numpy.ones((3, 1, 2, 4096, 64), "float32")
        print("ready", flush=True)
        try:
            while True:
                libattention.scaled_dot_product_attention(*qkv)
        except KeyboardInterrupt:
            print("interrupted", libattention.scaled_dot_product_attention(*qkv[..., :5, :]).sum())
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout.readline() == "ready\n"
            time.sleep(0.2)
            child.send_signal(signal.SIGINT)
            output, _ = child.communicate(timeout=60)
        finally:
            child.kill()
    assert output.startswith("interrupted 640")
    assert child.returncode == 0


def test_a_gibibyte_of_strided_input_is_not_copied():
    """What the process ever held grows by the output and a few MiB, not by the inputs. In a child,
    whose peak is its own."""
    program = """
        import numpy, resource, libattention
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        whole = numpy.ones((8, 4096, 3, 16, 192), "float32")[..., :64]  # rows of packed q, k, v
        packed = [whole[:, :, i].swapaxes(1, 2) for i in range(3)]
        first = [one[:, :, :64] for one in packed]
        libattention.scaled_dot_product_attention(*first)
        before = peak()
        out = libattention.scaled_dot_product_attention(*packed, window=(64, 0))
        print(whole.base.nbytes / 2**20, out.nbytes / 2**20, peak() - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
    )
    inputs, output, growth = map(float, done.stdout.split())
    print(f"inputs {inputs:.0f} MiB, output {output:.0f} MiB, growth of the peak {growth:.0f} MiB")
    assert inputs > 1024
    assert growth < output + 32


def test_no_descriptor_or_thread_is_left():
    def threads():
        return len(os.listdir("/proc/self/task"))

    qkv = arrays()
    scaled_dot_product_attention(*qkv)
    before = threads()
    for _ in range(20):
        scaled_dot_product_attention(*qkv, context=Context(num_threads=3))
    assert threads() == before
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 0


def test_threads_start_when_told():
    def threads():
        return len(os.listdir("/proc/self/task"))

    before = threads()
    context = Context(num_threads=4)
    assert threads() == before
    context.start()
    assert threads() == before + 3
    context.start()
    assert threads() == before + 3
    del context
    assert threads() == before


def test_the_default_threads_start_when_told():
    """In a child, where nothing has started them yet."""
    program = """
        import os, libattention
        def threads():
            return len(os.listdir("/proc/self/task"))
        before = threads()
        libattention.start()
        libattention.start()
        print(threads() - before, libattention.info()["threads"] - 1)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "ATTN_NUM_THREADS": "3"},
    )
    assert done.stdout == "2 2\n"


def test_info_command():
    done = subprocess.run(
        [sys.executable, "-m", "libattention", "info"], capture_output=True, text=True, check=True
    )
    for name, value in libattention.info().items():
        assert name in done.stdout
        assert (" ".join(value) if isinstance(value, list) else str(value)) in done.stdout
