"""Other ways out of the stream, and what others want to know of it. Only composition roots import them."""
