"""The web page: hooks in app.py, what to show in render.py, the conversation in session.py; `vargpt ui` starts it."""
