"""What every implementation of a port keeps, the fakes included: tests to be inherited."""
