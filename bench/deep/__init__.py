"""Deep clustering of sets of images over seeds, with settings that no label has chosen."""
