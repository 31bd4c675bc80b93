"""Train overnight: a queue of recipes that runs by itself, at the lowest priority, from a clone of its own.

    python scripts/training_queue.py scripts/training_queue.toml --data ~/data   # start, or go on
    python scripts/training_queue.py --status                           # one line a job
    python scripts/training_queue.py --pause | --continue | --stop
    python scripts/training_queue.py --collect benchmarks/trained       # finished runs: weights, card, log

The clone stands at the commit that was current when the queue was first started, with an environment of its
own, so that work on the code does not disturb a run. `foveal bench` pauses the queue while it measures. A run
that was stopped or killed goes on from its last checkpoint and ends with the same bytes. A job with
`start`, the name of an earlier job, starts from its weights instead of the encoder's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(
    0, str(REPOSITORY / "src")
)  # the package need not be installed; its writer needs Python alone

from foveal.storage.atomic import replacing_all, write_atomically  # noqa: E402

LOWEST = 19
LOG = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
"""How what the worker says is opened: a link in its place, which may point anywhere, is an error."""
KEPT_STEPS = 10
"""Every how many steps the log that is collected has a line."""
RETRIES = 2
KEPT = Path("benchmarks") / "trained"
"""Where a checkout keeps finished runs; a job found there is not trained again."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "jobs", nargs="?", type=Path, help="TOML file of [[job]] tables: name, recipe, set, start"
    )
    parser.add_argument("--home", type=Path, default=Path.home() / ".cache" / "foveal" / "queue")
    parser.add_argument(
        "--data", type=Path, default=REPOSITORY / "data", help="folder that recipes call data/"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--collect", type=Path, help="folder to copy finished runs to")
    parser.add_argument(
        "--in-place", action="store_true", help="run this checkout with this interpreter; no clone"
    )
    for name in ("status", "pause", "continue", "stop", "work"):
        parser.add_argument(
            f"--{name}", action="store_true", help=argparse.SUPPRESS if name == "work" else None
        )
    given = parser.parse_args()
    if given.work:
        return work(given.home, given.threads)
    if given.collect:
        return collect(given.home, given.collect)
    if given.status:
        return status(given.home)
    for name, number in (("pause", signal.SIGSTOP), ("continue", signal.SIGCONT), ("stop", signal.SIGTERM)):
        if getattr(given, name):
            return send(given.home, number)
    if given.jobs is None:
        parser.error("give a file of jobs, or one of --status, --pause, --continue, --stop, --collect")
    return start(given.jobs, given.home, given.data, given.threads, given.in_place)


def start(jobs: Path, home: Path, data: Path, threads: int, in_place: bool = False) -> int:
    """Clone, install, write the list of jobs and leave a worker running."""
    if running(home):
        print(f"the queue in {home} is running; --status shows it, --stop ends it")
        return 2
    wanted = tomllib.loads(jobs.read_text())["job"]
    home.mkdir(parents=True, exist_ok=True)
    prepare(home / "clone", data, in_place)
    write_atomically(home / "jobs.json", json.dumps(wanted, indent=1))
    command = [sys.executable, Path(__file__).resolve(), "--work", "--home", home, "--threads", str(threads)]
    try:
        log = os.open(home / "worker.log", LOG, 0o666)
    except OSError as error:
        print(
            f"{home / 'worker.log'} cannot be written ({error.strerror}); a link is not followed: delete it"
        )
        return 2
    try:
        worker = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
        )
    finally:
        os.close(log)
    write_atomically(home / "pid", str(worker.pid))
    print(f"{len(wanted)} jobs, worker {worker.pid}, {home}")
    return 0


def prepare(clone: Path, data: Path, in_place: bool) -> None:
    """Clone and install; in place, only make a folder for the runs that refers to this checkout."""
    if not clone.exists():
        if in_place:
            clone.mkdir()
            (clone / "recipes").symlink_to(REPOSITORY / "recipes")
        else:
            subprocess.run(["git", "clone", "-q", REPOSITORY, clone], check=True)
        (clone / "data").symlink_to(data.resolve())
    if not in_place:
        subprocess.run(["bash", "scripts/setup.sh"], cwd=clone, check=True)


