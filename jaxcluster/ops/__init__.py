"""Arrays in, arrays out. The XLA form is the truth; a kernel may stand beside it."""
