"""Our batches of text beside transformers' continuous batching, on the same weights and conversations.

    python -m benchmarks.text_batching                   # the shipped nano
    python -m benchmarks.text_batching --half-billion    # a language model of 0.36 B random weights

In: an engine. Out: tokens per second for so many users at once, each asking the next thing when the last is answered:
*ours* is `vargpt.chat.batch`, *packed* the same on packed weights (as a CPU is served), *transformers* its
`ContinuousBatchingManager` with a Qwen2 that shares the language model's weights. Greedy, and nobody draws: its paged
cache cannot hand a conversation to a generator. Ours has to, and this says what that costs.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
import transformers
from transformers import ContinuousBatchingConfig, GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from benchmarks.load_requests import CHATS
from vargpt.assistant.model import VARGPT
from vargpt.chat.engine import ChatEngine
from vargpt.commands.measure import write_json
from vargpt.evaluation.base import hardware
from vargpt.loading.packing import pack
from vargpt.presets import half_billion, nano
from vargpt.types import ChatRequest, Message, TextSampling

PAGE = 32  # tokens in a page of their cache; the least that all these conversations and a few steps need
LENGTHS = (16, 24, 32, 48, 64)  # most tokens of one answer after another, so that users do not end together
Answers = list[list[int]]
Ask = Callable[[Sequence[ChatRequest], int], Answers]  # requests, users at once -> ids of every answer


@dataclass(frozen=True, kw_only=True)
class Rate:
    """One way of answering: tokens of all answers per second. `same` is the share (0-1) of answers that are id for id
    those that ours gives to the fewest users.
    """

    name: str
    users: int
    tokens_per_s: float
    same: float


@dataclass(frozen=True, kw_only=True)
class TextBatching:
    """What was measured, in the order in which it was."""

    rates: tuple[Rate, ...]
    about: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """For `json.dump`."""
        return asdict(self)


def text_requests(count: int) -> list[ChatRequest]:
    """Small talk in turn, each answer in words and of its own greatest length."""
    return [
        ChatRequest(
            messages=(Message.of("user", CHATS[number % len(CHATS)]),),
            route="text",
            adapter=(),
            text_sampling=TextSampling(max_new_tokens=LENGTHS[number % len(LENGTHS)]),
        )
        for number in range(count)
    ]


def causal_twin(model: VARGPT) -> Qwen2ForCausalLM:
    """The language model as transformers' Qwen2, which shares its weights. On words alone both say the same: the three
    parts of a multimodal rotary position are equal there.

    Raises:
        ValueError: the weights are packed, which shares nothing.
    """
    text = model.config.text_config
    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps",
    )  # fmt: skip
    theta = text.rope_parameters["rope_theta"]
    with torch.device("meta"):
        twin = Qwen2ForCausalLM(
            Qwen2Config(
                **{name: getattr(text, name) for name in names},
                rope_parameters={"rope_type": "default", "rope_theta": theta},
                tie_word_embeddings=False,
            )
        )
    weights = {f"model.{name}": weight for name, weight in model.language_model.state_dict().items()}
    weights["lm_head.weight"] = model.lm_head.weight
    try:
        twin.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise ValueError(f"this language model has not the weights of a Qwen2 (packed?): {error}") from error
    rotary = type(twin.model.rotary_emb)(twin.config)  # its buffers are no weights
    twin.model.rotary_emb = rotary.to(model.device)
    twin.set_attn_implementation("sdpa")
    return twin.eval()


def ask_ours(engine: ChatEngine) -> Ask:
    """Through `vargpt.chat.batch`, as the server's scheduler does it."""

    def ask(requests: Sequence[ChatRequest], users: int) -> Answers:
        turns = [engine.turn(index, request, previews=False) for index, request in enumerate(requests)]
        waiting, batch = list(turns), engine.batch()
        prompts: dict[int, int] = {}
        with engine.alone():
            while waiting or batch.turns:
                free = users - len(batch.turns)
                new, waiting = waiting[:free], waiting[free:]
                if new:
                    batch.add(new)
                    prompts |= {turn.index: len(turn.ids) for turn in new}
                batch.step()
        for turn in turns:
            if turn.error is not None:
                raise turn.error
        return [turn.ids[prompts[turn.index] :] for turn in turns]

    return ask


