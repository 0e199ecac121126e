"""From text to tokens and back: tokenizers, chat templates, tries of token sequences, lengths."""
