"""Run the jobs of an evaluation on a Ray cluster, with a ComfyUI in each worker.

Every machine of the cluster needs a clone of this repository in the same state, in any folder, with
`make host` done and Ray started by that clone's .venv/bin/ray. The machines need no shared folder:
Ray sends images and frames.
"""

import collections
import contextlib
import dataclasses
import functools
import itertools
import logging
import os
import platform
import secrets
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tools.host import ROOT, HostError

from .job import Job, Result, make_result
from .run import RestartingComfyUI
from .state import read_code_versions

TRIES = 3
"""Number of tries of a job whose worker ends."""

CPUS_PER_WORKER = 4
"""CPUs of a worker if there is no GPU and --workers is not given."""

CONNECT_SECONDS = 10  # Ray itself would try for minutes
START_SECONDS = 600  # a cluster may have to start a machine first
OBJECT_STORE_BYTES = 256 << 20  # for the images and frames in transit

START_ADVICE = (
    "start one with .venv/bin/ray start --head --disable-usage-stats, or give --ray local"
)


def run_on_ray(jobs: Iterable[Job], address: str, workers: int | None = None) -> Iterator[Result]:
    """Run the jobs on the cluster and yield their results, in the order in which they finish.

    If a worker ends, another one runs its job again. When the iterator is closed, the workers and
    their ComfyUIs end.

    Args:
        jobs: Taken as workers need them, and one in advance.
        address: An address of Ray such as "auto" or "HOST:6379"; "local" starts a cluster here and
            stops it afterwards.
        workers: The number of workers, each with its own ComfyUI; at most one per GPU, or one per
            CPU if the cluster has no GPU. By default one per GPU, or one for every four CPUs.

    Raises:
        HostError: If Ray is missing, the cluster cannot be reached or no worker can start ComfyUI.
    """
    jobs = iter(jobs)
    first = next(jobs, None)
    if first is None:
        return
    with _connect(address) as ray:
        count, cpus, gpus = plan_workers(_list_machines(ray), workers)
        worker = ray.remote(_make_worker_class()).options(
            num_cpus=cpus, num_gpus=gpus, scheduling_strategy="SPREAD"
        )
        hire = functools.partial(worker.remote, str(ROOT))
        yield from _Scheduler(ray, hire, itertools.chain([first], jobs)).run(count)


