"""What is not in the package: manifests, the image, and the demo on a cluster (`python -m deploy.demo`)."""
