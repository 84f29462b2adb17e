"""The run card: one self-contained HTML page that shows what a run did and how well it went."""
