"""Messages to tensors and back: special tokens, the text tokenizer, and the processor."""

from vargpt.processing.processor import ContextFullError, VargptProcessor, square_image_processor
from vargpt.processing.special_tokens import SpecialTokens
from vargpt.processing.text_tokenizer import train_text_tokenizer

__all__ = ["ContextFullError", "SpecialTokens", "VargptProcessor", "square_image_processor", "train_text_tokenizer"]
