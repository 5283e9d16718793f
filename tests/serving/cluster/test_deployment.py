"""Replicas behind one address: what Ray Serve is told; and, slowly, two real ones: flooded, killed, replaced."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import openai
import pytest

from benchmarks.load_requests import call, opened
from benchmarks.server_process import free_port
from vargpt.serving.answers import ErrorAnswer
from vargpt.serving.cluster.deployment import ClusterSettings, deployment_options
from vargpt.serving.settings import Limits, ServeSettings

ROOT = Path(__file__).parents[3]
PATIENCE = 600.0  # seconds; machines may be busy
# Each holds 4 requests and lets 4 more wait: 16 in all.
SERVE = [
    *(sys.executable, "-m", "vargpt", "serve", "--cluster"),
    *("--replicas", "2", "--batch", "2", "--max-waiting", "4"),
]


def test_replicas_hold_two_batches_and_the_queue_is_bounded() -> None:
    limits = Limits(waiting=10, seconds=60)
    options = deployment_options(ServeSettings(limits=limits), ClusterSettings(replicas=2, batch=4, gpus=0.5))
    assert (options["num_replicas"], options["max_ongoing_requests"], options["max_queued_requests"]) == (2, 8, 20)
    assert options["ray_actor_options"] == {"num_cpus": 1.0, "num_gpus": 0.5}
    assert options["graceful_shutdown_timeout_s"] == 60  # whoever is being answered gets the answer
    assert (options["rolling_update_percentage"], options["max_surge_percent"]) == (0.5, 50)
    assert options["backpressure_config"]["status_code"] == 429


def test_more_replicas_come_when_more_wait_than_a_batch_each() -> None:
    options = deployment_options(ServeSettings(), ClusterSettings(replicas=1, max_replicas=4, batch=6, spare=0))
    assert "num_replicas" not in options
    scaling = options["autoscaling_config"]
    assert (scaling["min_replicas"], scaling["max_replicas"], scaling["target_ongoing_requests"]) == (1, 4, 6)
    assert options["max_surge_percent"] == 0


@pytest.mark.parametrize("fields", [{"replicas": 0}, {"replicas": 3, "max_replicas": 2}, {"batch": 0}, {"cpus": 0}])
def test_impossible_clusters_are_refused(fields: dict) -> None:
    with pytest.raises(ValueError, match="replica"):
        ClusterSettings(**fields)


def test_without_ray_the_extra_is_named() -> None:
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from vargpt.serving.cluster import deployment\n"
        "try: deployment.library()\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT)
    assert "vargpt[cluster]" in done.stdout, done.stderr


# -- for real ----------------------------------------------------------------------------------------------------------


class Cluster:
    """`vargpt serve --cluster` in a process of its own."""

    def __init__(self, url: str, process: subprocess.Popen, environment: dict[str, str]) -> None:
        self.url, self.process, self.environment = url, process, environment

    def replicas(self) -> list[int]:
        """Process ids of the replicas, which Ray names by their titles."""
        found = subprocess.run(["ps", "-eo", "pid,ppid,sid,args"], capture_output=True, text=True).stdout.splitlines()
        rows = [line.split(None, 3) for line in found if "ray::ServeReplica:vargpt" in line]
        return sorted(int(pid) for pid, *_ in rows if self._is_mine(int(pid)))

    def ray_address(self) -> str:
        """Where the Ray that was started for it takes new deployments."""
        for entry in Path("/proc").glob("[0-9]*"):
            if self._is_mine(int(entry.name)) and "raylet" in (entry / "comm").read_text():
                words = (entry / "cmdline").read_text().split("\0")
                return next(word.split("=", 1)[1] for word in words if word.startswith("--gcs-address="))
        raise AssertionError("there is no Ray of this cluster")

    def _is_mine(self, pid: int) -> bool:
        try:
            return f"VARGPT_TEST={self.process.args[-1]}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False

    def ask(self, kind: str, number: int) -> httpx2.Response:
        """Asks again while nobody can answer, as OpenAI's clients do."""
        asked, end = call(kind, number, "nano"), time.monotonic() + PATIENCE
        while True:
            try:
                response = httpx2.post(f"{self.url}{asked.path}", timeout=PATIENCE, **asked.arguments())
                if response.status_code == 200 or time.monotonic() > end:
                    return response
            except httpx2.TransportError:
                if time.monotonic() > end:
                    raise
            time.sleep(0.5)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    pytest.importorskip("ray")
    port, home = free_port(), tmp_path_factory.mktemp("home")
    environment = os.environ | {"HOME": str(home), "VARGPT_TEST": str(port), "PYTHONPATH": str(ROOT)}
    command = [*SERVE, "--port", str(port)]
    log = home / "said.txt"
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT, env=environment, cwd=ROOT)
    try:
        end = time.monotonic() + PATIENCE
        while "2 replica(s)" not in (text := log.read_text(errors="replace")):
            assert process.poll() is None and time.monotonic() < end, text
            time.sleep(1)
        yield Cluster(f"http://127.0.0.1:{port}", process, environment)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.mark.slow
