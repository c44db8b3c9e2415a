"""What measure.py does: a look at every frame of finished videos, numbers of them, and a page that shows both."""
