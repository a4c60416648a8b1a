"""The evaluation on a real Ray cluster of this machine, each worker with a real ComfyUI."""

import contextlib
import os
import socket
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from PIL import Image
from skimage import data

from tools.evaluate import __main__ as evaluate
from tools.evaluate import ray as eval_ray
from tools.evaluate.arms import read_arms
from tools.evaluate.job import Job, make_result, run_job
from tools.evaluate.prompts import make_prompts
from tools.evaluate.ray import plan_workers, run_on_ray
from tools.evaluate.store import read_results
from tools.host import HostError, host_path
from tools.image_file import to_png

pytestmark = pytest.mark.tools

SIDE, STEPS = 64, 2


@pytest.fixture(scope="module")
def cluster():
    """Its address: two machines that can run ComfyUI, and one that cannot."""
    # Sockets lie in the folder: its name must be shorter than those of pytest.
    folder = tempfile.TemporaryDirectory(prefix="coz-", ignore_cleanup_errors=True)
    with folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", folder.name)
        (Path(folder.name) / "ray").mkdir()  # the cluster writes its address there
        from ray.cluster_utils import Cluster

        machine = {"num_cpus": 1, "object_store_memory": 80 << 20}
        head = machine | {"include_dashboard": False, "temp_dir": folder.name}
        cluster = Cluster(True, head_node_args=head)
        cluster.add_node(**machine)
        cluster.add_node(**machine, env_vars={"COMFYUI_PATH": "/nowhere"})
        yield cluster.address
        cluster.shutdown()


@pytest.fixture
def deal(cluster):
    """Deals jobs to workers of the given class."""

    def results(worker, jobs, count=2):
        with eval_ray._connect(cluster) as ray:
            hire = ray.remote(num_cpus=1)(worker).remote
            yield from eval_ray._Scheduler(ray, hire, iter(jobs)).run(count)

    return results


def job(image, arm="chain-null", picture=b"", prompts=()):
    key = f"{image} {arm}"
    return Job(image, arm, picture, None, prompts, STEPS, 4.0, 0, ("psnr", "sharpness"), key)


def jobs():
    arms = {arm.name: make_prompts(arm, SIDE, STEPS, 0) for arm in read_arms("bicubic,chain-null")}
    views = {f"{x}.png": data.astronaut()[100:164, x : x + SIDE] for x in (60, 120, 180, 240)}
    return [
        job(image, arm, to_png(Image.fromarray(pixels)), prompts)
        for image, pixels in views.items()
        for arm, prompts in arms.items()
    ]


def workers(doing=""):
    """The cluster's worker processes; Ray names them by what they do."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[:1] and process.cmdline()[0].startswith(f"ray::Worker{doing}"):
                found.add(process)
    return found


def hosts(worker):
    """The worker's ComfyUI, if it has one."""
    with contextlib.suppress(psutil.Error):
        lines = {process: process.cmdline() for process in worker.children(recursive=True)}
        script = str(host_path() / "main.py")
        return {process for process, line in lines.items() if line[1:2] == [script]}
    return set()


class Killer(threading.Thread):
    """Kills a worker, and the ComfyUI of another one, each in the middle of a job."""

    def __init__(self):
        super().__init__(daemon=True)
        self.hosts = set()
        self.kills = 0
        self.finished = threading.Event()

    def run(self):
        worker = None
        while not self.finished.wait(0.01):
            for other in workers():
                self.hosts |= hosts(other)
            for other in workers(".run") - {worker}:
                if self.kills == 0:
                    self.hosts |= hosts(other)
                    worker = other
                    worker.kill()
                    self.kills = 1
                elif self.kills == 1 and hosts(other):
                    hosts(other).pop().kill()
                    self.kills = 2


