# SPDX-License-Identifier: BSD-3-Clause
"""The coordinator's side of the workers: starts them, asks them, and sees that they sleep while
others are timed."""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Any, cast

from peers.cells import Cell

# Longer than any call of the grid; a worker that is silent for so long hangs.
ANSWER_SECONDS = 300.0

# Pools spin after a call, ONNX Runtime's and OpenBLAS's for tens of milliseconds, longer where they
# share a CPU; nobody is timed meanwhile.
MOST_PAUSE_SECONDS = 0.25
POLL_SECONDS = 0.0005

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_FOREIGN_PREFIXES = (
    "OMP_",
    "GOMP_",
    "KMP_",
    "MKL_",
    "OPENBLAS_",
    "GOTO_",
    "ATTN_",
    "ORT_",
    "OV_",
    "ONEDNN_",
    "DNNL_",
    "ATEN_",
)


class WorkerFailed(Exception):
    """The process ended or hangs; the text is for the result's JSON."""


def _environment(threads: int) -> dict[str, str]:
    """The user's, without what would tune a library behind our back, with the thread count."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN_PREFIXES)
    }
    return kept | {name: str(threads) for name in _THREAD_VARIABLES}


class Member:
    """One worker process. It is in the coordinator's process group, so that an interrupt reaches
    all."""

    def __init__(self, name: str, threads: int, log: Path) -> None:
        self.name = name
        self.threads = threads
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "peers.worker", name, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_environment(threads),
            bufsize=0,
        )
        self._commands = cast(IO[bytes], self._process.stdin)
        self._answers = cast(IO[bytes], self._process.stdout)
        try:
            self.about = self._read()
        except BaseException:
            self.stop()
            raise

    @property
    def missing(self) -> str | None:
        return self.about.get("missing")

    def _read(self) -> dict[str, Any]:
        line = b""
        deadline = time.monotonic() + ANSWER_SECONDS
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._answers], [], [], left)[0]:
                self.stop()
                raise WorkerFailed(f"no answer within {ANSWER_SECONDS:.0f} s")
            part = os.read(self._answers.fileno(), 65536)
            if not part:
                raise WorkerFailed(f"the process ended with status {self._process.wait()}")
            line += part
        return json.loads(line)

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        try:
            self._commands.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        except BrokenPipeError as error:
            raise WorkerFailed("the process has ended") from error
        answer = self._read()
        if "error" in answer:
            raise WorkerFailed(answer["error"])
        return answer

    def prepare(self, cell: Cell) -> dict[str, Any]:
        return self.ask("prepare", cell=cell.to_json())

    def run(self, calls: int, lead: bool) -> float:
        return self.ask("run", calls=calls, lead=lead)["seconds"]

    def wait_until_asleep(self) -> None:
        """Until none of its threads runs, or the longest pause is over."""
        deadline = time.monotonic() + MOST_PAUSE_SECONDS
        while _runs(self._process.pid) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


def _runs(process: int) -> bool:
    """Whether any thread is running or runnable, by the kernel's word."""
    try:
        return any(_thread_state(path) == "R" for path in Path(f"/proc/{process}/task").iterdir())
    except OSError:
        return False


def _thread_state(path: Path) -> str:
    # "pid (name) state ...", where the name may hold blanks and parentheses.
    return (path / "stat").read_text().rpartition(")")[2].split()[0]


class Crew:
    """All contestants at one thread count."""

    def __init__(self, names: list[str], threads: int, log: Path) -> None:
        self.threads = threads
        self._log = log
        self.members: list[Member] = []
        self.missing: dict[str, str] = {}
        for name in names:
            self._start(name)

    def _start(self, name: str) -> None:
        try:
            member = Member(name, self.threads, self._log)
        except WorkerFailed as error:
            self.missing[name] = str(error)
            return
        if member.missing:
            self.missing[name] = member.missing
            member.stop()
            return
        self.members.append(member)

    def restart_ended(self) -> None:
        """A contestant whose process a cell killed takes part in the next one again."""
        ended = [member.name for member in self.members if not member.is_alive()]
        self.members = [member for member in self.members if member.is_alive()]
        for name in ended:
            self._start(name)

    def stop(self) -> None:
        for member in self.members:
            member.stop()
