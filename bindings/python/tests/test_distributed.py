# SPDX-License-Identifier: BSD-3-Clause
"""Attention over the ranks of MPI: distributed_ranks.py, run by as many."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import libattention

LAUNCHERS = {
    "openmpi": ["--allow-run-as-root", "--oversubscribe"],
    "mpich": [],
}


def library_of(mpi):
    """Where the installed library of an MPI is, or None."""
    prefix = os.environ.get("ATTENTION_PREFIX")
    name = f"libattention-mpi-{mpi}.so.0"
    return None if prefix is None else next(Path(prefix).rglob(name), None)


def folder_of_mpi(library, folder):
    """Puts MPICH there by the name that mpi4py's wheel asks for, which Debian's has not."""
    printed = subprocess.run(["ldd", library], capture_output=True, text=True, check=True).stdout
    found = re.search(r"libmpich\.so\.12 => (\S+)", printed)
    if found is not None and not Path(found[1]).with_name("libmpi.so.12").exists():
        (folder / "libmpi.so.12").symlink_to(found[1])
    return folder


def launched(folder, mpi, ranks, program, *words):
    """The program's output on so many ranks; skips what is not here."""
    library = library_of(mpi)
    if library is None:
        pytest.skip(f"ATTENTION_PREFIX has no libattention-mpi-{mpi}")
    if importlib.util.find_spec("mpi4py") is None:
        pytest.skip("mpi4py is not installed")
    launcher = shutil.which(f"mpiexec.{mpi}")
    if launcher is None:
        pytest.skip(f"there is no mpiexec.{mpi}")
    folders = [library.parent, folder_of_mpi(library, folder)]
    folders += [os.environ[name] for name in ["LD_LIBRARY_PATH"] if name in os.environ]
    environment = {
        **os.environ,
        "LIBATTENTION_MPI": str(library),
        "LD_LIBRARY_PATH": ":".join(map(str, folders)),
        "MPI4PY_MPIABI": mpi,
        "ATTN_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }
    code = "from mpi4py import MPI; print(MPI.get_vendor())"
    tried = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"mpi4py does not run on it: {tried.stderr.splitlines()[-1]}")
    command = [launcher, *LAUNCHERS[mpi], "-n", str(ranks), sys.executable, "-m", "mpi4py"]
    done = subprocess.run(
        [*command, program, *words], env=environment, timeout=300, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("mpi", sorted(LAUNCHERS))
def test_ranks_together_are_one_call(tmp_path, mpi, ranks):
    words = ["torch"] if importlib.util.find_spec("torch") else []
    program = Path(__file__).with_name("distributed_ranks.py")
    printed = launched(tmp_path, mpi, ranks, program, *words)
    assert printed == f"{1 + len(words)} kinds on {ranks} ranks\n"


def test_a_layer_is_trained_over_ranks(tmp_path):
    pytest.importorskip("torch")
    program = Path(__file__).parents[3] / "examples" / "mpi" / "train_over_ranks.py"
    lines = launched(tmp_path, "openmpi", 2, program, "250").splitlines()
    losses = [float(re.fullmatch(r"step \d+: loss ([\d.]+) on 2 .*", line)[1]) for line in lines]
    assert len(losses) == 6
    assert losses[-1] < losses[0] / 2


def test_the_package_needs_no_mpi4py():
    code = "import sys, libattention, libattention.distributed; print('mpi4py' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert libattention.Error is not None