def test_killed_workers_lose_nothing_and_change_nothing(server, cluster, capfd):
    wanted = {job.key: run_job(server, job) for job in jobs()}
    killer = Killer()
    killer.start()
    results = list(run_on_ray(jobs(), cluster, workers=3))
    killer.finished.set()
    killer.join(10)
    assert sorted(result.key for result in results) == sorted(wanted)
    for result in results:
        same = wanted[result.key]
        assert (result.error, result.rows, result.frames) == (None, same.rows, same.frames)
        assert (result.versions, result.models) == (same.versions, same.models)
    told = capfd.readouterr().err
    assert told.count("try 2 of 3: the worker ended") == 1
    assert "a worker was dropped:" in told
    assert "COMFYUI_PATH is /nowhere, but there is no main.py in it" in told
    assert killer.kills == 2
    assert len(killer.hosts) >= 3
    assert psutil.wait_procs(killer.hosts, timeout=10)[1] == []


def test_a_job_that_ends_its_workers_is_given_up_alone(deal, capfd):
    class Clumsy:
        def start(self, expected):
            return ""

        def run(self, job):
            if job.image == "poison":
                os._exit(1)
            return job.image

    # Of a type that a worker knows without importing torch.
    jobs = [SimpleNamespace(**vars(job(name))) for name in ("a", "poison", "b", "c")]
    results = list(deal(Clumsy, jobs))
    (given_up,) = [result for result in results if not isinstance(result, str)]
    assert sorted(result for result in results if isinstance(result, str)) == ["a", "b", "c"]
    assert given_up == make_result(jobs[1], given_up.error)
    assert given_up.error.startswith("given up after 3 tries: the worker ended")
    assert "poison, chain-null: try 3 of 3" in capfd.readouterr().err


def test_without_any_host_the_workers_problems_are_told(deal):
    class Unable:
        def start(self, expected):
            return "otherhost: ComfyUI is missing: run make host"

    with pytest.raises(HostError, match=r"no worker could start ComfyUI:\notherhost: ComfyUI is"):
        list(deal(Unable, ["a job"]))


def test_a_clone_in_another_state_is_refused():
    host, problem = eval_ray.start_host(None, eval_ray.read_code_versions() | {"torch": "0.4"})
    assert not host.url
    assert problem.startswith("torch is 2.")
    assert "but 0.4 where the evaluation runs: bring both clones to the same state" in problem


@pytest.mark.parametrize(
    ("machines", "workers", "expected"),
    [
        ([(16, 0)], None, (4, 4, 0)),
        ([(2, 0)], None, (1, 2, 0)),
        ([(2, 0)], 2, (2, 1, 0)),
        ([(2, 0)], 9, (2, 1, 0)),
        ([(64, 0), (8, 0)], 2, (2, 32, 0)),
        ([(5, 0), (7, 0)], 3, (3, 3, 0)),
        ([(16, 4), (8, 2)], None, (6, 4, 1)),
        ([(16, 4), (64, 0)], None, (4, 4, 1)),
        ([(16, 4), (8, 2)], 2, (2, 8, 1)),
        ([(0, 1)], None, (1, 0, 1)),
    ],
)
def test_workers_share_all_cpus_and_have_a_gpu_each(machines, workers, expected):
    assert plan_workers(machines, workers) == expected


def test_a_cluster_without_cpus_is_an_error():
    with pytest.raises(HostError, match="no CPU and no GPU"):
        plan_workers([(0, 0)], None)


def test_a_wrong_address_is_told_at_once():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        for given, reason in ((address, "refused"), (f"ray://{address}", "refused"), ("x", "Inva")):
            with pytest.raises(HostError, match=f"no Ray cluster at {given}: .*{reason}"):
                next(run_on_ray([job("a")], given))


def test_without_ray_it_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(HostError, match="Ray is missing: run make host"):
        next(run_on_ray([job("a")], "local"))


def test_without_jobs_no_cluster_is_needed():
    assert list(run_on_ray([], "local")) == []


def test_the_command_line_runs_on_a_cluster_of_its_own(tmp_path, monkeypatch):
    Image.fromarray(data.astronaut()).save(tmp_path / "a.png")
    out = tmp_path / "out"
    line = [tmp_path / "a.png", "--arms", "bicubic", "--steps", "2", "--metrics", "sharpness"]
    line += ["--ray", "local", "--workers", "1", "--out", out]
    monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, line)])
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")  # what the command sets is taken back
    evaluate.main()
    (result,) = read_results(out)
    assert result.error is None
    assert [row.factor for row in result.rows] == [4.0, 16.0]
    assert (out / "report.html").exists()
