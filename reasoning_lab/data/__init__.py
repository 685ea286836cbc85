"""Sources, teachers, curation, the corpus and tokens: from a dataset's row to a batch."""
