"""A real Slurm on one machine: munged, slurmctld and several slurmd, each node with a name and GPU devices of its own.

What is stood in for: the GPUs (character devices that Slurm hands out and nobody opens) and the second machine (a slurmd in
a UTS and mount namespace of its own). All of the cluster is in a network namespace that has nothing but its own 127.0.0.1,
so whatever runs on it has no network. Needs root, namespaces and Debian's slurm-wlm and munge; no systemd, no cgroups.
Nodes show this configuration as /etc/slurm, because inside a job Snakemake's plugin drops $SLURM_CONF.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from helpers import debian_packages
from helpers.processes import is_running

PACKAGES = ("slurm-wlm", "munge", "slurmdbd", "mariadb-server", "iproute2")
PROGRAMS = (
    "munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue", "slurmdbd", "sacct", "sacctmgr", "mariadbd",
    "mariadb-install-db", "ip",
)  # fmt: skip
ACCOUNT = "vlgraft"
NUM_NODES = 2
NUM_GPUS_PER_NODE = 4
NUM_CPUS_PER_NODE = 8
MEMORY_MB = 16000
# How long anything is waited for: far more than a slow and busy machine needs, so that only what hangs comes to it.
LIMIT_S = 1200.0
# In the cluster's own network nobody else has taken them.
CONTROLLER_PORT, ACCOUNTING_PORT, DATABASE_PORT, FIRST_NODE_PORT = 21000, 21001, 21002, 21003

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket,cred_expire=15
CryptoType=crypto/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
SlurmdUser=root
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool.%n
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd.%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2,sched_min_interval=0
PriorityType=priority/basic
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
ReturnToService=2
SlurmdTimeout={node_timeout_s}
KillWait={kill_wait_s}
MinJobAge=3600
PropagateResourceLimits=NONE
{accounting}
JobCompType=jobcomp/none
GresTypes=gpu
NodeName=DEFAULT CPUs={num_cpus} RealMemory={memory_mb} Gres=gpu:{num_gpus} State=UNKNOWN
{node_lines}
PartitionName=cpu Nodes=ALL Default=YES MaxTime=1-00:00:00 DefaultTime=10 State=UP
PartitionName=gpu Nodes=ALL MaxTime=1-00:00:00 DefaultTime=10 State=UP
PartitionName=urgent Nodes=ALL PriorityTier=10 MaxTime=1-00:00:00 DefaultTime=10 State=UP
"""

ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={root}/munge/socket
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations"""
NO_ACCOUNTING = "AccountingStorageType=accounting_storage/none"

DATABASE_CONFIGURATION = """\
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser=root
LogFile={root}/log/slurmdbd.log
PidFile={root}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct
"""
CREATE_DATABASE = """
CREATE DATABASE slurm_acct;
CREATE USER slurm@'127.0.0.1' IDENTIFIED BY 'slurm'; GRANT ALL ON slurm_acct.* TO slurm@'127.0.0.1';
CREATE USER slurm@localhost IDENTIFIED BY 'slurm'; GRANT ALL ON slurm_acct.* TO slurm@localhost;
"""

# In a namespace of its own: the node's name, names of all nodes, and the configuration where Slurm looks by default.
START_NODE = (
    'mount --bind "$2/hosts" /etc/hosts && mount --bind "$2" /etc/slurm && hostname "$1" && exec slurmd -N "$1"'
)


def missing_conditions() -> str | None:
    """Why no cluster can be started here, or None."""
    if os.geteuid() != 0:
        return "a Slurm cluster of several nodes needs root"
    if subprocess.run(["unshare", "--uts", "--mount", "--net", "true"], capture_output=True).returncode:
        return "a Slurm cluster of several nodes needs UTS, mount and network namespaces"
    if not debian_packages.can_have(PROGRAMS):
        return "Slurm is not installed, and there is no apt-get to install it with"
    return None


def install_packages() -> None:
    """Installs Slurm and munge from Debian where they are missing; their services are not started."""
    debian_packages.install(PROGRAMS, PACKAGES)


def wait_until(condition: Callable[[], bool], what: str, interval_s: float = 0.1) -> None:
    """Returns when the condition holds; fails the test after LIMIT_S."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {LIMIT_S:.0f} s"
        time.sleep(interval_s)


