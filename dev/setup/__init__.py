"""Makes `.venv`, ComfyUI and a browser. Runs on a bare Python."""
