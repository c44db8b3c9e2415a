"""What each job plans and makes, given an encoder, a decoder and a denoiser; what it costs."""
