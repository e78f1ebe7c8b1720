"""Foundations of all algorithms: validation, frames, reductions, loops, batches, sharding, memory and checkpoints."""
