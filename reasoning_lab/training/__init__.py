"""The loop that every training stage shares."""
