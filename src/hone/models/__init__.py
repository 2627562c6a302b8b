"""Models: the decoder, its tokenizer and templates, and their folders on disk."""
