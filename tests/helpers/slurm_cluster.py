"""A real Slurm on one machine, as sites have it: each node with a network, a name, a hosts file and GPU devices of its own.

What is stood in for: the GPUs (character devices that Slurm hands out and nobody opens) and the machines (namespaces: a login
node with munged, slurmctld, slurmdbd and its database, and nodes that reach it and each other over a bridge). Nothing of it
reaches any other network. The nodes' names are as awkward as at many sites (`Names`). Needs root, namespaces and Debian's
slurm-wlm and munge; no systemd, no cgroups. Nodes show this configuration as /etc/slurm, because inside a job Snakemake's
plugin drops $SLURM_CONF.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

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
CONTROLLER_PORT, ACCOUNTING_PORT, DATABASE_PORT, NODE_PORT = 21000, 21001, 21002, 21003
LOGIN_ADDRESS = "10.87.0.1"
QOS = "2024-12"  # a name that is a sum to Python
GPU_TYPE = "nvidia_a100-sxm4-80gb"  # with hyphens, as Slurm names what NVIDIA's library finds

# What a node's own hosts file says of it: that its name is 127.0.0.1, or a full name that no other node can resolve.
Names = Literal["loopback", "full"]

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}({login_address})
SlurmctldPort={port}
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket,cred_expire=15
CryptoType=crypto/munge
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
NodeName=DEFAULT CPUs={num_cpus} RealMemory={memory_mb} Gres=gpu:{gpu_type}:{num_gpus} State=UNKNOWN
{node_lines}
PartitionName=cpu Nodes=ALL Default=YES MaxTime=1-00:00:00 DefaultTime=10 State=UP
PartitionName=gpu Nodes=ALL MaxTime=1-00:00:00 DefaultTime=10 State=UP
PartitionName=urgent Nodes=ALL PriorityTier=10 MaxTime=1-00:00:00 DefaultTime=10 State=UP
PartitionName=short Nodes=ALL MaxTime=1 DefaultTime=1 State=UP
JobSubmitPlugins=lua
Prolog={root}/prolog.sh
"""

