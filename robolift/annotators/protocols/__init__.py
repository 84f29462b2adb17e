"""What a model is asked about an episode, and what its answers mean; one file a protocol."""
