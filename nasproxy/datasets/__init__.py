"""A name or a path becomes an in-memory ImageDataset: ``load.load_dataset``; the names are in ``catalogue``."""
