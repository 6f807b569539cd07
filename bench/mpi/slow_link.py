# SPDX-License-Identifier: BSD-3-Clause
"""Two ranks with a link between them that is as slow as one likes.

Each has a network namespace of its own, as two machines have, a pair of virtual Ethernet devices
joins them, and a token bucket holds each direction to the rate. MPI starts them as on two hosts, by
slow_link_agent in place of ssh. Only root may make namespaces. Linux's emulator of delays (netem)
is often not there, so that the link's delay is what its queue makes."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

ADDRESSES = ("10.213.77.1", "10.213.77.2")
DEVICE = "attention0"
AGENT = Path(__file__).resolve().parent / "slow_link_agent"
MOST_SECONDS_WITHOUT_CARRIER = 10


def hindrance():
    """Why there can be no such link here, or None."""
    needed = ("ip", "tc", "unshare", "taskset")
    missing = [program for program in needed if shutil.which(program) is None]
    if missing:
        return f"{', '.join(missing)} missing (scripts/setup --all installs iproute2)"
    return None if os.geteuid() == 0 else "only root may make network namespaces"


def _run(command):
    words = command.split()
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


class SlowLink:
    """A context: the link is there inside. rate: of each direction, as tc reads it, 1gbit."""

    def __init__(self, rate):
        self.rate = rate
        self.name = f"attention-{os.getpid()}"
        self.spaces = tuple(f"{self.name}-{number}" for number in (1, 2))

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            stack.callback(self._remove)
            try:
                self._make()
            except subprocess.CalledProcessError as error:
                raise RuntimeError(f"{' '.join(error.cmd)}: {error.stderr.strip()}") from None
            stack.pop_all()
        return self

    def __exit__(self, *_):
        self._remove()

    def _make(self):
        first, second = self.spaces
        for space in self.spaces:
            _run(f"ip netns add {space}")
            _run(f"ip netns exec {space} unshare --uts true")  # what the agent may not be allowed
        _run(f"ip link add {DEVICE} netns {first} type veth peer name {DEVICE} netns {second}")
        for space, address in zip(self.spaces, ADDRESSES, strict=True):
            _run(f"ip -n {space} addr add {address}/24 dev {DEVICE}")
            _run(f"ip -n {space} link set lo up")
            _run(f"ip -n {space} link set {DEVICE} up")
            bucket = f"rate {self.rate} burst 256kb latency 20ms"
            _run(f"tc -n {space} qdisc add dev {DEVICE} root tbf {bucket}")
        for space in self.spaces:
            self._await_carrier(space)

    @staticmethod
    def _await_carrier(space):
        end = time.monotonic() + MOST_SECONDS_WITHOUT_CARRIER
        while "state UP" not in _run(f"ip -n {space} link show {DEVICE}"):
            if time.monotonic() > end:
                raise RuntimeError(f"{space}: {DEVICE} has no carrier")
            time.sleep(0.1)

    def _remove(self):
        """With the ranks that are left: MPI ends those of another host only if it comes to it."""
        for space in self.spaces:
            listed = subprocess.run(
                ["ip", "netns", "pids", space], check=False, capture_output=True, text=True
            )
            for process in listed.stdout.split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)

    def launcher(self, mpi):
        """The command up to the number of ranks, run on the first host. The agent finds the
        namespaces by the variable, which MPI hands on."""
        first = ["env", f"ATTENTION_LINK={self.name}", AGENT, ADDRESSES[0]]
        hosts = ",".join(f"{address}:1" for address in ADDRESSES)
        words = {
            "openmpi": f"mpiexec.openmpi --allow-run-as-root --bind-to none --host {hosts}"
            f" --mca plm_rsh_agent {AGENT} --mca oob_tcp_if_include {DEVICE}"
            f" --mca pml ob1 --mca btl tcp,self --mca btl_tcp_if_include {DEVICE}",
            "mpich": f"env UCX_TLS=tcp,self UCX_NET_DEVICES={DEVICE}"
            f" mpiexec.mpich -hosts {hosts} -launcher ssh -launcher-exec {AGENT} -iface {DEVICE}",
        }
        return [*first, *words[mpi].split()]
