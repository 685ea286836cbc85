"""Recipes, artifacts and their store."""