@contextlib.contextmanager
def _connect(address: str) -> Iterator[Any]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # sends no usage statistics
    try:
        import ray
    except ImportError as error:
        raise HostError("Ray is missing: run make host, or pip install ray in .venv") from error
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with contextlib.ExitStack() as stack:
        if address == "local":
            temporary = tempfile.TemporaryDirectory(prefix="coz-ray-", ignore_cleanup_errors=True)
            options["_temp_dir"] = stack.enter_context(temporary)
            options |= {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
            # Otherwise Ray writes a token to ~/.ray and leaves it there.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        try:
            _, port = host_port = _parse_address(address)
            if port:
                socket.create_connection(host_port, CONNECT_SECONDS).close()
            ray.init(address, **options)
        except (OSError, ValueError, RuntimeError, ImportError, ray.exceptions.RayError) as error:
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise HostError(f"no Ray cluster at {address}: {reason} ({START_ADVICE})") from error
        stack.callback(ray.shutdown)
        yield ray


def _parse_address(address: str) -> tuple[str, int]:
    """Parse "ray://HOST:PORT" or "HOST:PORT"; the port is 0 for other addresses."""
    host, _, port = address.rpartition("/")[2].rpartition(":")
    return host.strip("[]"), int(port) if host and port.isdecimal() else 0


def _list_machines(ray: Any) -> list[tuple[int, int]]:
    """Return the (CPUs, GPUs) of each machine."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [(int(has.get("CPU", 0)), int(has.get("GPU", 0))) for has in found]


def plan_workers(machines: Sequence[tuple[int, int]], workers: int | None) -> tuple[int, int, int]:
    """Return the number of workers, and the CPUs and GPUs of each.

    A worker gets as many CPUs as possible so that all workers still fit.

    Args:
        machines: The (CPUs, GPUs) of each machine.
        workers: The wanted number of workers, or None for the default.

    Raises:
        HostError: If the machines have neither CPUs nor GPUs.
    """
    gpus = int(any(gpu for _, gpu in machines))
    places = [gpu if gpus else cpu for cpu, gpu in machines]
    if not sum(places):
        raise HostError("the Ray cluster has no CPU and no GPU: see .venv/bin/ray status")
    count = workers or sum(place if gpus else -(-place // CPUS_PER_WORKER) for place in places)
    count = min(count, sum(places))

    def count_places(cpus: int) -> int:
        each = zip(machines, places, strict=True)
        return sum(min(place, cpu // cpus) if cpus else place for (cpu, _), place in each)

    most = max(cpu for cpu, _ in machines)
    return count, next(cpus for cpus in range(most, -1, -1) if count_places(cpus) >= count), gpus


def _make_worker_class() -> type:
    # Ray sends a class that is defined in a function as code. It would import a class of a module by its
    # name. That fails, because the worker's clone is not yet in sys.path.
    class Worker:
        def __init__(self, driver_clone):
            own = Path(sys.prefix).parent  # the clone whose .venv/bin/ray was started
            clone = own if (own / "tools" / "evaluate" / "ray.py").exists() else driver_clone
            sys.path.insert(0, str(clone))
            self.host = None

        def start(self, expected):
            try:
                from tools.evaluate.ray import start_host
            except ImportError as error:
                return (
                    f"{platform.node()}: no Chain-of-Zoom ({error}). Clone it there, run make host"
                    " in it and start Ray by its .venv/bin/ray"
                )
            self.host, problem = start_host(self.host, expected)
            return problem and f"{platform.node()}: {problem}"

        def run(self, job):
            return self.host.run(job)

    return Worker


def start_host(
    host: RestartingComfyUI | None, expected: dict[str, str]
) -> tuple[RestartingComfyUI, str]:
    """Start the worker's ComfyUI unless it runs; also return the problem, or "".

    Args:
        host: The worker's ComfyUI, if it already has one.
        expected: ``read_code_versions()`` where the evaluation runs.
    """
    host = host or RestartingComfyUI()
    try:
        found = read_code_versions()
        for name, version in expected.items():
            if found[name] != version:
                raise HostError(
                    f"{name} is {found[name]} in {ROOT}, but {version} where the evaluation runs:"
                    " bring both clones to the same state and run make host in them"
                )
        host.start()
    except (HostError, OSError) as error:
        return host, str(error)
    return host, ""


@dataclasses.dataclass
class _Task:
    job: Job
    tries: int = 0


class _Scheduler:
    """Give jobs to free workers, and again if a worker ended."""

    def __init__(self, ray: Any, hire: Callable[[], Any], jobs: Iterator[Job]) -> None:
        self._ray = ray
        self._hire = hire
        self._jobs = jobs
        self._waiting: collections.deque[_Task] = collections.deque()
        self._busy: dict[Any, tuple[Any, _Task | None]] = {}
        """Future -> (worker, its task or None while it starts)."""
        self._free: list[Any] = []
        self._deaths = 0  # number of workers that ended before they had started
        self._problems: list[str] = []
        self._expected = read_code_versions()

    def run(self, count: int) -> Iterator[Result]:
        self._waiting.extend(map(_Task, itertools.islice(self._jobs, count)))
        try:
            for _ in range(len(self._waiting)):
                self._start(self._hire())
            self._take_next_job()
            while self._has_work():
                while self._free and self._waiting:
                    worker, task = self._free.pop(), self._waiting.popleft()
                    self._busy[worker.run.remote(task.job)] = worker, task
                    self._take_next_job()
                result = self._wait_for_result()
                if result:
                    yield result
                self._take_next_job()
        finally:
            workers = [worker for worker, _ in self._busy.values()]
            for worker in [*workers, *self._free]:
                self._ray.kill(worker)

    def _take_next_job(self) -> None:
        """If no job is waiting, take the next one from the iterator, so that one is always ready."""
        if not self._waiting:
            self._waiting.extend(map(_Task, itertools.islice(self._jobs, 1)))

    def _has_work(self) -> bool:
        """Return whether a job waits or runs."""
        return bool(self._waiting) or any(task for _, task in self._busy.values())

    def _start(self, worker: Any) -> None:
        self._busy[worker.start.remote(self._expected)] = worker, None

    def _wait_for_result(self) -> Result | None:
        """Wait until a worker has started or finished a job; return the job's result if there is one."""
        future = self._wait()
        worker, task = self._busy.pop(future)
        errors = self._ray.exceptions
        try:
            answer = self._ray.get(future)
        except errors.RayTaskError as error:
            is_known = isinstance(error.cause, HostError)
            reason = str(error.cause) if is_known else repr(error.cause)
            if task is None:
                return self._drop(worker, reason)
            self._start(worker)
            return self._try_again(task, reason)
        except errors.RayError as error:
            reason = f"the worker ended (killed, or out of memory?): {type(error).__name__}"
            self._deaths += task is None
            if task is None and self._deaths > TRIES:
                return self._drop(worker, reason)
            self._ray.kill(worker)
            self._start(self._hire())
            return task and self._try_again(task, reason)
        if task is None and answer:
            return self._drop(worker, answer)
        self._free.append(worker)
        return answer if task else None

    def _wait(self) -> Any:
        while self._busy:
            done, _ = self._ray.wait(list(self._busy), timeout=START_SECONDS)
            if done:
                return done[0]
            if not any(task for _, task in self._busy.values()):
                raise HostError(
                    f"the Ray cluster started no worker in {START_SECONDS} s: it may be busy or have lost"
                    " its machines. See .venv/bin/ray status"
                )
        raise HostError("\n".join(["no worker could start ComfyUI:", *self._problems]))

    def _drop(self, worker: Any, problem: str) -> None:
        self._ray.kill(worker)
        self._problems.append(problem)
        _say(f"a worker was dropped: {problem}")

    def _try_again(self, task: _Task, reason: str) -> Result | None:
        task.tries += 1
        if task.tries == TRIES:
            return make_result(task.job, f"given up after {TRIES} tries: {reason}")
        _say(f"{task.job.image}, {task.job.arm}: try {task.tries + 1} of {TRIES}: {reason}")
        self._waiting.appendleft(task)
        return None


def _say(line: str) -> None:
    tqdm.write(f"Ray: {line}", file=sys.stderr)
