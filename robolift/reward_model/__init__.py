"""A reward model for clips, learned from people's preferences (Bradley-Terry); in torch."""
