"""`make card`: what one graphics card does, in eight minutes: a JSON and a page, ready to be sent."""
