"""Other ways out of an agent's run than its stream; only composition roots know them."""
