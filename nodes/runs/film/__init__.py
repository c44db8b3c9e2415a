"""What Film runs: each kind of shot by the job that makes it, and all of them as one resumable run."""
