"""How much a server bears: many users at once, beside one alone, with the memory it takes; from outside, over HTTP.

    python -m benchmarks.load --users 8 --seconds 30                   # starts `vargpt serve` itself
    python -m benchmarks.load --url http://127.0.0.1:8000 --requests 2000

In: the address of a server. Out: a `LoadReport`. First one user asks alone, then `users` ask at once, each the next
thing as soon as the last is answered; all ask the same few requests with fixed seeds, so answers can be compared:
`changed` counts those that came out differently in company than alone. `--requests` then asks on to see memory grow.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.load_report import LoadReport, Sample, phase, report_table
from benchmarks.load_requests import KINDS, VARIANTS, Answer, answer, call
from benchmarks.server_process import resident_bytes, serving

REFUSALS = (429, 503)  # the server says "later": asked again after a while
PATIENCE = 0.2  # seconds until then, if the server does not say


@dataclass(frozen=True, kw_only=True)
class LoadPlan:
    """What a load run does.

    Attributes:
        url: of the server, without /v1.
        users: how many ask at once.
        seconds: how long they go on; whatever they began is waited for.
        alone_seconds: how long one user asks alone before.
        requests: that are asked afterwards, by all users together, while memory is watched; 0 = none.
        kinds: what is asked, in turn.
        seed: of all answers.
        key: API key.
        timeout: seconds after which an answer is given up.
        pid: the server's process, if it runs here; its memory is read from the system, else from its /metrics.
    """

    url: str
    users: int = 8
    seconds: float = 30.0
    alone_seconds: float = 15.0
    requests: int = 0
    kinds: tuple[str, ...] = KINDS
    seed: int = 0
    key: str | None = None
    timeout: float = 300.0
    pid: int | None = None

    def __post_init__(self) -> None:
        if self.users < 1 or self.seconds <= 0 or self.alone_seconds <= 0 or self.requests < 0:
            raise ValueError("a load run needs at least one user and more than 0 seconds, alone and in company")
        if not self.kinds or set(self.kinds) - set(KINDS):
            raise ValueError(f"kinds are some of {', '.join(KINDS)}, got {', '.join(self.kinds) or 'none'}")


async def measure(plan: LoadPlan, say: Callable[[str], None] = lambda line: None) -> LoadReport:
    """Carries a plan out; `say` hears what happens.

    Raises:
        ImportError: httpx2 (a part of transformers' hub client) is missing.
        ConnectionError: nobody answers at the address.
    """
    httpx = _library()
    headers = {} if plan.key is None else {"authorization": f"Bearer {plan.key}"}
    limits = httpx.Limits(max_connections=plan.users + 2, max_keepalive_connections=plan.users + 2)
    async with httpx.AsyncClient(base_url=plan.url, headers=headers, timeout=plan.timeout, limits=limits) as client:
        try:
            model = (await client.get("/v1/models")).raise_for_status().json()["data"][0]["id"]
        except (httpx.HTTPError, KeyError, IndexError, ValueError) as error:
            raise ConnectionError(f"no model answers at {plan.url}: {error or type(error).__name__}") from None
        known: dict[tuple[str, int], Answer] = {}
        user = _User(plan, client, model, known)
        say(f"{model} at {plan.url}: warming up, every request once")
        await user.count(len(plan.kinds) * VARIANTS)
        say(f"one user for {plan.alone_seconds:g} s")
        before = await memory(plan, client)
        alone = phase(await user.until(plan.alone_seconds))
        say(f"{plan.users} users for {plan.seconds:g} s")
        users = [_User(plan, client, model, known, start) for start in range(plan.users)]
        together = phase(list(itertools.chain(*await asyncio.gather(*(one.until(plan.seconds) for one in users)))))
        trace, lasting = [(0, await memory(plan, client))], None
        if plan.requests:
            say(f"{plan.requests} more requests, to watch the memory")
            share, samples = max(1, plan.requests // (4 * plan.users)), list[Sample]()
            for quarter in range(4):
                groups = await asyncio.gather(*(one.count(share) for one in users))
                samples += itertools.chain(*groups)
                trace.append((share * plan.users * (quarter + 1), await memory(plan, client)))
            lasting = phase(samples)
    return LoadReport(model, plan.url, plan.users, plan.kinds, alone, together, lasting, before, tuple(trace))


async def memory(plan: LoadPlan, client: Any) -> int | None:
    """Bytes of main memory that the server holds; None if neither the system nor the server tells."""
    if plan.pid is not None:
        return resident_bytes(plan.pid)
    response = await client.get("/metrics")
    found = re.search(r"^process_resident_memory_bytes (\S+)$", response.text, re.MULTILINE)
    return int(float(found[1])) if response.status_code == 200 and found else None


class _User:
    """Asks one thing after another; `start` is where in the list of requests it begins.

    `known` are the first answers by kind and number; others are compared with them.
    """

    def __init__(
        self, plan: LoadPlan, client: Any, model: str, known: dict[tuple[str, int], Answer], start: int = 0
    ) -> None:
        self.plan, self.client, self.model, self.known = plan, client, model, known
        self._next = itertools.count(start)

    async def until(self, seconds: float) -> list[Sample]:
        end, samples = time.perf_counter() + seconds, []
        while time.perf_counter() < end:
            samples.append(await self.ask())
        return samples

    async def count(self, requests: int) -> list[Sample]:
        return [await self.ask() for _ in range(requests)]

    async def ask(self) -> Sample:
        """The next request, asked again while the server says "later"."""
        httpx, number = _library(), next(self._next)
        kind = self.plan.kinds[number % len(self.plan.kinds)]
        asked = call(kind, number // len(self.plan.kinds), self.model, self.plan.seed)
        started, refusals = time.perf_counter(), 0
        sample = Sample(kind, asked.number, started)
        while True:
            try:
                response = await self.client.post(asked.path, **asked.arguments())
                if response.status_code in REFUSALS and time.perf_counter() - started < self.plan.timeout:
                    refusals += 1
                    await asyncio.sleep(min(5.0, float(response.headers.get("retry-after") or PATIENCE)))
                    continue
                if response.status_code != 200:
                    sample = dataclasses.replace(sample, error=_reason(response))
                else:
                    got = answer(asked, response.json())
                    first = self.known.setdefault((kind, asked.number), got)
                    same = None if first is got else got.is_like(first)
                    sample = dataclasses.replace(sample, pictures=len(got.pictures), tokens=got.tokens, same=same)
            except (httpx.HTTPError, ValueError) as error:
                sample = dataclasses.replace(sample, error=f"{type(error).__name__}: {error}")
            return dataclasses.replace(sample, ended=time.perf_counter(), refusals=refusals)


def _reason(response: Any) -> str:
    try:
        error = response.json()["error"]
        return f"{response.status_code} {error.get('code')}: {error.get('message')}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{response.status_code}: {response.text[:80]}"


def _library() -> Any:
    try:
        import httpx2
    except ImportError:
        raise ImportError("load runs need httpx2: pip install 'vargpt[serve,clients]'") from None
    return httpx2


def command(
    url: str | None = None,
    users: int = 8,
    seconds: float = 30.0,
    alone_seconds: float = 15.0,
    requests: int = 0,
    kinds: str = ",".join(KINDS),
    seed: int = 0,
    key: str | None = None,
    serve: str = "",
    out: Path | None = None,
) -> None:
    """Load a server and report errors, times, pictures and tokens per second, and memory.

    Without --url, `vargpt serve` is started here for the run, with the words of --serve as its arguments.
    """
    import shlex

    from rich.console import Console

    if url is not None and serve:
        raise ValueError("--serve is for a server that is started here; leave either --url or --serve out")
    console = Console(highlight=False)
    with ExitStack() as stack:
        child = None if url is not None else stack.enter_context(serving(shlex.split(serve)))
        plan = LoadPlan(
            url=str(url) if child is None else child.url, pid=None if child is None else child.pid,
            users=users, seconds=seconds, alone_seconds=alone_seconds, requests=requests,
            kinds=tuple(kinds.split(",")), seed=seed, key=key,
        )  # fmt: skip
        report = asyncio.run(measure(plan, console.print))
    console.print(report_table(report))
    for line in report.lines():
        console.print(line)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8")
    if report.errors:
        raise SystemExit(1)


def main() -> None:
    import typer

    typer.run(command)


if __name__ == "__main__":
    main()
