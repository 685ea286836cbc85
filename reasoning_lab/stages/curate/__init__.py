"""`curate`: a corpus without what should not be trained on, and an account of what that was."""
