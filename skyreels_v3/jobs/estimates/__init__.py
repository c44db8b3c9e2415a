"""What a video will need, before it is made: memory on a card, time, and both on several cards."""
