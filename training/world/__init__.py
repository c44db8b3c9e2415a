"""The small drawn world: what is in it, how it is drawn, said, heard and shown to each job."""
