"""Training in PyTorch, whatever the model: sampling, optimizer, loop, resumable state, several processes."""
