"""What users take home: a network with its card, and what it says of images of their own."""
