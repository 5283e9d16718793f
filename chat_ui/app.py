"""Chainlit's hooks, and nothing else: what is shown is in render.py, what is remembered in session.py."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import uuid
from pathlib import Path

import chainlit as cl
from chainlit.input_widget import Select, TextInput
from chainlit.input_widget import Slider as SliderInput

from chat_ui import memory
from chat_ui.page import Reply
from chat_ui.render import View, advance, rechosen, reply, stop
from chat_ui.session import Conversation, Turn, question
from chat_ui.settings import (
    ADAPTER_LABEL,
    ADAPTER_TOOLTIP,
    SEED_LABEL,
    SEED_TOOLTIP,
    SLIDERS,
    PageSettings,
    adapter_choices,
)
from chat_ui.worker import Engine, Worker
from vargpt.adapters import read_card
from vargpt.chat.engine import ChatEngine, ContextFullError
from vargpt.loading import default_model_path, default_sampling, resolve_model

STARTERS = (
    ("A fox at night", "Draw a fox next to a pine tree at night"),
    ("Three balloons", "Paint three red balloons over a house"),
    ("Under the sea", "A watercolour of a whale and two fish in the sea"),
    ("Pixel castle", "Draw a castle in the mountains in pixel art style"),
    ("Surprise me", "Surprise me"),
    ("What can you do?", "What can you do?"),
)
DRAW = {"id": "Draw", "description": "The reply is a picture, whatever is said", "icon": "palette", "button": True}
MODEL = resolve_model(os.environ.get("VARGPT_MODEL") or None)
OPTIONS = json.loads(os.environ.get("VARGPT_LOAD", "{}"))
ADAPTERS = [read_card(Path(folder)).name for folder in OPTIONS.get("adapters", ())]
WELCOME = (
    "I draw, I look at pictures, and I change them. Ask for a picture, then ask about it, or say what should change."
)
if MODEL == default_model_path():
    WELCOME += "\n\nI am small: I know one drawn world of some 165 things, draw 64 × 64 pixels, and make mistakes."
STOPPED_BY_CHAINLIT = "Task manually stopped."


def load() -> Engine:
    return ChatEngine.load(MODEL, **OPTIONS)


worker = Worker(load)
cl.on_app_startup(worker.warm_up)
cl.on_app_shutdown(worker.close)
memory.install()


@cl.set_chat_profiles
async def profiles() -> list[cl.ChatProfile]:
    starters = [cl.Starter(label=label, message=message) for label, message in STARTERS]
    icon = "/public/favicon.svg"
    return [cl.ChatProfile(name="vargpt", markdown_description=WELCOME, icon=icon, starters=starters, default=True)]


@cl.on_chat_start
async def start() -> None:
    if conversation() is None:
        cl.user_session.set("conversation", Conversation(settings=PageSettings.of(default_sampling(MODEL))))
        cl.user_session.set("replies", {})
        cl.user_session.set("one_turn", asyncio.Lock())
    await cl.context.emitter.set_commands([DRAW])
    # Not NumberInput: it shows an empty value as 0, which is a seed like any other.
    settings = conversation().settings
    shown_seed = "" if settings.seed is None else str(settings.seed)
    seed = TextInput(id="seed", label=SEED_LABEL, tooltip=SEED_TOOLTIP, initial=shown_seed, placeholder="new each time")
    sliders = [
        SliderInput(
            id=slider.id, label=slider.label, tooltip=slider.tooltip, initial=getattr(settings, slider.id),
            min=slider.low, max=slider.high, step=slider.step,
        )
        for slider in SLIDERS
    ]  # fmt: skip
    adapters = []
    if ADAPTERS:
        choices = adapter_choices(ADAPTERS)
        adapters.append(
            Select(id="adapter", label=ADAPTER_LABEL, tooltip=ADAPTER_TOOLTIP, values=choices, initial_index=0)
        )
    await cl.ChatSettings([seed, *adapters, *sliders]).send()
    # A connection that breaks before the first message may have lost all this; the next one then calls this hook again.
    cl.context.session.chat_started = False


@cl.on_chat_resume
async def resume(thread: dict) -> None:
    talk = await memory.recall(thread)
    if talk is not None:
        cl.user_session.set("conversation", talk)
        cl.user_session.set("replies", {})
        cl.user_session.set("one_turn", asyncio.Lock())
    await start()


@cl.on_settings_update
async def change_settings(values: dict) -> None:
    try:
        conversation().settings = conversation().settings.changed(values)
    except ValueError as error:
        await cl.ErrorMessage(f"{error} The settings stay as they were.").send()


@cl.on_message
async def ask(message: cl.Message) -> None:
    try:
        files = [(element.name, Path(element.path).read_bytes()) for element in message.elements if element.path]
        prompt = question(message.content, files)
        prompt = memory.with_earlier_pictures(conversation(), message.id, prompt)
    except (ValueError, OSError) as error:
        await cl.ErrorMessage(str(error)).send()
        return
    route = "image" if message.command == DRAW["id"] else "auto"
    async with one_turn():
        await answer(conversation().ask(message.id, prompt, route))


@cl.action_callback("again")
async def again(action: cl.Action) -> None:
    if conversation().is_busy:
        await cl.context.emitter.send_toast("One thing at a time: stop the reply that is being written first.", "info")
        return
    try:
        turn = conversation().again(action.payload["turn"], uuid.uuid4().hex)
    except ValueError as error:
        await cl.ErrorMessage(str(error)).send()
        return
    # The click returns at once; the Stop button then cancels this task as it cancels an ordinary turn.
    cl.context.session.current_task = asyncio.create_task(answer_as_task(turn))


@cl.action_callback("choose")
async def choose(action: cl.Action) -> None:
    turn_id, shown = action.payload["turn"], replies().get(action.payload["turn"])
    try:
        message = conversation().choose(turn_id, action.payload["index"])
    except ValueError as error:
        await cl.ErrorMessage(str(error)).send()
        return
    if shown:
        await shown.show(rechosen(shown.view, message))
    await memory.chosen(conversation(), turn_id, action.payload["index"], message, is_shown=shown is not None)


@cl.on_stop
async def stop_now() -> None:
    last = cl.chat_context.get()[-1:]
    if last and last[0].content == STOPPED_BY_CHAINLIT:  # the reply itself says so, in its own place
        await last[0].remove()
    if conversation().cancel:
        conversation().cancel.set()


@cl.on_chat_end
async def leave() -> None:
    """A conversation that was closed for good draws no longer; after a mere loss of connection it goes on."""
    if cl.context.session.to_clear and conversation() and conversation().cancel:
        conversation().cancel.set()


def conversation() -> Conversation | None:
    return cl.user_session.get("conversation")


def one_turn() -> asyncio.Lock:
    """Held by a turn until it is remembered; after Stop the page lets a visitor write earlier than that."""
    return cl.user_session.get("one_turn")


def replies() -> dict[str, Reply]:
    """What is shown of every turn, by its id."""
    return cl.user_session.get("replies")


async def answer_as_task(turn: Turn) -> None:
    await cl.context.emitter.task_start()
    try:
        async with one_turn():
            await answer(turn)
    finally:
        await cl.context.emitter.task_end()


async def answer(turn: Turn) -> None:
    """Runs one turn and shows it. However it ends, the page says how, and what was said is kept."""
    talk, shown = conversation(), Reply(turn)
    view, set_aside = View(), 0
    replies()[turn.id] = shown
    talk.cancel = cancel = threading.Event()
    try:
        await memory.remember(talk, is_running=True)
        if not worker.is_loaded:
            await shown.status("The model is being loaded …")
        elif worker.num_waiting:
            await shown.status("Another conversation is being answered first …")
        while True:
            try:
                view = View()
                async for event in worker.stream(turn.request, cancel):
                    view = advance(view, event)
                    await shown.show(view)
                break
            except ContextFullError as error:
                await shown.remove()
                if not turn.set_aside_a_picture():
                    raise ValueError(f"{error}. Start a new conversation with the pencil at the top left.") from error
                set_aside += 1
                talk.cancel = cancel = threading.Event()
    except asyncio.CancelledError:  # the Stop button
        view = stop(view)
        await shown.show(view)
    except (ValueError, RuntimeError, OSError) as error:
        view = stop(view, None)
        await shown.show(view)
        await cl.ErrorMessage(f"This could not be answered: {error}").send()
    finally:
        cancel.set()
        talk.cancel = None
        talk.finish(turn, reply(view))
        await shown.close()
        await memory.remember(talk)
    await say_how_it_went(view, set_aside)


async def say_how_it_went(view: View, set_aside: int) -> None:
    notes = [view.note] if view.note else []
    if set_aside:
        pictures = "The oldest picture was" if set_aside == 1 else f"The {set_aside} oldest pictures were"
        notes.insert(0, f"{pictures} set aside: the conversation had grown longer than the model can read.")
    if notes:
        await cl.Message(content=f"*{' '.join(notes)}*").send()
