"""The neural network: attention, convolution, encoder, decoder, and the recogniser that joins them."""
