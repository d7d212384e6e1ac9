"""What worker.py runs: one module for each engine, with imports that only its own environment can satisfy."""
