"""Several hosts on one machine: Linux namespaces with a name, a network card and a wire each.

They share files and processors; what crosses from one to the other crosses a network, which can be
cut. All ends with the processes that hold them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
CARD = "wire0"
NAMES = ("jumpy-a", "jumpy-b")
TOKEN = "of these tests"
"""Without which a cluster of Ray lets nobody in."""
TOOLS = ("ip", "unshare", "nsenter", "mount")
HOLD = """
    hostname {name}
    mount --bind {hosts} /etc/hosts
    mkdir -p /tmp/ray && mount -t tmpfs ray /tmp/ray
    ip link set lo up
    echo ready
    exec sleep 3600
"""


def possible() -> bool:
    """Whether this machine has what it takes, and whether this user may."""
    if os.name != "posix" or os.geteuid() != 0 or not all(map(shutil.which, TOOLS)):
        return False
    tried = subprocess.run(["unshare", "--net", "--uts", "--mount", "true"], capture_output=True)
    return tried.returncode == 0


@dataclass(frozen=True)
class Host:
    """One of them.

    Attributes:
        name: that the others know it by.
        address: of its network card.
        holder: the process whose namespaces it is.
    """

    name: str
    address: str
    holder: subprocess.Popen[str]

    def start(self, *words: object) -> subprocess.Popen[str]:
        """Run something on it, with this project's packages."""
        enter = ["nsenter", "-t", str(self.holder.pid), "-n", "-u", "-m"]
        env = {
            **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "", "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }  # fmt: skip
        return subprocess.Popen(
            [*enter, *map(str, words)], env=env, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, *words: object, seconds: float = 240) -> str:
        """Run something to its end; what it said."""
        with self.start(*words) as process:
            said = process.communicate(timeout=seconds)[0]
        assert process.returncode == 0, said
        return said

    def plugged(self, wire: str) -> None:
        """Plug its card in ("up") or out ("down")."""
        self.run("ip", "link", "set", CARD, wire)

    def processes(self) -> list[int]:
        """All that run on it but for the holder."""
        ours, found = _network(self.holder.pid), []
        for path in Path("/proc").iterdir():
            if path.name.isdigit() and int(path.name) != self.holder.pid:
                try:
                    if _network(int(path.name)) == ours:
                        found.append(int(path.name))
                except OSError:
                    continue  # it has ended
        return found

    def lost(self) -> None:
        """As if somebody had pulled both plugs."""
        self.plugged("down")
        self.crashed()

    def crashed(self) -> None:
        """Kill all that runs on it."""
        for pid in self.processes():
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue


def _network(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


@contextmanager
def two_hosts(folder: Path) -> Iterator[Sequence[Host]]:
    """Two of them, ``NAMES``, that reach each other by name."""
    addresses = [f"10.77.0.{number}" for number in (1, 2)]
    known = folder / "hosts"
    lines = ["127.0.0.1 localhost", *map(" ".join, zip(addresses, NAMES, strict=True))]
    known.write_text("\n".join(lines) + "\n")
    with ExitStack() as opened:
        hosts = []
        for name, address in zip(NAMES, addresses, strict=True):
            script = HOLD.format(name=name, hosts=known)
            holder = opened.enter_context(
                subprocess.Popen(
                    ["unshare", "--net", "--uts", "--mount", "sh", "-ec", script],
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            opened.callback(holder.kill)
            assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
            hosts.append(Host(name, address, holder))
            opened.callback(hosts[-1].crashed)
        one, other = (str(host.holder.pid) for host in hosts)
        wire = ["ip", "link", "add", CARD, "netns", one, "type", "veth", "peer", "name", CARD]
        subprocess.run([*wire, "netns", other], check=True)
        for host in hosts:
            host.run("ip", "addr", "add", f"{host.address}/24", "dev", CARD)
            host.plugged("up")
        yield hosts
