"""The questions a model is asked: one versioned text file a protocol."""
