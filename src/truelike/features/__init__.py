"""Features of images in a frozen encoder, and nearest neighbours in them."""
