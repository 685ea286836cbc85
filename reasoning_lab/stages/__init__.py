"""One folder a stage of the recipe: its config, its LightningModule, the data that it makes."""
