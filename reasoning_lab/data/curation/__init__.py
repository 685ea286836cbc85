"""What of a corpus is kept."""
