"""Curation of a corpus: deduplication, filters, decontamination and selection."""
