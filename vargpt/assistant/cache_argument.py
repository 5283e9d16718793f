"""The language model is transformers' own; this is the one thing that its releases disagree about."""

from __future__ import annotations

import inspect

from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLTextModel

# What the argument of a forward with the keys and values so far is called: the old name goes with transformers 5.40.
CACHE = "cache" if "cache" in inspect.signature(Qwen2VLTextModel.forward).parameters else "past_key_values"
