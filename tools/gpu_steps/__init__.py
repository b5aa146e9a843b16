"""Steps of ``tools/gpu_check.py``; those that use torch run in processes of their own."""
