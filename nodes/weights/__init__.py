"""The weights of the network inside ComfyUI: its layers, LoRAs, files, and the way to the card."""
