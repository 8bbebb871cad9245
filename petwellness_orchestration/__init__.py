"""The asset graph: what depends on what, when it runs and how it is checked."""
