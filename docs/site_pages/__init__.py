"""Pages of the documentation that are made from the code: methods, losses, the reference, the gallery."""
