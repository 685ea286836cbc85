"""Losses as functions of tensors: masks, shapes and denominators are stated in each."""
