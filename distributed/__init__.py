"""One forward over several processes, each with a graphics card: what they exchange, who starts and watches them."""
