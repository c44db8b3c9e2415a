"""What can be measured of frames and sound alone: seams, colours, smoothness, a mouth's lag."""
