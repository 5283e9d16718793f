"""Chainlit's hooks, and nothing else: each hands over to the file that does the work.

`answering.py` runs a turn, `gallery.py` and `page.py` show it, `session.py` knows what was said, `memory.py` keeps it.
"""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import chainlit as cl
from chainlit.server import app as chainlit_app
from chainlit.types import ThreadDict

from chat_ui import api
from chat_ui.answering import answer
from chat_ui.conversation.marked_region import region_of
from chat_ui.conversation.new_picture_words import asks_for_a_new_picture
from chat_ui.conversation.page_settings import PageSettings, sizes_of
from chat_ui.conversation.profiles import Profile, adapter_line, profile_named, profile_of, profiles, switched
from chat_ui.conversation.slash_commands import Command, buttons, check, help_text, parse, version_number
from chat_ui.conversation.version_tree import Version
from chat_ui.conversation.visitor_conversation import Conversation, Turn, question
from chat_ui.history import recorder
from chat_ui.page_session import begin, conversation, gallery, has_begun, one_turn
from chat_ui.showing.settings_panel import show_panel
from vargpt.chat.engine import ChatEngine
from vargpt.chat.scheduler import Scheduler
from vargpt.loading.adapters import read_card
from vargpt.loading.models import default_model_path, read_config
from vargpt.published.families import default_sampling, resolve_model

STARTERS = (
    ("A fox at night", "Draw a fox next to a pine tree at night"),
    ("Three balloons", "Paint three red balloons over a house"),
    ("Under the sea", "A watercolour of a whale and two fish in the sea"),
    ("Pixel castle", "Draw a castle in the mountains in pixel art style"),
    ("Surprise me", "Surprise me"),
    ("What can you do?", "What can you do?"),
)
MODEL = resolve_model(os.environ.get("VARGPT_MODEL") or None)
OPTIONS = json.loads(os.environ.get("VARGPT_LOAD", "{}"))
ADAPTERS = [read_card(Path(folder)).name for folder in OPTIONS.get("adapters", ())]
WELCOME = (
    "I draw, I look at pictures, and I change them. Ask for a picture, then ask about it, or say what should change."
)
if MODEL == default_model_path():
    WELCOME += "\n\nI am small: I know one drawn world of some 165 things, draw 64 × 64 pixels, and make mistakes."
PROFILES = profiles(MODEL.name, ADAPTERS, WELCOME)
STOPPED_BY_CHAINLIT = "Task manually stopped."
ONE_AT_A_TIME = "One thing at a time: stop the reply that is being written first."


def load() -> ChatEngine:
    return ChatEngine.load(MODEL, **OPTIONS)


scheduler = Scheduler(load)
cl.on_app_startup(scheduler.warm_up)
cl.on_app_shutdown(scheduler.close)
recorder.install()
api.install(chainlit_app, scheduler, MODEL, OPTIONS)


@cl.set_chat_profiles
async def chat_profiles() -> list[cl.ChatProfile]:
    return [shown_profile(profile) for profile in PROFILES]


def shown_profile(profile: Profile) -> cl.ChatProfile:
    return cl.ChatProfile(
        name=profile.name,
        markdown_description=profile.description,
        icon="/public/favicon.svg",
        starters=[cl.Starter(label=label, message=message) for label, message in STARTERS],
        default=profile is PROFILES[0],
    )


@cl.on_chat_start
async def start() -> None:
    if not has_begun():
        begin(new_conversation())
    elif conversation().is_busy:
        await cl.context.emitter.task_start()  # a new connection begins with the end of all tasks
    await show_controls()
    await gallery().resend(conversation())
    # A connection that breaks may have lost all this; the next one then calls this hook again.
    cl.context.session.chat_started = False


@cl.on_chat_resume
async def resume(thread: ThreadDict) -> None:
    """A conversation is opened again; also called when a connection that broke is back.

    Chainlit shows `thread` after this, in place of all that was sent before: what is to be seen goes into it.
    """
    if not has_begun():
        begin(await recorder.recall(thread, ADAPTERS) or new_conversation())
    talk = conversation()
    profile = profile_of(PROFILES, talk.settings.adapter)
    shown = {"chat_profile": profile.name, "chat_settings": await show_controls()}
    thread["metadata"] = {**(thread["metadata"] or {}), **shown}
    gallery().resume(talk, thread)


@cl.on_settings_update
async def change_settings(values: dict) -> None:
    try:
        conversation().settings = conversation().settings.changed(values)
    except ValueError as error:
        await cl.ErrorMessage(f"{error} The settings stay as they were.").send()
        return
    if cl.context.session.has_first_interaction:  # before that there is nothing to come back to
        await recorder.remember(conversation())


@cl.on_message
async def ask(message: cl.Message) -> None:
    files = [(element.name, Path(element.path)) for element in message.elements if element.path]
    try:
        command = parse(message.content, message.command)
        check(command, bool(files), conversation().current is not None)
        if command.name in WITHOUT_MODEL:
            await WITHOUT_MODEL[command.name](command)
            return
        prompt = question(command.words, [(name, path.read_bytes()) for name, path in files])
        prompt = recorder.with_earlier_pictures(conversation(), message.id, prompt)
    except (ValueError, OSError) as error:
        await cl.ErrorMessage(str(error)).send()
        return
    is_new = command.name != "edit" and asks_for_a_new_picture(command.words, command.name == "draw")
    async with one_turn():
        turn = conversation().ask(message.id, prompt, command.route, is_new)
        await answer(conversation(), turn, gallery(), scheduler)


