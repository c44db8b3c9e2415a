"""The transformer as a native model of ComfyUI: memory, patches, hooks, attention."""
