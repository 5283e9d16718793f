"""Messages to tensors and back: special tokens, the text tokenizer, and the processor."""

from vargpt.processing.processor import VargptProcessor
from vargpt.processing.special_tokens import SpecialTokens
from vargpt.processing.text_tokenizer import train_text_tokenizer

__all__ = ["SpecialTokens", "VargptProcessor", "train_text_tokenizer"]