def test_a_cluster_answers_and_any_replica_gives_out_what_another_drew(cluster: Cluster) -> None:
    assert len(cluster.replicas()) == 2
    assert cluster.ask("chat", 0).json()["choices"][0]["message"]["content"]
    body = {"model": "nano", "prompt": "draw a fox", "seed": 1, "response_format": "url"}
    drawn = httpx2.post(f"{cluster.url}/v1/images/generations", json=body, timeout=PATIENCE)
    address = drawn.json()["data"][0]["url"]
    files = [httpx2.get(address, timeout=PATIENCE) for _ in range(8)]
    assert {file.status_code for file in files} == {200}
    assert {file.content[:4] for file in files} == {b"\x89PNG"}


@pytest.mark.slow
def test_a_replica_that_is_killed_under_load_loses_no_request_and_comes_back(cluster: Cluster) -> None:
    before = cluster.replicas()
    with ThreadPoolExecutor(6) as users:
        asked = [users.submit(cluster.ask, "draw", number) for number in range(24)]
        time.sleep(2)
        os.kill(before[0], signal.SIGKILL)
        answers = [one.result() for one in asked]
    assert [answer.status_code for answer in answers] == [200] * 24
    pictures = [base64.b64decode(answer.json()["data"][0]["b64_json"]) for answer in answers]
    assert all(opened(base64.b64encode(picture)).size == (64, 64) for picture in pictures)
    end = time.monotonic() + PATIENCE
    while len(now := cluster.replicas()) < 2:
        assert time.monotonic() < end, "the killed replica was not replaced"
        time.sleep(1)
    assert before[0] not in now and before[1] in now
    assert cluster.ask("chat", 1).status_code == 200


@pytest.mark.slow
def test_who_finds_no_room_is_told_so_in_openais_form(cluster: Cluster) -> None:
    asked = call("draw", 1, "nano")

    def once(_: int) -> httpx2.Response:
        return httpx2.post(f"{cluster.url}{asked.path}", timeout=PATIENCE, **asked.arguments())

    with ThreadPoolExecutor(60) as users:
        answers = list(users.map(once, range(120)))
    turned_away = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(turned_away) < len(answers)
    assert {answer.status_code for answer in turned_away} == {429}
    assert {answer.headers["retry-after"] for answer in turned_away} == {"5"}
    assert {ErrorAnswer.model_validate(answer.json()).error.code for answer in turned_away} == {"queue_full"}
    with openai.OpenAI(base_url=f"{cluster.url}/v1", api_key="any", timeout=PATIENCE) as client:
        assert client.models.list().data[0].id == "nano"


@pytest.mark.slow
def test_a_rolling_restart_under_load_replaces_every_replica_and_no_request_fails(cluster: Cluster) -> None:
    before = cluster.replicas()
    again = [*SERVE, "--port", cluster.url.rpartition(":")[2], "--cluster-address", cluster.ray_address()]
    environment = cluster.environment | {"RAY_AUTH_MODE": "token"}  # Ray's rule where the address is not "auto"
    restarted, answers = threading.Event(), []

    def user(number: int) -> None:  # nobody asks twice: whatever fails counts
        while not restarted.is_set():
            asked = call("draw" if number % 2 else "chat", number, "nano")
            answers.append(httpx2.post(f"{cluster.url}{asked.path}", timeout=PATIENCE, **asked.arguments()))
            number += 4

    with ThreadPoolExecutor(4) as users:
        running = [users.submit(user, number) for number in range(4)]
        try:
            done = subprocess.run(again, capture_output=True, text=True, timeout=PATIENCE, env=environment)
            assert done.returncode == 0, done.stderr
            end = time.monotonic() + PATIENCE
            while set(now := cluster.replicas()) & set(before) or len(now) != 2:
                assert time.monotonic() < end, f"not all replicas were replaced: {before}, then {now}"
                time.sleep(1)
        finally:
            restarted.set()
        for one in running:
            one.result()
    assert {answer.status_code for answer in answers} == {200}
    assert len(answers) >= 8
