"""In-memory stand-ins for what the core needs from the outside.

Each passes the same contract tests as the real thing, so a test on a fake says something of the product.
"""
