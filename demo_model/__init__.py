"""How the packaged model comptoir-demo is made: its corpus, its tokenizer, its network and its training."""
