"""`pretrain`: make the base policy of the tiny recipe, which answers without reasoning."""
