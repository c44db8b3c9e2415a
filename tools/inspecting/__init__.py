"""What tools/inspect_model.py is made of: models that lie on the web, and this machine."""
