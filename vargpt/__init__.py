"""vargpt: one assistant that chats about images and draws them in one conversation."""

__version__ = "0.1.0"
