"""What an installation is made of: settings, AWS and EKS definitions, images, and the code that applies them."""