@cl.on_stop
async def stop_now() -> None:
    last = cl.chat_context.get()[-1:]
    if last and last[0].content == STOPPED_BY_CHAINLIT:  # the reply itself says so, in its own place
        await last[0].remove()
    if running := conversation().running:
        running.cancel()


@cl.on_chat_end
async def leave() -> None:
    """A conversation that was closed for good draws no longer; after a mere loss of connection it goes on."""
    if cl.context.session.to_clear and has_begun() and (running := conversation().running):
        running.cancel()


# The buttons on pictures


@cl.action_callback("again")
async def again(action: cl.Action) -> None:
    await run_once_free(lambda: conversation().again(action.payload["turn"], new_id()))


@cl.action_callback("refine")
async def refine(action: cl.Action) -> None:
    version, keep = action.payload["version"], int(action.payload["keep"])
    await run_once_free(lambda: conversation().refine(version, keep, new_id()))


@cl.action_callback("vary")
async def vary(action: cl.Action) -> None:
    await run_once_free(lambda: conversation().vary(action.payload["version"], new_id()))


@cl.action_callback("choose")
async def choose(action: cl.Action) -> None:
    turn_id, index = action.payload["turn"], action.payload["index"]
    if await change(lambda: conversation().choose(turn_id, index)):
        await recorder.vote_for(conversation(), turn_id, index)


@cl.action_callback("go_to")
async def go_to(action: cl.Action) -> None:
    await change(lambda: conversation().go_to(action.payload["version"]))


@cl.action_callback("undo")
async def undo(action: cl.Action) -> None:
    await change(conversation().undo)


@cl.action_callback("open_region")
async def open_region(action: cl.Action) -> None:
    try:
        await gallery().open_region(conversation(), action.payload["version"])
    except ValueError as error:
        await cl.ErrorMessage(str(error)).send()


@cl.action_callback("mark_region")
async def mark_region(action: cl.Action) -> bool:
    """The next message changes only what was marked; the sheet sends it, or leaves that to the visitor ("later").

    Tells the sheet whether it was marked.
    """
    version = action.payload["version"]

    def mark() -> Version:
        found = conversation().tree.find(version)
        conversation().mark(version, region_of(action.payload["mask"], found.part.image.size))
        return found

    is_marked = await change(mark)
    if is_marked and action.payload.get("later"):
        await cl.context.emitter.send_toast("Your next message changes only the part that you marked.", "success")
    return is_marked


@cl.action_callback("unmark")
async def unmark(action: cl.Action) -> None:
    await change(conversation().unmark)


# Commands that need no model


async def undo_typed(command: Command) -> None:
    await say_where(conversation().undo())


async def go_to_typed(command: Command) -> None:
    number = version_number(command.words)
    await say_where(conversation().go_to(conversation().tree.numbered(number).id))


async def switch_adapter(command: Command) -> None:
    talk = conversation()
    if command.words:
        talk.settings = talk.settings.changed_to(adapter=switched(command.words, ADAPTERS))
        await recorder.remember(talk)
        await show_controls()
    elif not ADAPTERS:
        switched("", ADAPTERS)  # says how to start the page with one
    await cl.Message(adapter_line(talk.settings.adapter, ADAPTERS)).send()


async def tell_commands(command: Command) -> None:
    await cl.Message(help_text()).send()


WITHOUT_MODEL: dict[str, Callable[[Command], Awaitable[None]]] = {
    "undo": undo_typed,
    "version": go_to_typed,
    "lora": switch_adapter,
    "help": tell_commands,
}


# What the hooks share


def new_conversation() -> Conversation:
    """Nothing said yet; settings as the model and the chosen profile have them."""
    settings = PageSettings.of(default_sampling(MODEL))
    profile = profile_named(PROFILES, cl.user_session.get("chat_profile"))
    return Conversation(settings=settings.changed_to(adapter=profile.adapter))


def new_id() -> str:
    return uuid.uuid4().hex


async def show_controls() -> dict[str, Any]:
    """Shows the commands and the settings panel, as the conversation has them; the values of the panel."""
    await cl.context.emitter.set_commands(buttons(ADAPTERS))
    sizes = scheduler.engine.sizes if scheduler.engine else sizes_of(read_config(MODEL))
    return await show_panel(conversation().settings, ADAPTERS, sizes)


async def say_where(version: Version) -> None:
    await recorder.remember(conversation())
    number = conversation().tree.number(version.id)
    said = await cl.Message(f"Back at version {number}: what you ask for next starts from it.").send()
    await gallery().refresh(conversation(), below=said.id)


async def change(step: Callable[[], Any]) -> bool:
    """Does something to the conversation and shows it, or says why not; whether it was done."""
    if conversation().is_busy:
        await cl.context.emitter.send_toast(ONE_AT_A_TIME, "info")
        return False
    try:
        step()
    except ValueError as error:
        await cl.ErrorMessage(str(error)).send()
        return False
    await recorder.remember(conversation())
    await gallery().refresh(conversation())
    return True


async def run_once_free(turn_of: Callable[[], Turn]) -> None:
    """Runs a turn that a button asks for. The click returns at once; Stop then cancels this task like any turn's."""
    if conversation().is_busy:
        await cl.context.emitter.send_toast(ONE_AT_A_TIME, "info")
        return
    try:
        turn = turn_of()
    except ValueError as error:
        await cl.ErrorMessage(str(error)).send()
        return
    cl.context.session.current_task = asyncio.create_task(answer_as_task(turn))


async def answer_as_task(turn: Turn) -> None:
    await cl.context.emitter.task_start()
    try:
        async with one_turn():
            await answer(conversation(), turn, gallery(), scheduler)
    finally:
        await cl.context.emitter.task_end()
