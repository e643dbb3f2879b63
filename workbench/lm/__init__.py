"""One model object: open, read and change any Hugging Face language model."""