def work(home: Path, threads: int) -> int:
    """Run the jobs in order, at the lowest priority; the list is read anew before each."""
    os.nice(LOWEST - os.nice(0))
    group = Path(f"/proc/{os.getpid()}/autogroup")
    if group.exists():
        group.write_text(str(LOWEST))
    stopped: list[int] = []
    child: list[subprocess.Popen[bytes]] = []

    def stop(number: int, frame: object) -> None:
        stopped.append(number)
        if child:
            child[-1].terminate()

    signal.signal(signal.SIGTERM, stop)
    failures: dict[str, int] = {}
    while not stopped:
        waiting = [
            job
            for job in read_jobs(home)
            if not finished(home, job) and failures.get(job["name"], 0) <= RETRIES
        ]
        if not waiting:
            return 0
        job = waiting[0]
        child.append(subprocess.Popen(command(home, job, threads), cwd=home / "clone"))
        if child[-1].wait() != 0 and not stopped:
            failures[job["name"]] = failures.get(job["name"], 0) + 1
            time.sleep(1)
    return 0


def command(home: Path, job: dict, threads: int) -> list[str]:
    """What trains a job, from its last checkpoint if there is one."""
    installed = home / "clone" / ".venv" / "bin" / "foveal"
    program = [str(installed)] if installed.exists() else [sys.executable, "-m", "foveal"]
    call = [*program, "train", job["recipe"], "--run", f"runs/{job['name']}", "--resume"]
    for pair in [*first_weights(home, job), *job.get("set", [])]:
        call += ["--set", pair]
    return [*call, "--threads", str(threads), "--json"]


def first_weights(home: Path, job: dict) -> list[str]:
    """Settings by which a job starts from the model of another, kept or made here."""
    if "start" not in job:
        return []
    kept = KEPT / f"{job['start']}.safetensors"
    place = kept if (home / "clone" / kept).exists() else Path("runs") / job["start"]
    return ["model.encoder_weights=", f"model.start={place}"]


def collect(home: Path, folder: Path) -> int:
    """Copy weights (half precision), card and every tenth line of the log of the runs that are finished."""
    folder.mkdir(parents=True, exist_ok=True)
    for job in read_jobs(home):
        run = home / "clone" / "runs" / job["name"]
        if not trained(home, job) or (folder / f"{job['name']}.safetensors").exists():
            continue
        lines = (run / "log.jsonl").read_text().splitlines(keepends=True)
        write_atomically(folder / f"{job['name']}.log.jsonl", "".join(lines[::KEPT_STEPS]))
        # The weights come last: where they are, a run is not copied again.
        suffixes = (".json", ".safetensors")
        with replacing_all([folder / (job["name"] + suffix) for suffix in suffixes]) as parts:
            for suffix, part in zip(suffixes, parts, strict=True):
                shutil.copyfile(run / f"model{suffix}", part)
        print(folder / f"{job['name']}.safetensors")
    return 0


def status(home: Path) -> int:
    """Say for every job where it is."""
    busy = running(home)
    print(f"{home}: {'running' if busy else 'not running'}")
    for job in read_jobs(home):
        log = home / "clone" / "runs" / job["name"] / "log.jsonl"
        recipe = tomllib.loads((home / "clone" / job["recipe"]).read_text())
        steps = next(
            (pair.split("=")[1] for pair in job.get("set", []) if pair.startswith("train.steps=")), None
        )
        total = int(steps or recipe["train"]["steps"])
        rows = log.read_text().splitlines() if log.exists() else []
        state = "finished" if finished(home, job) else f"step {len(rows)}" if rows else "waiting"
        print(f"  {job['name']:28} {state:>12} of {total}")
    return 0


def send(home: Path, number: int) -> int:
    """Send a signal to the worker; pausing and continuing reach all of its session."""
    if not running(home):
        print(f"no queue runs in {home}")
        return 2
    worker = int((home / "pid").read_text())
    if number == signal.SIGTERM:
        os.killpg(worker, signal.SIGCONT)
        os.kill(worker, number)
    else:
        os.killpg(worker, number)
    return 0


def running(home: Path) -> bool:
    """Whether the worker of a queue is alive."""
    try:
        worker = int((home / "pid").read_text())
        return "--work" in Path(f"/proc/{worker}/cmdline").read_text()
    except (OSError, ValueError):
        return False


def finished(home: Path, job: dict) -> bool:
    """Whether a job has its model, or the clone came with it."""
    return trained(home, job) or (home / "clone" / KEPT / f"{job['name']}.safetensors").exists()


def trained(home: Path, job: dict) -> bool:
    """Whether a run of this queue has ended with a model."""
    return (home / "clone" / "runs" / job["name"] / "model.json").exists()


def read_jobs(home: Path) -> list[dict]:
    path = home / "jobs.json"
    return json.loads(path.read_text()) if path.exists() else []


if __name__ == "__main__":
    sys.exit(main())
