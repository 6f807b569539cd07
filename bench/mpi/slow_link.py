# SPDX-License-Identifier: BSD-3-Clause
"""Two ranks with a link between them that is as slow as one likes.

Each has a network namespace of its own, as two machines have, a pair of virtual Ethernet devices
joins them, and a token bucket holds each direction to the rate. MPI starts them as on two hosts, by
slow_link_agent in place of ssh. Only root may make namespaces. Linux's emulator of delays (netem)
is often not there, so that the link's delay is what its queue makes."""

import os
import shutil
import subprocess
import time
from pathlib import Path

SPACES = ("attention-host-1", "attention-host-2")
ADDRESSES = ("10.213.77.1", "10.213.77.2")
DEVICE = "attention0"
AGENT = Path(__file__).resolve().parent / "slow_link_agent"


def hindrance():
    """Why there can be no such link here, or None."""
    missing = [
        program for program in ("ip", "tc", "unshare", "taskset") if shutil.which(program) is None
    ]
    if missing:
        return f"{', '.join(missing)} missing (scripts/setup --all installs iproute2)"
    return None if os.geteuid() == 0 else "only root may make network namespaces"


def _run(*words):
    subprocess.run(words, check=True, capture_output=True, text=True)


class SlowLink:
    """A context: the link is there inside. rate: of each direction, as tc reads it, 1gbit."""

    def __init__(self, rate):
        self.rate = rate

    def __enter__(self):
        self._remove()
        try:
            self._make()
        except subprocess.CalledProcessError as error:
            self._remove()
            raise RuntimeError(f"{' '.join(error.cmd)}: {error.stderr.strip()}") from None
        return self

    def __exit__(self, *_):
        self._remove()

    def _make(self):
        for space in SPACES:
            _run("ip", "netns", "add", space)
        _run(
            "ip",
            "link",
            "add",
            DEVICE,
            "netns",
            SPACES[0],
            "type",
            "veth",
            "peer",
            "name",
            DEVICE,
            "netns",
            SPACES[1],
        )
        for space, address in zip(SPACES, ADDRESSES, strict=True):
            _run("ip", "-n", space, "addr", "add", f"{address}/24", "dev", DEVICE)
            for device in (DEVICE, "lo"):
                _run("ip", "-n", space, "link", "set", device, "up")
            _run(
                "tc",
                "-n",
                space,
                "qdisc",
                "add",
                "dev",
                DEVICE,
                "root",
                "tbf",
                "rate",
                self.rate,
                "burst",
                "256kb",
                "latency",
                "20ms",
            )
        for space in SPACES:
            self._await_carrier(space)

    @staticmethod
    def _await_carrier(space):
        for _ in range(100):
            shown = subprocess.run(
                ["ip", "-n", space, "link", "show", DEVICE],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            if "LOWER_UP" in shown and "state UP" in shown:
                return
            time.sleep(0.1)
        raise RuntimeError(f"{space}: {DEVICE} has no carrier after 10 s")

    @staticmethod
    def _remove():
        for space in SPACES:
            subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)

    @staticmethod
    def launcher(mpi):
        """The command up to the number of ranks, run on the first host."""
        first = [AGENT, ADDRESSES[0]]
        if mpi == "openmpi":
            words = [
                "--allow-run-as-root",
                "--bind-to",
                "none",
                "--host",
                ",".join(f"{address}:1" for address in ADDRESSES),
            ]
            words += [
                "--mca",
                "plm_rsh_agent",
                AGENT,
                "--mca",
                "oob_tcp_if_include",
                DEVICE,
                "--mca",
                "pml",
                "ob1",
            ]
            words += ["--mca", "btl", "tcp,self", "--mca", "btl_tcp_if_include", DEVICE]
            return [*first, "mpiexec.openmpi", *words]
        words = [
            "-hosts",
            ",".join(ADDRESSES),
            "-launcher",
            "ssh",
            "-launcher-exec",
            AGENT,
            "-iface",
            DEVICE,
        ]
        return [
            *first,
            "env",
            "UCX_TLS=tcp,self",
            f"UCX_NET_DEVICES={DEVICE}",
            "mpiexec.mpich",
            *words,
        ]
