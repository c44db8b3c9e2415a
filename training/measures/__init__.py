"""What the nano models can do: what is asked of them, what is seen in the answers, and the report."""
