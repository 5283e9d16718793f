"""Storybook: our own endless drawn world. One `Scene` gives the picture, its captions, questions, edits and dialogues."""