@contextmanager
def asking_transformers(engine: ChatEngine, most: int) -> Iterator[Ask]:
    """Through a manager that has been started once, as a server would have it; `most` users at once."""
    end = engine.processor.special.im_end
    limits = ContinuousBatchingConfig(
        page_size=PAGE,
        num_blocks=most * (engine.processor.max_context // PAGE + 1),
        max_batch_tokens=max(512, most),
        max_requests_per_batch=most,
    )
    greedy = GenerationConfig(do_sample=False, eos_token_id=end, pad_token_id=end, max_new_tokens=max(LENGTHS))
    twin = causal_twin(engine.model)
    with twin.continuous_batching_context_manager(
        generation_config=greedy, continuous_batching_config=limits, timeout=60
    ) as manager:

        def ask(requests: Sequence[ChatRequest], users: int) -> Answers:
            found: dict[str, list[int]] = {}
            names: list[str] = []
            while len(found) < len(requests):
                while len(names) < len(requests) and len(names) - len(found) < users:
                    request = requests[len(names)]
                    ids = engine.processor.waiting_ids(request.messages).input_ids
                    names.append(manager.add_request(ids, max_new_tokens=request.text_sampling.max_new_tokens))
                result = manager.get_result(timeout=1)
                if result is not None and result.is_finished():
                    if result.error is not None:
                        raise RuntimeError(f"transformers could not answer: {result.error}")
                    found[result.request_id] = [token for token in result.generated_tokens if token != end]
                elif result is None and not manager.is_running():
                    raise RuntimeError("transformers' continuous batching has stopped; its own log says why")
            return [found[name] for name in names]

        yield ask


def measure(engine: ChatEngine, users: Sequence[int] = (1, 4, 16), answers: int = 64, runs: int = 3) -> TextBatching:
    """All ways in turn, each after a round to warm up.

    Args:
        engine: on weights that are not packed; on a CPU they are in the end.
        users: how many ask at once.
        answers: that each number of users gets in all.
        runs: of which the median time is taken.

    Raises:
        ValueError: no users or runs, fewer answers than users, or packed weights.
    """
    if not users or min(users) < 1 or answers < max(users) or runs < 1:
        raise ValueError(
            f"at least one user and one run are needed, and an answer for each user; got users {tuple(users)}, "
            f"{runs} runs and {answers} answers"
        )
    requests, most = text_requests(answers), max(users)
    about = {
        "model": engine.model_name,
        "parameters of the language model": sum(weight.numel() for weight in engine.model.language_model.parameters()),
        "answers": answers,
        "runs": runs,
        "hardware": hardware(engine.device),
        "software": f"torch {torch.__version__}, transformers {transformers.__version__}",
    }
    said: dict[tuple[str, int], Answers] = {}
    seconds: dict[tuple[str, int], list[float]] = {}
    ways: dict[str, Callable[[], AbstractContextManager[Ask]]] = {
        "ours": lambda: nullcontext(ask_ours(engine)),
        "transformers": lambda: asking_transformers(engine, most),
    }
    if engine.device.type == "cpu":
        packed = copy.deepcopy(engine.model)
        pack(packed)
        ways["ours, packed"] = lambda: nullcontext(ask_ours(ChatEngine(packed, engine.processor)))
    for _, (name, way) in itertools.product(range(runs), ways.items()):
        with way() as ask:  # and nobody else's thread is there, idle or not
            ask(requests[:most], most)
            for count in users:
                started = time.perf_counter()
                said[name, count] = ask(requests, count)
                seconds.setdefault((name, count), []).append(time.perf_counter() - started)
    expected = said["ours", min(users)]
    rates = []
    for (name, count), taken in seconds.items():
        answered = said[name, count]
        same = sum(one == other for one, other in zip(answered, expected, strict=True)) / answers
        tokens = sum(map(len, answered))
        rates.append(Rate(name=name, users=count, tokens_per_s=tokens / median(taken), same=same))
    return TextBatching(rates=tuple(rates), about=about)


def half_billion_engine(device: str) -> ChatEngine:
    """Nano's words and conversations; the weights are random, which says nothing and costs the same."""
    shipped = ChatEngine.load(device=device, dtype="float32", packed=False)
    special, size = shipped.processor.special, len(shipped.processor.tokenizer)
    model = VARGPT(half_billion(nano(special, size))).to(shipped.device).eval()
    return ChatEngine(model, shipped.processor, "half a billion, random")


def report(measured: TextBatching) -> str:
    """The numbers as people read them, as Markdown."""
    users = sorted({rate.users for rate in measured.rates})
    lines = [
        "| tokens/s | " + " | ".join(f"{count} at once" for count in users) + " | same answers |",
        "|---" * (len(users) + 2) + "|",
    ]
    for name in dict.fromkeys(rate.name for rate in measured.rates):
        of = {rate.users: rate for rate in measured.rates if rate.name == name}
        cells = [f"{of[count].tokens_per_s:.0f}" for count in users]
        lines.append(f"| {name} | {' | '.join(cells)} | {min(rate.same for rate in of.values()):.0%} |")
    about = "; ".join(f"{name}: {value}" for name, value in measured.about.items())
    return "\n".join([*lines, "", f"{about}.", ""])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text_batching", description="Text by many at once.")
    parser.add_argument("--model", help="model folder (default: the shipped nano)")
    parser.add_argument("--half-billion", action="store_true", help="a larger language model with random weights")
    parser.add_argument("--users", type=int, nargs="+", default=(1, 4, 16), help="how many ask at once")
    parser.add_argument("--answers", type=int, default=64, help="that each number of users gets in all")
    parser.add_argument("--runs", type=int, default=3, help="of which the median time is taken")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="also write the numbers here, as JSON")
    chosen = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)
    try:
        if chosen.half_billion:
            engine = half_billion_engine(chosen.device)
        else:
            engine = ChatEngine.load(chosen.model, device=chosen.device, dtype="float32", packed=False)
        measured = measure(engine, chosen.users, chosen.answers, chosen.runs)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    write_json(chosen.out, measured.as_json())
    sys.stdout.write(report(measured))


if __name__ == "__main__":
    main()
