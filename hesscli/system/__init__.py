"""The machine: errors, files, memory, threads, TensorFlow."""