@dataclass
class SlurmCluster:
    """A running cluster; `environment` points Slurm's commands at it."""

    root: Path
    has_accounting: bool = False
    nodes: list[str] = field(default_factory=lambda: [f"node{number}" for number in range(1, NUM_NODES + 1)])
    network: subprocess.Popen[bytes] | None = None  # keeps the network's namespace

    @property
    def environment(self) -> dict[str, str]:
        return {"SLURM_CONF": str(self.root / "slurm.conf")}

    def inside(self, *command: str) -> list[str]:
        """The command, run in the cluster's network."""
        assert self.network is not None
        return ["nsenter", f"--net=/proc/{self.network.pid}/ns/net", *command]

    def run(self, *command: str, check: bool = True) -> str:
        """Runs a command in the cluster's network and gives what it printed."""
        finished = subprocess.run(
            self.inside(*command), env=os.environ | self.environment, capture_output=True, text=True, timeout=LIMIT_S
        )
        assert not check or finished.returncode == 0, f"{command}: {finished.stderr}"
        return finished.stdout

    def succeeds(self, *command: str) -> bool:
        finished = subprocess.run(self.inside(*command), env=os.environ | self.environment, capture_output=True)
        return finished.returncode == 0

    def start_network(self) -> None:
        here = Path("/proc/self/ns/net").readlink()
        self.network = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], start_new_session=True)
        link = Path(f"/proc/{self.network.pid}/ns/net")
        wait_until(lambda: link.readlink() != here, "a network of its own")
        self.run("ip", "link", "set", "lo", "up")
        # slurmdbd listens nowhere when 127.0.0.1 is the only address (getaddrinfo's AI_ADDRCONFIG).
        self.run("ip", "address", "add", "127.0.0.2/8", "dev", "lo")

    def jobs(self, *states: str) -> list[str]:
        """Ids of the jobs in these states, of all that are waiting or running without one."""
        return self.run("squeue", "-h", "-o", "%A", "-t", ",".join(states) or "PENDING,RUNNING,COMPLETING").split()

    def start(self) -> None:
        for name in ("run", "log", "state", "munge", "dev", *(f"spool.{node}" for node in self.nodes)):
            (self.root / name).mkdir(parents=True)
        self.root.chmod(0o755)
        (self.root / "munge").chmod(0o755)
        self.write_configuration()
        self.start_network()
        self.run(
            "munged", "--force", f"--socket={self.root}/munge/socket", f"--key-file={self.root}/munge.key",
            f"--pid-file={self.root}/run/munged.pid", f"--log-file={self.root}/log/munged.log",
            f"--seed-file={self.root}/run/munged.seed",
        )  # fmt: skip
        if self.has_accounting:
            self.start_accounting()
        self.run("slurmctld")
        for node in self.nodes:
            self.start_node(node)
        wait_until(lambda: self.num_ready_nodes() == len(self.nodes), "the nodes of the cluster")

    def write_configuration(self) -> None:
        key = self.root / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        database = {"root": self.root, "port": ACCOUNTING_PORT, "database_port": DATABASE_PORT}
        ports = range(FIRST_NODE_PORT, FIRST_NODE_PORT + len(self.nodes))
        places = [
            f"NodeName={node} NodeAddr=127.0.0.1 Port={port}" for node, port in zip(self.nodes, ports, strict=True)
        ]
        host = socket.gethostname().partition(".")[0]
        accounting = ACCOUNTING.format(**database) if self.has_accounting else NO_ACCOUNTING
        (self.root / "slurmdbd.conf").write_text(DATABASE_CONFIGURATION.format(host=host, **database))
        (self.root / "slurmdbd.conf").chmod(0o600)
        text = CONFIGURATION.format(
            accounting=accounting, host=host, port=CONTROLLER_PORT, root=self.root, node_timeout_s=20, kill_wait_s=60,
            num_cpus=NUM_CPUS_PER_NODE, memory_mb=MEMORY_MB, num_gpus=NUM_GPUS_PER_NODE, node_lines="\n".join(places),
        )  # fmt: skip
        (self.root / "slurm.conf").write_text(text)
        hosts = [f"127.0.0.1 localhost {socket.gethostname()}", *(f"127.0.0.1 {node}" for node in self.nodes)]
        (self.root / "hosts").write_text("\n".join(hosts) + "\n")
        for number in range(NUM_GPUS_PER_NODE):
            # A plain file would be handed out, too, but then no job sees CUDA_VISIBLE_DEVICES.
            os.mknod(self.root / f"dev/gpu{number}", 0o666 | 0o020000, os.makedev(1, 3))
        gpus = f"{self.root}/dev/gpu[0-{NUM_GPUS_PER_NODE - 1}]"
        (self.root / "gres.conf").write_text(f"NodeName={','.join(self.nodes)} Name=gpu File={gpus}\n")

    def start_accounting(self) -> None:
        """A database, Slurm's daemon before it, and one account with one user."""
        data_dir, socket_path = self.root / "mysql", self.root / "run/mysql.sock"
        self.run(
            "mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={data_dir}", "--skip-test-db",
            "--auth-root-authentication-method=normal",
        )  # fmt: skip
        database = self.inside(
            "mariadbd", "--no-defaults", "--user=root", f"--datadir={data_dir}", "--bind-address=127.0.0.1",
            f"--port={DATABASE_PORT}", f"--socket={socket_path}", f"--pid-file={self.root}/run/mysql.pid",
            "--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900",
        )  # fmt: skip
        with open(self.root / "log/mysql.log", "wb") as log:
            subprocess.Popen(database, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        client = ["mariadb", "--no-defaults", f"--socket={socket_path}", "--user=root"]
        wait_until(lambda: self.succeeds(*client, "-e", "SELECT 1"), "the database")
        self.run(*client, "-e", CREATE_DATABASE)
        self.run("slurmdbd")
        wait_until(lambda: self.succeeds("sacctmgr", "-n", "list", "cluster"), "slurmdbd")
        self.run("sacctmgr", "-i", "-Q", "add", "cluster", "test")
        self.run("sacctmgr", "-i", "-Q", "add", "account", ACCOUNT, "cluster=test")
        self.run(
            "sacctmgr",
            "-i",
            "-Q",
            "add",
            "user",
            "root",
            f"account={ACCOUNT}",
            f"defaultaccount={ACCOUNT}",
            check=False,
        )

    def start_node(self, node: str) -> None:
        Path("/etc/slurm").mkdir(exist_ok=True)  # where the node's namespace shows the configuration
        self.run("unshare", "--uts", "--mount", "sh", "-c", START_NODE, "sh", node, str(self.root))

    def num_ready_nodes(self) -> int:
        return len(set(self.run("sinfo", "-h", "-N", "-t", "idle,mix,alloc", "-o", "%N", check=False).split()))

    def processes_of(self, node: str) -> list[int]:
        """Everything that runs on a node, its slurmd among it: all that is in the slurmd's mount namespace."""
        pid = self.pid_of(f"slurmd.{node}")
        if pid is None:
            return []
        namespace = Path(f"/proc/{pid}/ns/mnt").readlink()
        found = []
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                if (directory / "ns/mnt").readlink() == namespace:
                    found.append(int(directory.name))
            except OSError:
                continue
        return found

    def kill_node(self, node: str) -> None:
        """The machine loses power: all of its processes are gone at once."""
        for pid in self.processes_of(node):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def pid_of(self, name: str) -> int | None:
        try:
            pid = int((self.root / f"run/{name}.pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if is_running(pid) else None

    def stop(self) -> None:
        """Ends jobs, nodes, controller and munge, and whatever of them is left."""
        if self.pid_of("slurmctld") and (jobs := self.jobs()):
            self.run("scancel", *jobs, check=False)
        for node in self.nodes:
            self.kill_node(node)
        for name in ("slurmctld", "slurmdbd", "mysql", "munged"):
            if pid := self.pid_of(name):
                os.kill(pid, signal.SIGTERM)
                deadline = time.monotonic() + 10
                while is_running(pid) and time.monotonic() < deadline:
                    time.sleep(0.05)
                if is_running(pid):
                    os.kill(pid, signal.SIGKILL)
        if self.network:
            self.network.kill()
            self.network.wait()


@contextmanager
def slurm_cluster(root: Path, *, has_accounting: bool = False) -> Iterator[SlurmCluster]:
    """A cluster that is stopped at the end, with all that runs on it."""
    cluster = SlurmCluster(root, has_accounting)
    try:
        cluster.start()
        yield cluster
    except BaseException:
        for log in sorted((root / "log").glob("*.log")):
            print(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-20:]))
        raise
    finally:
        cluster.stop()
