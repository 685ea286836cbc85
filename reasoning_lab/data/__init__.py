"""Problems, teachers, curation and batches: everything between a source and a tensor."""
