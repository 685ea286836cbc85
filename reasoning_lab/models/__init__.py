"""Policies, references and tokenizers: building, loading, exporting."""
