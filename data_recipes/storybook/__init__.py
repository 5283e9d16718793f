"""Storybook: our own endless drawn world. One `Scene` gives the picture, captions, questions, edits and dialogues."""
