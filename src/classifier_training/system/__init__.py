"""Files, storage, processes and memory; nothing of classification and no torch."""
