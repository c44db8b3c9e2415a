"""What the long jobs run: progress, what is kept, what comes out."""