# What sites do to a job: its comment is another one, and while the file `refusal` is there, it is refused with that text.
JOB_SUBMIT = """\
function slurm_job_submit(job, partitions, user)
    local refusal = io.open("{root}/refusal", "r")
    if refusal then
        slurm.log_user(refusal:read("*a"))
        refusal:close()
        return slurm.ERROR
    end
    job.comment = "rewritten by the site"
    return slurm.SUCCESS
end
function slurm_job_modify(job, record, partitions, user)
    return slurm.SUCCESS
end
return slurm.SUCCESS
"""
# Fails on a node that is broken.
PROLOG = """\
#!/bin/sh
exec test ! -e {root}/broken.$SLURMD_NODENAME
"""

ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={root}/munge/socket
AccountingStorageTRES=gres/gpu
AccountingStorageEnforce=associations,limits,qos"""

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

# In namespaces of its own: the node's hosts file, its name, and the configuration where Slurm looks by default.
START_NODE = (
    'mount --bind "$2/hosts.$1" /etc/hosts && mount --bind "$2" /etc/slurm && hostname "$3" && exec slurmd -N "$1"'
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


def own_network() -> subprocess.Popen[bytes]:
    """A process whose network is a new one."""
    here = Path("/proc/self/ns/net").readlink()
    network = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], start_new_session=True)
    link = Path(f"/proc/{network.pid}/ns/net")
    wait_until(lambda: link.readlink() != here, "a network of its own")
    return network


@dataclass
class SlurmCluster:
    """A running cluster; `environment` points Slurm's commands at it."""

    root: Path
    nodes: list[str] = field(default_factory=lambda: [f"node{number}" for number in range(1, NUM_NODES + 1)])
    names: dict[str, Names] = field(default_factory=lambda: {"node1": "loopback", "node2": "full"})
    # Each keeps a network's namespace.
    network: subprocess.Popen[bytes] | None = None
    node_networks: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

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
        """The login node's network, with a bridge to one network a node."""
        self.network = own_network()
        self.run("ip", "link", "set", "lo", "up")
        # slurmdbd listens nowhere when 127.0.0.1 is the only address (getaddrinfo's AI_ADDRCONFIG).
        self.run("ip", "address", "add", "127.0.0.2/8", "dev", "lo")
        self.run("ip", "link", "add", "bridge", "type", "bridge")
        self.run("ip", "address", "add", f"{LOGIN_ADDRESS}/24", "dev", "bridge")
        self.run("ip", "link", "set", "bridge", "up")
        for node in self.nodes:
            network = self.node_networks[node] = own_network()
            peer = ["type", "veth", "peer", "name", "eth0", "netns", str(network.pid)]
            self.run("ip", "link", "add", f"to-{node}", *peer)
            self.run("ip", "link", "set", f"to-{node}", "master", "bridge", "up")
            inside = [*self.on_node(node), "ip"]
            for words in ("link set lo up", f"address add {self.address_of(node)}/24 dev eth0", "link set eth0 up"):
                subprocess.run([*inside, *words.split()], check=True)

    def on_node(self, node: str) -> list[str]:
        """Before a command: runs it in a node's network."""
        return ["nsenter", f"--net=/proc/{self.node_networks[node].pid}/ns/net"]

    def address_of(self, node: str) -> str:
        return f"10.87.0.{11 + self.nodes.index(node)}"

    def host_name(self, node: str) -> str:
        """What the node calls itself."""
        return f"{node}.cluster.example" if self.names[node] == "full" else node

    def write_hosts(self) -> None:
        """Of each node, in place, since the nodes have them mounted."""
        for node in self.nodes:
            others = [f"{self.address_of(other)} {other}" for other in self.nodes if other != node]
            if self.names[node] == "loopback":
                own = [f"127.0.0.1 localhost {node}"]
            else:
                own = ["127.0.0.1 localhost", f"{self.address_of(node)} {self.host_name(node)} {node}"]
            login = f"{LOGIN_ADDRESS} {socket.gethostname()}"
            (self.root / f"hosts.{node}").write_text("\n".join([*own, login, *others]) + "\n")

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
        self.start_accounting()
        self.run("slurmctld")
        for node in self.nodes:
            self.start_node(node)
        wait_until(lambda: self.num_ready_nodes() == len(self.nodes), "the nodes of the cluster")
        # Not before the controller has told the database of its GPUs.
        limit = ["set", f"MaxTRESPerUser=gres/gpu={NUM_NODES * NUM_GPUS_PER_NODE}"]
        wait_until(lambda: self.succeeds("sacctmgr", "-i", "-Q", "modify", "qos", QOS, *limit), "the limit of GPUs")

    def write_configuration(self) -> None:
        key = self.root / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        database = {"root": self.root, "port": ACCOUNTING_PORT, "database_port": DATABASE_PORT}
        places = [f"NodeName={node} NodeAddr={self.address_of(node)} Port={NODE_PORT}" for node in self.nodes]
        host = socket.gethostname().partition(".")[0]
        accounting = ACCOUNTING.format(**database)
        (self.root / "slurmdbd.conf").write_text(DATABASE_CONFIGURATION.format(host=host, **database))
        (self.root / "slurmdbd.conf").chmod(0o600)
        text = CONFIGURATION.format(
            accounting=accounting, host=host, port=CONTROLLER_PORT, root=self.root, node_timeout_s=20, kill_wait_s=60,
            num_cpus=NUM_CPUS_PER_NODE, memory_mb=MEMORY_MB, num_gpus=NUM_GPUS_PER_NODE, node_lines="\n".join(places),
            login_address=LOGIN_ADDRESS, gpu_type=GPU_TYPE,
        )  # fmt: skip
        (self.root / "slurm.conf").write_text(text)
        self.write_hosts()
        (self.root / "job_submit.lua").write_text(JOB_SUBMIT.format(root=self.root))
        (self.root / "prolog.sh").write_text(PROLOG.format(root=self.root))
        (self.root / "prolog.sh").chmod(0o755)
        for number in range(NUM_GPUS_PER_NODE):
            # A plain file would be handed out, too, but then no job sees CUDA_VISIBLE_DEVICES.
            os.mknod(self.root / f"dev/gpu{number}", 0o666 | 0o020000, os.makedev(1, 3))
        gpus = f"{self.root}/dev/gpu[0-{NUM_GPUS_PER_NODE - 1}]"
        (self.root / "gres.conf").write_text(f"NodeName={','.join(self.nodes)} Name=gpu Type={GPU_TYPE} File={gpus}\n")

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
        self.run("sacctmgr", "-i", "-Q", "add", "qos", QOS)
        self.run(
            "sacctmgr",
            "-i",
            "-Q",
            "add",
            "user",
            "root",
            f"account={ACCOUNT}",
            f"defaultaccount={ACCOUNT}",
            f"qos=normal,{QOS}",
            check=False,
        )

    def start_node(self, node: str) -> None:
        Path("/etc/slurm").mkdir(exist_ok=True)  # where the node's namespace shows the configuration
        names = [node, str(self.root), self.host_name(node)]
        command = [*self.on_node(node), "unshare", "--uts", "--mount", "sh", "-c", START_NODE, "sh", *names]
        subprocess.run(command, env=os.environ | self.environment, check=True, timeout=LIMIT_S)

    @contextmanager
    def without_controller(self) -> Iterator[None]:
        """slurmctld is away, as during a maintenance."""
        pid = self.pid_of("slurmctld")
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not is_running(pid), "the end of slurmctld")
        try:
            yield
        finally:
            self.run("slurmctld")
            wait_until(lambda: self.num_ready_nodes() == len(self.nodes), "the nodes of the cluster")

    @contextmanager
    def broken(self, node: str) -> Iterator[None]:
        """A node whose prolog fails, until somebody has mended it and lets it go on."""
        mark = self.root / f"broken.{node}"
        mark.touch()
        try:
            yield
        finally:
            mark.unlink()
            self.run("scontrol", "update", f"NodeName={node}", "State=RESUME", check=False)
            wait_until(lambda: self.num_ready_nodes() == len(self.nodes), "the node's return")

    @contextmanager
    def without_room_in_tmp(self, kept: Iterable[Path]) -> Iterator[None]:
        """Nodes whose /tmp is full. What lies below it and is `kept` stays visible there."""
        names = sorted({path.parts[2] for path in kept if path.parts[:2] == ("/", "tmp")})
        # Made beside the real one, which is hidden by it at last.
        hide = (
            'mkdir -p "$0" && mount -t tmpfs -o size=64k tmpfs "$0" && '
            'for name; do mkdir "$0/$name" && mount --bind "/tmp/$name" "$0/$name" || exit 1; done; '
            '! head -c 1M /dev/zero 2> /dev/null > "$0/filling" && mount --rbind "$0" /tmp'
        )
        full = str(self.root / "full-tmp")
        for node in self.nodes:
            subprocess.run([*self.on_files_of(node), "sh", "-c", hide, full, *names], check=True)
        try:
            yield
        finally:
            for node in self.nodes:
                for path in ("/tmp", full):
                    subprocess.run([*self.on_files_of(node), "umount", "--recursive", "--lazy", path], check=True)

    def on_files_of(self, node: str) -> list[str]:
        """Before a command: runs it with the mounts of a node."""
        return ["nsenter", f"--mount=/proc/{self.pid_of(f'slurmd.{node}')}/ns/mnt"]

    @contextmanager
    def refusing(self, text: str) -> Iterator[None]:
        """A site whose plugin refuses each job, saying this."""
        path = self.root / "refusal"
        path.write_text(text)
        try:
            yield
        finally:
            path.unlink()

    def rename(self, node: str, names: Names) -> None:
        """Gives a running node another name of its own, and the hosts file that goes with it."""
        self.names[node] = names
        self.write_hosts()
        pid = self.pid_of(f"slurmd.{node}")
        subprocess.run(["nsenter", f"--uts=/proc/{pid}/ns/uts", "hostname", self.host_name(node)], check=True)

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
        for network in [*self.node_networks.values(), *([self.network] if self.network else [])]:
            network.kill()
            network.wait()


@contextmanager
def slurm_cluster(root: Path) -> Iterator[SlurmCluster]:
    """A cluster that is stopped at the end, with all that runs on it."""
    cluster = SlurmCluster(root)
    try:
        cluster.start()
        yield cluster
    except BaseException:
        for log in sorted((root / "log").glob("*.log")):
            print(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-20:]))
        raise
    finally:
        cluster.stop()
