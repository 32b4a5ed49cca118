"""python benchmarks/slurm.py [--interrupt preempt limit requeue cancel]: recipes/slurm/train.sbatch on a real Slurm.

Starts Slurm with one node on this machine (`apt-get install slurm-wlm munge`), in a temporary folder and on free ports.
It trains one adapter without an interruption and one for each interruption: a job of higher priority (preempt), the
time limit (limit), `scontrol requeue` (requeue). Correctness check: the adapters are bit-identical. A job that is
canceled (cancel) must not come back. Then it stops what it started. The jobs' logs are printed without this machine's
names.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "scancel")
PROCESSES = 2
LONGEST = 1200  # seconds to wait for anything
LIMIT = ("--time=3", "--signal=TERM@60")
RUN = ["--config", "quickstart_pubmed", "train.max_steps=24", "train.save_steps=2", "evaluate.eval_steps=12"]
RUN += ["train.per_device_train_batch_size=1", "train.max_length=128"]
SHOWN = re.compile(r"^(run \d|continuing|step \d+ of|stopping|error|fix:|published|slurmstepd|srun)")
CONFIGURATION = """
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=120
SelectType=select/linear
SchedulerParameters=batch_sched_delay=1,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=node0 NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus}
PartitionName=usual Nodes=node0 Default=YES PriorityTier=1 GraceTime=120
PartitionName=urgent Nodes=node0 PriorityTier=9 PreemptMode=OFF
"""


def free_ports() -> tuple[int, int]:
    """Two ports that nothing listens on."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Slurm with one node, all of whose files are in `folder`; stopped at the end."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        sys.exit(f"not found: {', '.join(missing)}; apt-get install slurm-wlm munge")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(1024))
    facts = {"host": socket.gethostname(), "user": getpass.getuser(), "ports": free_ports(), "cpus": os.cpu_count()}
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, **facts), encoding="utf-8")
    own = [f"--{kind}={folder}/munge.{kind}" for kind in ("socket", "seed-file", "pid-file", "log-file")]
    commands = [["munged", "--foreground", "--force", f"--key-file={key}", *own]]
    commands += [["slurmctld", "-D"], ["slurmd", "-D", "-N", "node0"]]
    daemons: list[subprocess.Popen[bytes]] = []
    with (folder / "daemons.log").open("wb") as log:
        try:
            for command in commands:
                daemons.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
                time.sleep(1)
            wait_until(lambda: "idle" in ask("sinfo", "--noheader", "--format=%T"), "the node is idle")
            yield
        finally:
            if daemons:
                subprocess.run(["scancel", "--full", f"--user={facts['user']}"], capture_output=True, check=False)
            for daemon in reversed(daemons):
                daemon.terminate()
                daemon.wait(timeout=60)


def ask(*command: str) -> str:
    """What a command of Slurm prints; empty where it fails, as for a job that is long gone."""
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""


def wait_until(true: Callable[[], object], what: str) -> None:
    """Wait for a condition, and give up after LONGEST seconds."""
    end = time.monotonic() + LONGEST
    while not true():
        if time.monotonic() > end:
            sys.exit(f"not within {LONGEST} s: {what}")
        time.sleep(0.5)


def submit(folder: Path, name: str, *options: str) -> str:
    """Submit recipes/slurm/train.sbatch for an adapter of this name; returns the job's id."""
    options = (*options, f"--ntasks-per-node={PROCESSES}", f"--chdir={folder}", f"--output={folder}/{name}.log")
    paths = (f"train.output_dir={folder}/{name}", f"adapter.store={folder}/adapters", f"adapter.name={name}")
    job = ask("sbatch", "--parsable", *options, str(HERE.parent / "recipes/slurm/train.sbatch"), *RUN, *paths)
    if not job:
        sys.exit("sbatch refused recipes/slurm/train.sbatch")
    return job


def is_gone(job: str) -> bool:
    """Whether a job neither runs nor waits."""
    return not ask("squeue", "--noheader", f"--jobs={job}", "--format=%T")


def interrupt(folder: Path, way: str) -> None:
    """Run a job, interrupt it once its first checkpoint is committed, and wait until it is gone."""
    job = submit(folder, way, *(LIMIT if way == "limit" else ()))
    wait_until(lambda: list((folder / way).glob("checkpoint-*/COMMIT.json")) or is_gone(job), "a first checkpoint")
    if way == "preempt":
        ask("sbatch", "--partition=urgent", f"--output={folder}/urgent.log", "--wrap=sleep 2")
    elif way == "requeue":
        ask("scontrol", "requeue", job)
    elif way == "cancel":
        ask("scancel", job)
    wait_until(lambda: is_gone(job), f"the end of the job ({way})")


def show(folder: Path, name: str) -> str:
    """Print the lines of a job's log that show how it went; returns them."""
    text = (folder / f"{name}.log").read_text(encoding="utf-8")
    text = text.replace(f"{folder}/", "").replace(socket.gethostname(), "node0")
    lines = "\n".join(line for line in text.splitlines() if SHOWN.match(line))
    print(f"--- {name}\n{lines}", flush=True)
    return lines


def weights(folder: Path, name: str) -> bytes | None:
    """The published adapter's file; None if there is none."""
    path = folder / "adapters" / name / "adapter_model.safetensors"
    return path.read_bytes() if path.is_file() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ways = ("preempt", "limit", "requeue", "cancel")
    parser.add_argument("--interrupt", nargs="+", choices=ways, default=["preempt", "cancel"])
    chosen = parser.parse_args().interrupt
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["PYTHONPATH"] = str(HERE.parent)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="slurm-") as temporary:
        folder = Path(temporary)
        with cluster(folder):
            job = submit(folder, "whole")
            wait_until(lambda: is_gone(job), "the end of the job without an interruption")
            show(folder, "whole")
            expected = weights(folder, "whole")
            if expected is None:
                sys.exit("the job without an interruption published nothing")
            for way in chosen:
                interrupt(folder, way)
                lines = show(folder, way)
                if way == "cancel":
                    passed = weights(folder, way) is None and "run 2" not in lines
                    result = "it did not come back" if passed else "it came back"
                else:
                    passed = weights(folder, way) == expected and "run 2" in lines
                    result = "bit-identical" if passed else "another adapter, or no second run"
                print(f"correctness check, {way}: {result}", flush=True)
                if not passed:
                    sys.exit(1)


if __name__ == "__main__":
    main()
